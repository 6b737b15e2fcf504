"""Where jobs run: lanes of Ray Tune, worker groups of Ray Train, the cluster."""
