"""Figures as people read them: shares in percent, durations in minutes, strategies in a few words."""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import Any

from raytl.evaluation.intervals import Interval


def score(value: Any) -> str:
    """A selection score, which is no share of anything: ``0.913``, a dash for none."""
    return f"{value:.3f}" if _known(value) else "–"


def share(value: Any) -> str:
    """An accuracy: ``96.3 %``, a dash for none."""
    return f"{100 * value:.1f} %" if _known(value) else "–"


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
    """A source model in short: ``resnet18``, ``printed/cnn-small`` (pretrained on printed), ``scratch cnn-small``."""
    provider, _, rest = str(uri).partition(":")
    if provider == "pretrain":
        domain, _, architecture = rest.partition("/")
        return f"{domain}/{architecture.rpartition(':')[2]}"
    if provider == "file":
        return PurePath(rest).name
    return f"scratch {rest}" if provider == "scratch" else rest or str(uri)


def strategy(values: dict[str, Any]) -> str:
    """A strategy in one phrase: what it starts from, what is frozen, what adapts it."""
    uri = str(values.get("source_model"))
    if uri.startswith("pretrain:"):
        domain, _, architecture = uri.removeprefix("pretrain:").partition("/")
        start = f"{source(architecture).removeprefix('scratch ').removesuffix('@none')} pretrained on {domain}"
    elif uri.startswith("scratch:") or uri.endswith("@none"):
        start = f"{source(uri).removeprefix('scratch ').removesuffix('@none')} from random weights"
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
