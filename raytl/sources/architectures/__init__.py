"""raytl's own small networks, ``scratch:<name>``: one file each, registered by one decorator.

Saved models name their architecture, so a released body never changes: a better one gets a new name.
"""
