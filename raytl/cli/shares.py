"""How shares are written on the command line: ``5%`` or ``0.05``."""

from __future__ import annotations

from raytl.core.errors import UserError


def parse_canary(text: str) -> float:
    """The share of the requests that a model on trial answers."""
    share = parse_share("--canary", text)
    if not 0 < share < 1:
        raise UserError(f"--canary {text}: give a share above 0 and below 100 %")
    return share


def parse_share(option: str, text: str) -> float:
    """0.05 from ``5%`` and from ``0.05``."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UserError(f"{option} {text}: give a share, such as 5% or 0.05")
    return value


def parse_holdout(text: str) -> float:
    """The share of the target that is held out."""
    return parse_share("--holdout", text)
