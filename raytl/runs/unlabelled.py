"""What the report says of the winner on the images without labels, of which its figures need not be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raytl.judging.one_answer import few_for_all, one_for_all
from raytl.runs import wording

_COMMON = 0.75
"""From which share of the images without labels on a class is so common that its answer alone is often right."""
_CLASSES = 3
"""Classes that are named in a sentence."""


@dataclass(frozen=True)
class Sentence:
    """One sentence and how to colour it: ``good``, ``open`` (the data cannot tell) or ``bad``."""

    tone: str
    text: str


def one_answer(summary: dict[str, Any]) -> list[Sentence]:
    """Whether the winner says one thing or few of nearly all unlabelled images, and nothing known says that it should.

    Where there are labels from there, how frequent the classes are is known; elsewhere the user may know. Of a model
    that names a class from another probability on, which is most probable says little.
    """
    answers = summary.get("answers") or {}
    if not answers or summary.get("operating_point") is not None:
        return []
    labels, shares = list(answers), list(answers.values())
    known = (summary.get("survey") or {}).get("frequencies") or []
    one, few = one_for_all(shares, known), few_for_all(shares, known)
    if one is not None:
        said, what, those = shares[one], f"'{labels[one]}'", "that"
    elif len(few) > 1:
        said, those = sum(shares[which] for which in few), "of these"
        named = " or ".join(f"'{labels[which]}'" for which in few)
        what = f"one of {len(few)} of the {len(labels)} classes" if len(few) > _CLASSES else named
    else:
        return []
    share = "all" if round(said, 6) == 1 else wording.share(said)
    return [
        Sentence(
            "bad" if len(answers) > 2 else "open",
            f"For {share} of the unlabelled images its answer is {what}: unless nearly all of them are {those}, it "
            "does not tell them apart.",
        )
    ]


@dataclass(frozen=True)
class Right:
    """How often the winner is right on the images without labels, whole percent, with its 90 % interval.

    beside: how often the commonest class would be, as an end of a sentence, where that is nearly always; else "".
    """

    value: str
    low: str
    high: str
    beside: str


def right_on_unlabelled(summary: dict[str, Any]) -> Right | None:
    """None where that is not known."""
    right = (summary.get("on_unlabelled") or {}).get("accuracy")
    if right is None:
        return None
    value, low, high = (f"{100 * right[name]:.0f}" for name in ("value", "low", "high"))
    return Right(value, low, high, _one_for_all(summary))


def are_of_another_kind(summary: dict[str, Any]) -> bool:
    """Whether the images without labels are, for all that is known."""
    drift = (summary.get("on_unlabelled") or {}).get("drift")
    # Where there was no time for the test of the winner, there is what was seen before anything was trained.
    return bool((summary.get("survey") or {}).get("apart") if drift is None else drift["alarm"])


def on_unlabelled(summary: dict[str, Any]) -> list[Sentence]:
    """What is known of the winner on the images without labels: its figure is of images like the labelled ones."""
    survey, right, moved = summary.get("survey") or {}, right_on_unlabelled(summary), are_of_another_kind(summary)
    begin = "The images without labels are of another kind than the labelled ones"
    end = "what labelled images tell of it holds for images like these alone."
    if right is None:
        why = summary.get("why_not_on_unlabelled")
        found = [Sentence("bad", f"{begin}: expect less on them; {end}")] if moved else unclear(survey)
        unknown = f"How often its answers are right on the images without labels is not known: {why}."
        return [*found, *([Sentence("open", unknown)] if why else [])]
    figure = (
        f"about {right.value} % of its answers are right (90 % interval {right.low} to {right.high}), by an estimate"
    )
    figure = f"{figure} without labels{right.beside}"
    if moved:
        return [Sentence("bad", f"{begin}: on them {figure}; {end}")]
    return [Sentence("plain", f"On the images without labels {figure}."), *unclear(survey)]


def agreement(summary: dict[str, Any]) -> list[Sentence]:
    """How far a network is to be believed that no label has judged."""
    told = summary.get("agreement")
    if told is None:
        return []
    same = f"for {100 * told['value']:.0f} % of the images without labels ({told['images']} looked at)"
    return [
        Sentence(
            "open",
            f"It says the same as a head on frozen features {same}: no label tells how often it is right, and this is "
            "usually near to it. On average its probabilities are no surer.",
        )
    ]


def unclear(survey: dict[str, Any]) -> list[Sentence]:
    """What a figure on labelled images may not hold for, where that cannot be told."""
    if survey.get("apart") or not survey.get("unclear"):
        return []
    told = f"Whether the images without labels are of another kind than the labelled ones, {survey['unclear']}"
    return [Sentence("open", f"{told}: its figures may not hold for them.")]


def _one_for_all(summary: dict[str, Any]) -> str:
    """How often the commonest class would be right on the images without labels, where that is nearly always."""
    answers, known = summary.get("answers") or {}, (summary.get("survey") or {}).get("frequencies") or []
    if not answers or len(known) != len(answers) or max(known) < _COMMON:
        return ""
    label = max(zip(known, answers, strict=True))[1]
    return f", where '{label}' for every image would be right on about {100 * max(known):.0f} % for all that is known"
