"""raytl's own small networks, ``scratch:<name>``: one file each, registered by one decorator."""
