"""What the report says first: how good the winner is, what each of its parts brings, and whether less would do."""

from __future__ import annotations

from typing import Any

from raytl.evaluation.intervals import Interval
from raytl.evaluation.metrics import Metric
from raytl.judging.verdict import ON_PLAIN_FEATURES, Part
from raytl.runs import wording
from raytl.runs.brought import adaptation, judged, measured, of_several, trainable, transfer
from raytl.runs.gains import (
    controls_of,
    cross_validated,
    decomposition,
    in_words,
    metric_of,
    named,
)
from raytl.runs.parts import PARTS, words
from raytl.runs.run import interval
from raytl.runs.unlabelled import Sentence, agreement, on_unlabelled, one_answer, unclear
from raytl.sources.heads import CONVEX, ZERO_SHOT
from raytl.sources.manifest import deciding
from raytl.sources.uris import split_size

_SAME = 1e-9
"""How far figures differ that are the same but for rounding."""
_UNMEASURED = (
    "How often it is right nobody has measured, nor whether more often than one answer for every image: no labelled "
    "image was kept from the training. A few more labelled images of each class, or some given with --test, would tell."
)
_ON_ALL = (
    "The model that is left behind was trained once more, with the test images too: figures on these are of the one "
    "before it, and nobody has measured this one."
)
_UNSCORED = (
    "No network was trained to do better, for nothing would have told whether it does: no image could be held out. "
    "A second image of each class, or unlabelled images given with --unlabelled, would."
)
_UNTOLD = (
    "No network was trained to do better, for nothing would have told whether it does: of images without labels a "
    "trained network is sure, right or wrong. A second labelled image of each class would."
)


def sentences(summary: dict[str, Any], test_images: int) -> list[Sentence]:
    """The sentences at the top of the report.

    summary: :meth:`raytl.runs.run.Run.summary`. test_images: how many the test split has, 0 for none.
    """
    best = summary["best"]
    if best is None:
        return [Sentence("bad", "No trial was completed, so there is no model. The table of trials says why.")]
    found = [*_blind_would_do(summary), *one_answer(summary), *_less_would_do(summary)]
    found.append(Sentence("plain", _figure(summary, test_images)))
    found += [*_learned_before(summary), *_unconfirmed(summary)]
    found += [*on_unlabelled(summary), *agreement(summary)]
    if summary.get("test_undefined"):
        found.append(Sentence("open", f"On the test images there is no figure: {summary['test_undefined']}."))
    elif not measured(summary):
        found.append(Sentence("open", _UNMEASURED))
    if summary.get("trained_on") == "all":
        found.append(Sentence("plain", _ON_ALL))
    if (before := summary.get("chosen_before")) is not None:
        found.append(_chosen_before(before, summary))
    if summary["interrupted"]:
        found.append(Sentence("open", f"This run has not come to its end. Its best so far: {summary['why']}."))
    elif not _scored(summary) and summary["trials"]["trained"] == 0:
        found.append(Sentence("open", _UNSCORED))
    elif not summary["trials"].get("told", True) and summary["trials"]["trained"] == 0:
        found.append(Sentence("open", _UNTOLD))
    elif summary["trials"]["trained"] == 0 and best["strategy"].get("head") in CONVEX:
        plain = str(best["strategy"].get("source_model")).startswith("plain:")
        what = "classifier on plain image features, of which no network is part" if plain else "head on frozen features"
        found.append(Sentence("open", _untrained(what, summary)))
    if (point := summary.get("operating_point")) is not None:
        found.append(_operating(point, metric_of(summary)))
    shares = decomposition(summary)
    if shares:
        found.append(Sentence("plain", shares))
    found.append(transfer(summary))
    adapted = best["strategy"].get("adaptation", "none") != "none"
    if adapted or summary["adaptation_gain"] is not None:
        found.append(adaptation(summary))
    told = (Part.SOURCE_MODEL, Part.ADAPTATION)  # each in one sentence, whatever there is to say of it
    found += [
        judged(control, summary)
        for control in controls_of(summary)
        if control["part"] in PARTS and control["part"] not in told
    ]
    return found


def cautions(summary: dict[str, Any]) -> list[Sentence]:
    """Those of the sentences without which a model's figures say too much: they go with it, wherever it is served."""
    if summary["best"] is None:
        return []
    found = [*_blind_would_do(summary), *one_answer(summary)]
    found += [one for one in _less_would_do(summary) if one.tone == "bad"]
    found += [] if summary["best"].get("test_metric") else _learned_before(summary)
    moved = [one for one in on_unlabelled(summary) if one.tone == "bad"]
    found += [*(moved or unclear(summary.get("survey") or {})), *_unconfirmed(summary)]
    if not measured(summary) and not summary.get("test_undefined"):
        found.append(Sentence("open", _UNMEASURED))
    return found


def _unconfirmed(summary: dict[str, Any]) -> list[Sentence]:
    """Where the winner has learned from one of several source domains that contradict each other."""
    names, strategy = (summary.get("survey") or {}).get("unconfirmed") or [], summary["best"]["strategy"]
    provider, _, began = str(strategy.get("source_model")).partition(":")
    believed = strategy.get("source_domain") or (began.partition("/")[0] if provider == "pretrain" else None)
    if believed not in names:
        return []
    return [
        Sentence(
            "bad",
            f"Which labels are right is not known: none of the source domains {', '.join(sorted(names))} confirms "
            f"another's, and this model has learned those of {believed}. A labelled image of each class would tell, or "
            "leave out what is not to be trusted.",
        )
    ]


def _learned_before(summary: dict[str, Any]) -> list[Sentence]:
    """Where the winner began with a model that knew images which it was then compared by."""
    told, uri = summary.get("learned_before") or {}, str(summary["best"]["strategy"].get("source_model"))
    known = (told.get("by") or {}).get(split_size(uri)[0])
    if not known:
        return []
    what = f"Its source model had learned from {known} of the {told['of']} images that models were compared by"
    text = f"{what} before this search: what was held out of them it knew by heart, so that validation flatters it"
    if summary["best"].get("test_metric"):
        return [Sentence("open", f"{text}. The test has none of them.")]
    return [
        Sentence("bad", f"{text}, and nothing here tells how good it is on others. Images given with --test would.")
    ]


def _untrained(what: str, summary: dict[str, Any]) -> str:
    """Why no network was trained, and what would tell whether that is better. what: the model is, instead."""
    if not trainable(summary):
        told = f"The search space has nothing to train: the model is a {what}"
        return f"{told}. One with networks tells whether they do better."
    if summary.get("time_budget_s", 0) is None:
        told = f"No training of a network came to its end: the model is a {what}"
        return f"{told}. More --trials tell whether training does better."
    told = f"No training of a network came to its end in the time given: the model is a {what}"
    return f"{told}. A larger --time-budget tells whether training does better."


def _scored(summary: dict[str, Any]) -> bool:
    """Whether there was anything to choose by before a test; of runs of before that do not say there was."""
    figure = summary["best"]["validation_metric"] or {}
    return bool(summary["trials"].get("scored", True)) or figure.get("value") is not None


def _chosen_before(before: dict[str, Any], summary: dict[str, Any]) -> Sentence:
    """What a search that was gone on with says of its test split: who looks twice has chosen by it."""
    metric = metric_of(summary)
    if before["same"]:
        return Sentence(
            "plain", f"Chosen before: figures on test images are from when {before['trials']} trials had been run."
        )
    test = interval(before["test_metric"])
    if test is None:  # the split was opened then, and told nothing
        figure = f"no {metric.title} on the test images"
    else:
        limits = wording.limits(test, share=metric.share)
        figure = f"{metric.title} {wording.value(test.value, share=metric.share)} on the test images"
        figure = f"{figure} (95 % interval {limits})"
    return Sentence(
        "open",
        f"Chosen before, after {before['trials']} trials: {wording.strategy(before['strategy'])}, with {figure}. "
        f"They are not opened a second time, so the best of now has no figure on them.",
    )


def _operating(point: dict[str, Any], metric: Metric) -> Sentence:
    test = point.get("test")  # runs of before have none
    known = [(name, interval((test or point).get(name))) for name in ("recall", "precision", "metric")]
    figures = [
        f"{metric.title if name == 'metric' else name} {wording.value(value.value)} ({wording.limits(value)})"
        for name, value in known
        if value is not None
    ]
    where = "the test images" if test is not None else "the images, not trained on, that the threshold was set by"
    told = f"It says '{point['label']}' from a probability of {deciding(point['value'])} on"
    told = f"{told}: {', '.join(figures) or 'no figure is to be had'} on {where}"
    if not point["reached"]:
        told = f"{told}; no threshold reaches what was asked for on the labelled images that it was set by"
    if metric.by_label:
        told = f"{told}. {metric.title[0].upper()}{metric.title[1:]} elsewhere is that of the more probable class"
    return Sentence("plain" if point["reached"] else "open", f"{told}.")


def _blind_would_do(summary: dict[str, Any]) -> list[Sentence]:
    """Whether the winner is known to be better than an answer without looking: where not, that comes first of all."""
    found = []
    for control in controls_of(summary):
        gain = interval(control)
        if control["part"] != "constant" or control["verdict"] == "helped" or gain is None:
            continue
        if _of_one_class(control, gain, summary):
            label = control["strategy"]["answer"]
            told = f"All test images are '{label}', so they do not say whether this model tells the classes apart."
            found.append(Sentence("open", told))
            continue
        against = f"{named(control)}: {in_words(gain, summary)}"
        if control["verdict"] == "harm":
            found.append(Sentence("bad", f"This model is worse than {against}."))
        else:
            told = f"This model is not known to be better than {against}.{of_several(control, summary)}"
            found.append(Sentence("open", told))
    return found


def _of_one_class(control: dict[str, Any], gain: Interval, summary: dict[str, Any]) -> bool:
    """Whether one answer for every test image is always right, so that nothing could be better than it."""
    test = interval(summary["best"]["test_metric"])
    if control.get("measured_on") != "test" or test is None:
        return False
    metric = metric_of(summary)
    highest = metric.limits[1] if metric.higher_is_better else -metric.limits[0]
    return abs(metric.oriented(test.value) - gain.value - highest) < _SAME


def _less_would_do(summary: dict[str, Any]) -> list[Sentence]:
    """The simpler models that the winner does not beat beyond doubt: that comes first.

    A head on frozen features is no simpler than another one; what needs no network is. Which is better is said of each.
    """
    winner = summary["best"]["strategy"]
    on_network = not str(winner.get("source_model")).startswith("plain:")
    found = []
    for control in controls_of(summary):
        gain, name = interval(control), control["name"]
        if gain is None or control["verdict"] == "helped":
            continue
        if control["part"] != "classical" and name != ON_PLAIN_FEATURES:
            continue
        called = named(control) if control["part"] == "classical" else words(control).against
        figures, probe = in_words(gain, summary), name == "linear-probe"
        if control["verdict"] == "harm":
            usual = probe and (not on_network or winner.get("head") == ZERO_SHOT)  # which are simpler themselves
            what = "A usual model" if usual else "A simpler model"
            found.append(Sentence("bad", f"{what} is better: {figures} against {called}."))
        elif winner.get("head") in CONVEX and (probe or not on_network):
            continue
        elif control["verdict"] == "did-not":
            found.append(Sentence("open", f"A simpler model does as well: {figures} against {called}."))
        elif _within(control, gain, summary):
            told = f"A simpler model may do as well: {called} is not beaten beyond doubt, {figures}."
            found.append(Sentence("open", told + of_several(control, summary)))
    return found


def _within(control: dict[str, Any], gain: Interval, summary: dict[str, Any]) -> bool:
    """Whether what a control is worth lies in the winner's own interval: where it does not, few images leave doubt."""
    best, metric = summary["best"], metric_of(summary)
    figure = interval(best.get("test_metric") if control["measured_on"] == "test" else best.get("validation_metric"))
    if figure is None:
        return True
    worst = min(metric.oriented(figure.low), metric.oriented(figure.high))
    return metric.oriented(figure.value) - gain.value >= worst - _SAME


def _figure(summary: dict[str, Any], test_images: int) -> str:
    best, metric = summary["best"], metric_of(summary)
    strategy = wording.strategy(best["strategy"])
    test, validation = interval(best["test_metric"]), best["validation_metric"] or {}
    if test is not None:
        images = f"{test_images} test images" if test_images else "the test images"
        what = f"The best model has {metric.title} {wording.value(test.value, share=metric.share)} on {images}"
        return f"{what} (95 % interval {wording.limits(test, share=metric.share)}): {strategy}."
    if not _scored(summary):
        return f"The model is of the kind that usually does best, and was not chosen by a score: {strategy}."
    if validation.get("value") is None:
        return f"The best model has a selection score of {wording.score(best['score'])}: {strategy}."
    what = f"The best model has {metric.title} {wording.value(validation['value'], share=metric.share)}"
    known = interval(validation)
    if known is None:
        return f"{what} on the validation images: {strategy}."
    limits = wording.limits(known, share=metric.share)
    how = f"{cross_validated(best)}, corrected for its having been chosen (95 % interval {limits})"
    return f"{what} {how}: {strategy}."
