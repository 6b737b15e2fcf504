"""The joint search: space, sampler, plan and lanes, on Ray Tune."""
