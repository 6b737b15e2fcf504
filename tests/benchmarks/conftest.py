"""The benchmarks are scripts beside the package; their parts that decide something are tested like it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
