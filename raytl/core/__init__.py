"""What every room may use: errors, registries, typed settings, seeds, hashes and places on disk."""
