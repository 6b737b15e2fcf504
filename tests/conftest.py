"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# One Ray session per module starts several processes: keep each of them to one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Property tests measure behaviour, not time: a busy machine must not fail them.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
