"""When to do what, and when to stop. Knows neither Ray nor the time on the wall."""
