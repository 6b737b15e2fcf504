"""Tiny real fixtures that several rooms share."""

from __future__ import annotations

import os

# One Ray session per module starts several processes: keep each of them to one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
