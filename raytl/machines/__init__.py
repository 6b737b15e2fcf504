"""What a search will run on, looked at before it starts: the cluster at an address, the memory that is free."""
