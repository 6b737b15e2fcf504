"""The run store: what a search leaves on disk, the leaderboard, and the report."""

from raytl.runs.run import Run
from raytl.runs.store import RunStore, RunSummary
from raytl.runs.terminal import render_leaderboard
from raytl.runs.writer import RunWriter

__all__ = ["Run", "RunStore", "RunSummary", "RunWriter", "render_leaderboard"]
