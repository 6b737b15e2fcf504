"""Figures as people read them: shares in percent, durations in minutes, strategies in a few words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from raytl.core.names import printable
from raytl.evaluation.intervals import Interval
from raytl.sources.heads import CONVEX, K_NN, NEAREST_MEAN, ZERO_SHOT
from raytl.sources.uris import is_squashed, is_untrained, joined_parts, split_size, tiles_of

TOO_FEW = "so few independent images cannot tell"
"""Where an interval reaches from one end to the other: of one group alone, or a handful of images."""
_AT_HAND = {
    "inductive": "labelled images",
    "semi-supervised adaptation": "labelled and unlabelled images",
    "unsupervised adaptation": "labels of other domains and unlabelled images",
}
_SOLVED = {NEAREST_MEAN: "the nearest class mean", K_NN: "the nearest labelled images (k-NN)"}


def score(value: Any) -> str:
    """A selection score, which is no share of anything: ``0.913``, a dash for none."""
    return f"{value:.3f}" if _known(value) else "–"


def share(value: Any) -> str:
    """An accuracy: ``96.3 %``, a dash for none."""
    return f"{100 * value:.1f} %" if _known(value) else "–"


def value(figure: Any, *, share: bool = True) -> str:
    """A metric's value: ``96.3 %`` of a share, ``0.412`` of anything else, a dash for none."""
    if not _known(figure):
        return "–"
    return f"{100 * figure:.1f} %" if share else f"{figure:.3f}"


def limits(interval: Interval, *, share: bool = True) -> str:
    """Both ends: ``94.1 to 97.8``, of shares in percent."""
    return " to ".join(value(end, share=share).removesuffix(" %") for end in (interval.low, interval.high))


def figure(interval: Interval, *, share: bool = True) -> str:
    """A metric with its interval: ``96.3 %, 95 % interval 94.1 to 97.8``; what cannot be told is said in words."""
    if not _known(interval.value):
        return f"not known: {TOO_FEW}"
    told = value(interval.value, share=share)
    if share and interval.low <= 0 and interval.high >= 1:
        return f"{told} (how far off, {TOO_FEW})"
    return f"{told}, 95 % interval {limits(interval, share=share)}"


def amount(difference: float, *, share: bool = True) -> str:
    """A difference: ``+9.5 points`` of shares, ``+0.041`` of anything else."""
    return f"{signed(difference)} points" if share else f"{difference:+.3f}".replace("-", "−")


def gain(interval: Interval, *, share: bool = True) -> str:
    """A difference with its interval: ``+9.5 points (95 % interval +7.0 to +12.1)``."""
    if share and interval.low <= -1 and interval.high >= 1:
        return f"{amount(interval.value, share=share)} (how far off, {TOO_FEW})"
    low, high = (amount(end, share=share).removesuffix(" points") for end in (interval.low, interval.high))
    return f"{amount(interval.value, share=share)} (95 % interval {low} to {high})"


def signed(share: float) -> str:
    """A difference of shares in percentage points, with its sign (a true minus, no negative zero)."""
    rounded = round(100 * share, 1) + 0.0
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def duration(seconds: float, *, rough: bool = False) -> str:
    """``8.0 s``, ``2 min 51 s``, ``3 h 5 min``; of an estimate, in one unit: ``8.0 s``, ``3 min``, ``3.1 h``."""
    whole = round(seconds)
    if whole < (90 if rough else 60):
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if rough:
        return f"{seconds / 60:.0f} min" if whole < 5400 else f"{seconds / 3600:.1f} h"
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


def at_hand(setting: Any) -> str:
    """What a search had to learn from, by the setting that its task allows; a model may have used less of it."""
    return _AT_HAND.get(str(setting), str(setting))


def source(uri: Any) -> str:
    """A source model in short: ``resnet18``, ``printed/cnn-small`` (pretrained on printed), ``scratch cnn-small``."""
    provider, _, rest = str(uri).partition(":")
    if provider == "pretrain":
        domain, _, architecture = rest.partition("/")
        return f"{domain}/{architecture.rpartition(':')[2]}"
    rest, side = split_size(rest)
    if provider == "joined":
        rest = " and ".join(source(part) for part in joined_parts(str(uri)))
    if provider == "file":
        rest = printable(PurePath(rest.partition("?")[0]).name)
    tiles = tiles_of(str(uri))
    if side:
        rest += f" at {side} px" if tiles == 1 else f" on {tiles} x {tiles} pieces of {side // tiles} px"
        rest += ", squashed" if is_squashed(str(uri)) else ""
    return f"scratch {rest}" if provider == "scratch" else rest or str(uri)


def listed_source(uri: Any) -> str:
    """The same where there is little room: a size of its own comes first, which is what tells it apart."""
    bare, side = split_size(str(uri))
    tiles = tiles_of(str(uri))
    seen = "" if not side else f"{side} px " if tiles == 1 else f"{tiles} x {side // tiles} px "
    seen += "squashed " if is_squashed(str(uri)) else ""
    return f"{seen}{source(bare)}" if seen else source(uri)


def strategy(values: dict[str, Any]) -> str:
    """A strategy in one phrase: what it starts from, what is frozen, what adapts it."""
    uri = str(values.get("source_model"))
    if uri.startswith("pretrain:"):
        domain, _, architecture = uri.removeprefix("pretrain:").partition("/")
        start = f"{source(architecture).removeprefix('scratch ').removesuffix('@none')} pretrained on {domain}"
    elif is_untrained(uri):
        start = f"{source(uri).removeprefix('scratch ').replace('@none', '')} from random weights"
    else:
        start = f"fine-tuned from {source(uri)}"
    if uri.startswith("plain:"):
        start = f"plain image features ({uri.removeprefix('plain:')})"
    if values.get("head") in CONVEX:
        if values["head"] == ZERO_SHOT:
            return f"the class names in words, as {start.removeprefix('fine-tuned from ')} reads them (zero-shot)"
        where = "every stage of " if values["head"] == "stages" else ""
        joined = values.get("source_domain")
        taught = values.get("adaptation") == "propagation"
        moved = ", moved to the target's moments" if taught or values.get("adaptation") == "moments" else ""
        return (
            f"{_SOLVED.get(values['head'], 'logistic regression')} on {where}{start.removeprefix('fine-tuned from ')}"
            + (f", with the labelled images of {joined}{moved} in the training" if _known(joined) else "")
            + (f", augmented ({values['augmentation']})" if _augmented(values) else "")
            + (", taught by unlabelled images whose neighbours agree (label propagation)" if taught else "")
        )
    cut = values.get("cut")
    frozen = f", {cut} stage{'s' if cut != 1 else ''} frozen" if cut else ""
    if uri.startswith("plain:"):  # of which nothing is learned, frozen or not
        start, frozen = f"a head trained on {start}", ""
    loss = values.get("adaptation") or "none"
    joined = values.get("source_domain")
    adapted = f", {loss} adaptation" if loss != "none" else ""
    return (
        start + frozen + adapted + (f", with the labelled images of {joined} in the training" if _known(joined) else "")
    )


def _augmented(values: Mapping[str, Any]) -> bool:
    """Whether a head that is solved for learned from augmented views too."""
    return values.get("augmentation", "none") != "none" and bool(values.get("cached_views"))


def _known(value: Any) -> bool:
    return value is not None and value == value
