"""Whether one labelled image a class is better learned from, or kept to choose by.

    python benchmarks/one_label.py              # twenty-five minutes on two cores; --quick: two tasks, four minutes

The models of ``validators.py`` learn from the source domains twice: with the target's one label a class joined, and
without. Beside them stand models that learn from these labels alone. The rules:

learned     what a search does: all labels are learned from, and the models are told apart without any
kept        the models without labels are told apart by accuracy on the labels, then by the score
both        the same by accuracy on the labels mixed with the score, as searches mix them on a small fold
then        the choices of these two, once the chosen model has learned from the labels as well

regret      points of accuracy on the truth that a rule gives away against the best model of the pool, mean over 60
            draws of some of the models and of the labels that are kept
labels      points that learning from the labels brings a model, mean over the pool

The last line is one JSON document.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import polite  # noqa: F401
import typer
from common import finish, say, scratch_home
from measured import predicted
from packages import lite0_uri
from tasks import Case, case
from validators import DOMAINS, DRAWS, MOST_SOURCE, MOST_TRUTH, MOST_UNLABELLED, SETTINGS, SIDE, _some, strategies

from raytl.evaluation.selection import labelled_share
from raytl.search.plan.contest import Contest
from raytl.search.propose.survey import survey
from raytl.search.records import TrialRecord, TrialStatus
from raytl.sources import info
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialError, TrialJob
from raytl.training.workspace import Workspace

TASKS = (
    "digits", "letters-new-faces", "icons-outline", "emoji", "mnist", "clothes-inverted", "solar-to-poly",
    "digits-mixture", "emoji-mixture", "letters-mixture",
)  # fmt: skip
QUICK = ("digits", "letters-new-faces")
DRAWN, ALONE = 8, 4
"""Models of a draw: of those with a source domain, and of those on the labels alone."""


@dataclass(frozen=True)
class Model:
    """A strategy that was trained. joined, without: what it says of itself, by the labels it learned; accuracies.

    right: (n,), of the truth's images those that the model without target labels got right; None where there is none.
    """

    strategy: Strategy
    joined: dict[str, float]
    worth: float
    without: dict[str, float] | None = None
    worth_without: float = 0.0
    right: np.ndarray | None = None


def models_of(made: Case, home: Path, seed: int = 0) -> tuple[list[Model], np.ndarray]:
    """The models of a task, and the truth's labels."""
    lite = lite0_uri()
    data = made.task(seed=seed).data
    learned = Workspace(data, SETTINGS, home)
    free = Workspace(replace(made, target=None).task(seed=seed).data, SETTINGS, home)
    seen, seen_free = survey(learned, [lite]), survey(free, [lite])
    domains, found = seen.domains[:DOMAINS], []
    for strategy in [*strategies(domains, lite, data.channels), *_alone(domains, lite, data.channels)]:
        try:
            joined, said = _trained(learned, strategy, seen.frequencies, made)
            model = Model(strategy, joined, float(said.mean()))
            if strategy.source_domain is not None:
                without, right = _trained(free, strategy, seen_free.frequencies, made)
                model = replace(model, without=without, worth_without=float(right.mean()), right=right)
        except TrialError:
            continue
        found.append(model)
    return found, made.truth.labels


def _alone(domains: tuple[str, ...], lite: str, channels: int) -> list[Strategy]:
    own = [f"pretrain:{domain}/scratch:cnn-small" for domain in domains]
    found = [Strategy(lite, head_lr=0.03, backbone_ratio=0.3, augmentation="shift")]
    for uri in (lite, *own, "plain:pixels"):
        known = info("scratch:cnn-small" if uri in own else uri, channels=channels, image_size=SIDE)
        heads = ("logistic",) if len(known.stages) == 1 else ("stages", "logistic")
        found += [Strategy(uri, cut=len(known.stages), head=head) for head in heads]
    return found


def _trained(
    workspace: Workspace, strategy: Strategy, frequencies: tuple[float, ...], made: Case
) -> tuple[dict[str, float], np.ndarray]:
    """Its metrics, and (n,) of which images of the truth it is right."""
    trained = run_trial(workspace, TrialJob(strategy, None, final=True, frequencies=frequencies), lambda _: None)
    return trained.metrics, predicted(trained.model, workspace, made.truth) == made.truth.labels


def regrets(models: list[Model], labels: np.ndarray) -> dict[str, float]:
    """Of each rule, mean over draws."""
    rng, found = np.random.default_rng(0), []
    with_domain = [model for model in models if model.without is not None]
    alone = [model for model in models if model.without is None]
    for _ in range(DRAWS):
        some = [with_domain[i] for i in rng.permutation(len(with_domain))[:DRAWN]]
        pool = some + [alone[i] for i in rng.permutation(len(alone))[:ALONE]]
        kept = np.array([rng.choice(np.flatnonzero(labels == label)) for label in np.unique(labels)])
        found.append(_regrets(pool, some, kept))
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def _regrets(pool: list[Model], some: list[Model], kept: np.ndarray) -> dict[str, float]:
    best = max(model.worth for model in pool)
    records = [
        TrialRecord(
            number, "search", model.strategy.to_dict(), model.strategy.key, status=TrialStatus.COMPLETED,
            score=model.joined["score"], metrics=model.joined,
        )
        for number, model in enumerate(pool)
    ]  # fmt: skip
    key = Contest(records, None).by_score([model.strategy.key for model in pool]).key
    learned = next(model for model in pool if model.strategy.key == key)
    right = np.array([model.right[kept].mean() for model in some if model.right is not None])
    score = np.array([model.without["score"] for model in some if model.without is not None])
    by_labels = some[int(np.lexsort((score, right))[-1])]
    share = labelled_share(len(kept))
    by_both = some[int(np.argmax(share * right + (1 - share) * score))]
    return {
        "learned": best - learned.worth,
        "kept": best - by_labels.worth_without,
        "both": best - by_both.worth_without,
        "kept, then": best - by_labels.worth,
        "both, then": best - by_both.worth,
        "any": best - float(np.mean([model.worth for model in pool])),
    }


def task(name: str) -> Case:
    """With one label a class, and no more of other images than are needed here."""
    made = case(name, 1)
    unlabelled = made.unlabelled
    assert unlabelled is not None
    few = np.random.default_rng(1).permutation(len(unlabelled))[:MOST_UNLABELLED]
    domains = {name: _some(images, MOST_SOURCE) for name, images in made.source_domains.items()}
    return replace(made, source_domains=domains, unlabelled=unlabelled.subset(few), truth=_some(made.truth, MOST_TRUTH))


def main(
    quick: Annotated[bool, typer.Option("--quick", help="two tasks")] = False,
    only: Annotated[str, typer.Option(metavar="PATTERN", help="tasks whose name matches this regular expression")] = "",
) -> None:
    """Train, choose."""
    found: dict[str, dict[str, float]] = {}
    with scratch_home() as home:
        for name in [name for name in (QUICK if quick else TASKS) if re.search(only, name)]:
            began = time.perf_counter()
            models, labels = models_of(task(name), home)
            brought = [model.worth - model.worth_without for model in models if model.without is not None]
            found[name] = regrets(models, labels) | {"labels": float(np.mean(brought))}
            say(f"{name}: {len(models)} models in {time.perf_counter() - began:.0f} s")
    rules = list(next(iter(found.values())))
    mean = {rule: float(np.mean([of[rule] for of in found.values()])) for rule in rules}
    rows = [[name, *(f"{100 * of[rule]:.1f}" for rule in rules)] for name, of in [*found.items(), ("mean", mean)]]
    title = "Regret with one label a class (points of accuracy)"
    finish("one_label", title, ["task", *rules], rows, {"tasks": found, "mean": mean})


if __name__ == "__main__":
    typer.run(main)
