"""What may be tried: the space as a file, parsed, and bound to a task."""
