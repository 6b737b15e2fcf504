"""raytl: joint transfer-learning search on Ray, from a few labelled images to a served model."""
