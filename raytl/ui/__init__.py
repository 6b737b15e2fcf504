"""The control room: a page over a storage of runs, for one machine or, with a token, for a team."""

from raytl.ui.app import make_app
from raytl.ui.server import serve

__all__ = ["make_app", "serve"]
