"""TEMP"""

from __future__ import annotations

from dataclasses import dataclass

from raytl.evaluation.intervals import Comparison


@dataclass(frozen=True)
class Pair:
    name: str
    part: str
    comparison: Comparison


@dataclass(frozen=True)
class Finding:
    name: str
    tone: str
    comparison: Comparison


def judge(pairs):
    return [
        Finding(
            p.name,
            "helped" if p.comparison.low > 0 else "harm" if p.comparison.high < 0 else "cannot-tell",
            p.comparison,
        )
        for p in pairs
    ]
