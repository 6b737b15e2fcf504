"""Figures as people read them: shares in percent, durations in minutes, strategies in a few words."""

from __future__ import annotations

import math
from typing import Any

from raytl.evaluation.intervals import Interval

_SHARES = ("accuracy", "recall", "precision", "f1")


def is_share(metric: str) -> bool:
    """Whether a metric is a share in [0, 1], to be shown in percent."""
    return metric.endswith(_SHARES)


def score(value: Any, metric: str = "accuracy") -> str:
    """A score: ``96.3 %`` for a share, three significant digits otherwise, a dash for none."""
    if not _known(value):
        return "–"
    return f"{100 * value:.1f} %" if is_share(metric) else f"{value:.3g}"


def with_interval(interval: Interval | None, metric: str = "accuracy") -> str:
    """``96.3 % (94.8 to 97.7)``, or a dash."""
    if interval is None:
        return "–"
    if is_share(metric):
        return f"{100 * interval.value:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
    return f"{interval.value:.3g} ({interval.low:.3g} to {interval.high:.3g})"


def points(interval: Interval) -> str:
    """A gain in percentage points with its interval: ``+9.5 points (95 % interval +7.0 to +12.1)``."""
    low, high = signed(interval.low), signed(interval.high)
    return f"{signed(interval.value)} percentage points (95 % interval {low} to {high})"


def signed(share: float) -> str:
    """A difference of shares in percentage points, with its sign (a true minus, no negative zero)."""
    rounded = round(100 * share, 1) + 0.0
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def duration(seconds: float) -> str:
    """``8 s``, ``2 min 51 s``, ``3 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def setting(value: Any) -> str:
    """The value of a strategy's setting: three significant digits, ``none`` for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "none"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def source(uri: Any) -> str:
    """A source model's URI without its provider: ``cnn-small@printed``, ``scratch cnn-small``."""
    provider, _, rest = str(uri).partition(":")
    return rest if rest and provider != "scratch" else str(uri).replace("scratch:", "scratch ")


def strategy(values: dict[str, Any]) -> str:
    """A strategy in one phrase: what it starts from, what is frozen, what adapts it."""
    uri = str(values.get("source_model"))
    untrained = uri.startswith("scratch:") or uri.endswith("@none")
    architecture, _, pretrained_on = uri.removeprefix("pretrain:").partition("@")
    if untrained:
        start = f"{source(uri.removeprefix('scratch:').removesuffix('@none'))} from random weights"
    elif uri.startswith("pretrain:"):
        start = f"{architecture} pretrained on {pretrained_on}"
    else:
        start = f"fine-tuned from {source(uri)}"
    cut = values.get("cut")
    frozen = f", {cut} stage{'s' if cut != 1 else ''} frozen" if cut else ""
    loss = values.get("adaptation") or "none"
    joined = values.get("source_domain")
    adapted = f", {loss} adaptation" if loss != "none" else ""
    return (
        start + frozen + adapted + (f", with the labelled images of {joined} in the training" if _known(joined) else "")
    )


def _known(value: Any) -> bool:
    return value is not None and value == value
