"""Judging a search: data in, choice, estimates and verdict as data out. Who words and draws them is elsewhere."""
