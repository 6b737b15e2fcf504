"""What transfer, adaptation and every other part of the winner brought, in a sentence each."""

from __future__ import annotations

from typing import Any

from raytl.judging.verdict import USUAL, USUAL_FINE_TUNING, how_good, lacks
from raytl.runs.gains import controls_of, deciding_control, in_words, named, tone
from raytl.runs.parts import words
from raytl.runs.run import interval
from raytl.runs.unlabelled import Sentence
from raytl.sources.uris import is_untrained

_NAMED = 3
"""Source models that were given up and are named in a sentence."""
_WEIGHTS = (
    "Where none could be had, 'raytl doctor' says how to get some; where there was no time for them, the table of "
    "trials says so."
)


def transfer(summary: dict[str, Any]) -> Sentence:
    """Whether starting from pretrained weights beat the very same strategy without any."""
    control = deciding_control(summary, "source-model")
    if control is not None:
        return judged(control, summary)
    uri = str(summary["best"]["strategy"].get("source_model"))
    if uri.startswith("plain:"):
        what = "the best model found is a classifier on plain image features"
    elif is_untrained(uri):
        what = "the best strategy found starts from random weights"
    else:
        return Sentence("open", "Whether transfer helped is not known: there was nothing to compare it with.")
    return _without_transfer(what, summary)


def adaptation(summary: dict[str, Any]) -> Sentence:
    """Whether the winner's adaptation loss beat the very same strategy without one."""
    control = deciding_control(summary, "adaptation")
    if control is not None:
        return judged(control, summary)
    if summary["best"]["strategy"].get("adaptation", "none") == "none":
        if not measured(summary):
            told = (
                "Whether adaptation helps nobody has measured: by the score alone, the best strategy found uses none."
            )
            return Sentence("open", told)
        return Sentence("open", "Domain adaptation did not help: the best strategy found uses no adaptation loss.")
    return Sentence("open", "Whether adaptation helped is not known: there was nothing to compare it with.")


def judged(control: dict[str, Any], summary: dict[str, Any]) -> Sentence:
    """What the part that a control is without brought, or why that is not known."""
    said, gain = words(control), interval(control)
    against, missing = said.against, _lacking(control, summary)
    if missing:
        against = f"{against}, without {' and '.join(missing)}"
    figures, asked = f"{in_words(gain, summary)} against {against}", f"{said.what[0].lower()}{said.what[1:]} helped"
    answers = {"helped": f"{said.what} helped", "harm": f"{said.what} did harm"}
    answers["did-not"] = f"{said.what} made no difference"
    if control["part"] == "recipe":  # it is the model that is better or worse, and no part of it
        figures, asked = in_words(gain, summary), f"this model is better than {against}"
        answers = {"helped": f"This model is better than {against}", "harm": f"This model is worse than {against}"}
        answers["did-not"] = f"This model is no better or worse than {against}"
    if gain is None:
        why_not = control.get("why_not") or "it could not be compared"  # runs of before do not say
        return Sentence("open", f"Whether {asked} is not known: {why_not}.")
    if control["verdict"] == "helped" and missing and control["part"] != "recipe":
        return Sentence("open", f"Whether {asked} is not known by itself: {figures}.")
    if control["verdict"] in answers:
        tones = {"helped": "good", "harm": "bad", "did-not": "open"}
        return Sentence(tones[control["verdict"]], f"{answers[control['verdict']]}: {figures}.")
    where = "these test images" if control["measured_on"] == "test" else "these labelled images"
    told = f"Whether {asked}, {where} cannot settle: {figures}."
    return Sentence("open", told + of_several(control, summary))


def _without_transfer(what: str, summary: dict[str, Any]) -> Sentence:
    """Of a winner without pretrained weights: whether these lost beyond doubt.

    One that learned from a source domain's images transferred something all the same, and it is not called transfer.
    """
    part = "transfer" if summary["best"]["strategy"].get("source_domain") is None else "a pretrained network"
    begin = part[0].upper() + part[1:]
    if summary.get("interrupted"):
        return Sentence("open", f"Whether {part} helps is not known yet: {what}, so far.")
    if not {"linear-probe", "fine-tune"} & set(summary.get("baselines", ["fine-tune"])):
        return Sentence(
            "open",
            f"Whether {part} helps is not known: no pretrained weights were tried to an end, and {what}. "
            + (_why_given_up(summary) or (_WEIGHTS if trainable(summary) else "The search space has none.")),
        )
    if not measured(summary):
        return Sentence("open", f"Whether {part} helps nobody has measured: by the score alone, {what}.")
    rivals = _pretrained(summary)
    if not rivals:
        return Sentence(
            "open", f"Whether {part} helps is not known: {what}, and it was held against no pretrained one."
        )
    rival = min(rivals, key=lambda control: how_good(control["verdict"], control["value"]))
    if rival["verdict"] == "helped":
        return Sentence("bad", f"{begin} did not help: {what}.")
    against = f"{in_words(interval(rival), summary)} against {named(rival)}"
    if rival["verdict"] == "harm":
        return Sentence("open", f"{begin} would have helped: {what}, {against}.")
    told = f"Whether {part} helps, these images cannot settle: {what}, {against}."
    return Sentence("open", told + of_several(rival, summary))


def _pretrained(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The usual recipes with pretrained weights that a winner without any was compared with.

    Fine-tuning is no control of such a winner in runs of before: there its gain on the test split says what it can.
    """
    found = [control for control in controls_of(summary) if control["name"] in ("linear-probe", USUAL_FINE_TUNING)]
    tuned = (summary.get("gains") or {}).get("fine-tune")
    if tuned is not None and all(control["name"] != USUAL_FINE_TUNING for control in found):
        verdicts = {"good": "helped", "bad": "harm", "open": "cannot-tell"}
        gain = interval(tuned)
        verdict = "cannot-tell" if gain is None else verdicts[tone(gain)]
        found.append({**tuned, "name": USUAL_FINE_TUNING, "part": "recipe", "verdict": verdict})
    return [control for control in found if interval(control) is not None]


def _why_given_up(summary: dict[str, Any]) -> str:
    """Of the first source models that nothing is known of why; empty where there are none, or a run of before."""
    given_up = summary.get("given_up") or []
    shown = given_up[:_NAMED]
    missing = [one["source_model"] for one in shown if one["weights_missing"]]
    told = []
    if missing:
        told.append(f"The weights of {' and '.join(missing)} could not be had: 'raytl doctor' says how to get some.")
    unlicensed = [one["source_model"] for one in shown if one.get("left_out") == "licence"]
    if unlicensed:
        were = "was left out for its licence" if len(unlicensed) == 1 else "were left out for their licences"
        told.append(f"{' and '.join(unlicensed)} {were}: not known to allow commercial use.")
    for one in shown:
        if one.get("left_out") == "adaptation":
            told.append(f"{one['source_model']} was left out: {one['reason'].rstrip('.')}.")
        elif not one["weights_missing"] and one.get("left_out") is None:
            told.append(f"{one['source_model']} was given up: {one['reason'].rstrip('.')}.")
    if len(given_up) > len(shown):
        told.append(f"So it was with {len(given_up) - len(shown)} more.")
    return " ".join(told)


def _lacking(control: dict[str, Any], summary: dict[str, Any]) -> list[str]:
    """What the winner has that the usual recipe it is held against does without, besides the part in question."""
    if control["name"] not in USUAL:
        return []
    return lacks(control.get("strategy") or {}, summary["best"]["strategy"])


def of_several(control: dict[str, Any], summary: dict[str, Any]) -> str:
    """Why an interval that lies on one side of zero settles nothing; empty of one that does not."""
    gain = interval(control)
    if gain is None or gain.low <= 0 <= gain.high:
        return ""
    compared = sum(interval(one) is not None for one in controls_of(summary))
    return (
        f" The interval is of this comparison alone; among {compared} of them, one is as far from zero by chance too "
        "often to count."
    )


def measured(summary: dict[str, Any]) -> bool:
    """Whether labelled images say how good the winner is; without, it was chosen by a score, which can be wrong."""
    best = summary["best"]
    figures = (best.get("test_metric"), best.get("validation_metric"))
    return any((figure or {}).get("value") is not None for figure in figures)


def trainable(summary: dict[str, Any]) -> bool:
    """Whether the search space had a network; of runs of before it is taken that it had."""
    return bool((summary.get("trials") or {}).get("trainable", True))
