"""What to try next: what source models promise, the usual recipes, TPE, earlier searches, cost."""
