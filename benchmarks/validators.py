"""Whether shifts made of the source domain tell which validators to trust where the target has no labels.

    python benchmarks/validators.py              # half an hour on two cores; --quick: four tasks, five minutes

For each task some 20 models (frozen features and small networks, with and without adaptation) learn from the source
domains alone, one trial each. Then the same models are asked about held-out source images, as they are, changed
(inverted, noise, contrast, blur, coarser, turned, shaded, two at once), with other class frequencies, and with a third
of the classes left out: there the labels are known, so it is seen how well each validator ranks the models. The rules:

today           what a search chooses: the highest selection score, and what usually is better of those near it
score           the highest selection score alone
source          accuracy on held-out source images, unchanged
evenly          mean rank by all validators
one             the validator that ranks best on the made shifts
weight          mean rank, each validator weighted by its mean rank correlation there, none below 0
ridge           ranks on the made shifts regressed on the validators' ranks
shifts          no validator: mean rank by accuracy on the made shifts
both            rank by the score and the former, evenly
agree           agreement with what the other models together say of the unlabelled images
labels          no rule without labels: accuracy on one labelled target image a class, then the score

regret          points of accuracy on the truth that a rule gives away against the best model of the pool, mean over
                60 draws of nine of the models: searches try different ones
correlation     of each validator with the truth, and with accuracy on the made shifts, over the whole pool

The tasks that no rule was looked at on while this was written are marked +. The last line is one JSON document.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polite  # noqa: F401
import torch
import typer
from common import finish, say, scratch_home, shapes
from drawn import changed as redrawn
from drawn import renamed
from packages import lite0_uri
from scipy.stats import rankdata
from tasks import Case, Draw, _cut, _digit_domains, case, handwritten

from raytl.evaluation import selection, validators
from raytl.evaluation.changes import changed
from raytl.finetuning import augmentation
from raytl.search.plan.contest import Contest
from raytl.search.propose.survey import survey
from raytl.search.records import TrialRecord, TrialStatus
from raytl.sources import SourceModel, info
from raytl.tasks import LabelledImages
from raytl.training.loop import run_trial
from raytl.training.settings import PretrainSettings
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialError, TrialJob
from raytl.training.workspace import Budget, Workspace, WorkspaceSettings

SEEN = (
    "digits", "letters", "mnist", "clothes-inverted", "emoji", "emoji-mixture", "made-easy", "made-junk", "made-skewed",
)  # fmt: skip
UNSEEN = (
    "digits-inverted", "digits-mixture", "digits-is-it-8", "digits-skewed", "letters-new-faces", "letters-mixture",
    "icons-coloured", "icons-outline", "solar-to-poly",
)  # fmt: skip
QUICK = ("digits", "clothes-inverted", "made-easy", "letters-new-faces")
VALIDATORS = (
    "bnm", "class-clustering", "consistency", "entropy", "information-maximisation", "snd", "source-accuracy",
)  # fmt: skip
"""All that need no target label; ``frequency-match`` has nothing to go by where the frequencies are not known."""

KINDS = {
    "invert": 1.0, "noise": 0.6, "contrast": 0.8, "blur": 0.5, "coarsen": 0.6, "turn": 0.6, "shade": 0.7, "two": 0.9,
}  # fmt: skip
SIDE, DOMAINS = 48, 2
SETTINGS = WorkspaceSettings(
    folds=(0, 0), image_size=SIDE, device="cpu", budget=Budget(epochs=6, steps_per_epoch=12, batch_size=32),
    pretrain=PretrainSettings(steps=150, batch_size=48),
)  # fmt: skip
MOST_SOURCE, MOST_UNLABELLED, MOST_TRUTH = 800, 320, 400
DRAWN, DRAWS = 9, 60
RIDGE = 3.0
TELLING = 0.02
"""Accuracies on a made shift that lie no further apart than this rank nothing."""
BATCH = 128

Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Pool:
    """What is known of m models. values: (m,) by validator, ``score`` and ``consensus``; truth: accuracy (m,).

    shifts: by name, the same values and the accuracy (m,) on a made shift. labelled: (draws, m), accuracy on one image
    a class of the truth, other ones in each draw.
    """

    records: tuple[TrialRecord, ...]
    values: Values
    truth: np.ndarray
    shifts: dict[str, tuple[Values, np.ndarray]]
    labelled: np.ndarray

    def take(self, index: np.ndarray) -> Pool:
        """These models alone."""
        shifts = {
            name: ({key: value[index] for key, value in values.items()}, right[index])
            for name, (values, right) in self.shifts.items()
        }
        values = {key: value[index] for key, value in self.values.items()}
        records = tuple(self.records[i] for i in index)
        return Pool(records, values, self.truth[index], shifts, self.labelled[:, index])

    @property
    def telling(self) -> list[tuple[Values, np.ndarray]]:
        """The shifts on which the models are not all alike; the unchanged images are none."""
        return [shift for name, shift in self.shifts.items() if name != "clean" and np.ptp(shift[1]) > TELLING]


# --- the rules -------------------------------------------------------------------------------------------------------


def ranks(values: np.ndarray) -> np.ndarray:
    """(m,) from -1/2, the lowest, to 1/2; equal ones share a rank."""
    return (rankdata(values) - (len(values) + 1) / 2) / max(1, len(values) - 1)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, 0 where one of them ranks nothing."""
    x, y = ranks(a), ranks(b)
    size = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum()) / size if size > 1e-12 else 0.0


def trust(pool: Pool) -> dict[str, float]:
    """Mean rank correlation of each validator with accuracy on the made shifts, 0 where there is none to tell."""
    shifts = pool.telling
    return {
        name: float(np.mean([correlation(values[name], right) for values, right in shifts])) if shifts else 0.0
        for name in VALIDATORS
    }


def weighted(pool: Pool, weights: Mapping[str, float]) -> np.ndarray:
    """Sum of the validators' ranks by weight, none below 0."""
    return np.sum([max(0.0, weights[name]) * ranks(pool.values[name]) for name in VALIDATORS], axis=0)


def regression(pool: Pool) -> np.ndarray:
    """Ranks by accuracy as ridge regression expects them that was fitted on the made shifts."""
    shifts = pool.telling
    if not shifts:
        return np.zeros(len(pool.truth))
    x = np.concatenate([np.stack([ranks(values[name]) for name in VALIDATORS], 1) for values, _ in shifts])
    y = np.concatenate([ranks(right) for _, right in shifts])
    slopes = np.linalg.solve(x.T @ x + RIDGE * np.eye(len(VALIDATORS)), x.T @ y)
    return np.stack([ranks(pool.values[name]) for name in VALIDATORS], 1) @ slopes


def on_shifts(pool: Pool) -> np.ndarray:
    """Mean rank by accuracy on the made shifts."""
    found = [ranks(right) for _, right in pool.telling]
    return np.mean(found, axis=0) if found else np.zeros(len(pool.truth))


def _one(pool: Pool) -> np.ndarray:
    weights = trust(pool)
    return pool.values[max(VALIDATORS, key=lambda name: weights[name])]


RULES: dict[str, Callable[[Pool], np.ndarray]] = {
    "score": lambda pool: pool.values["score"],
    "source": lambda pool: pool.values["source-accuracy"],
    "evenly": lambda pool: weighted(pool, dict.fromkeys(VALIDATORS, 1.0)),
    "one": _one,
    "weight": lambda pool: weighted(pool, trust(pool)),
    "ridge": regression,
    "shifts": on_shifts,
    "both": lambda pool: ranks(pool.values["score"]) + on_shifts(pool),
    "agree": lambda pool: pool.values["consensus"],
}

SHOWN = ("today", *(name for name in RULES if name != "one"), "labels")
"""In the table; the others are in the JSON document."""


def regrets(pool: Pool, draw: int = 0) -> dict[str, float]:
    """Of each rule; where a rule ties several models, the mean over them. ``random``: of any model.

    draw: of the labelled images.
    """
    best = float(pool.truth.max())
    keys = [record.strategy_key for record in pool.records]
    chosen = Contest(list(pool.records), None).by_score(keys).key
    found = {"today": best - float(pool.truth[keys.index(chosen)])}
    for name, rule in RULES.items():
        values = np.round(rule(pool), 9)
        found[name] = best - float(pool.truth[values == values.max()].mean())
    by_labels = np.lexsort((pool.values["score"], pool.labelled[draw]))[-1]
    found["labels"] = best - float(pool.truth[by_labels])
    return found | {"random": best - float(pool.truth.mean())}


def mean_regrets(pool: Pool) -> dict[str, float]:
    """Mean of :func:`regrets` over draws of some of the models."""
    rng = np.random.default_rng(1)
    drawn = [
        regrets(pool.take(np.sort(rng.permutation(len(pool.truth))[: min(DRAWN, len(pool.truth))])), draw)
        for draw in range(DRAWS)
    ]
    return {name: float(np.mean([one[name] for one in drawn])) for name in drawn[0]}


# --- the models, and what is seen of them ----------------------------------------------------------------------------


def strategies(domains: Sequence[str], lite: str, channels: int) -> list[Strategy]:
    """What learns from the domains' labels: heads on frozen features of both, small networks on the first.

    Heads on all stages with what is believed of the unlabelled images as well, as searches have them.
    """
    found: list[Strategy] = []
    for domain in domains:
        own = f"pretrain:{domain}/scratch:cnn-small"
        kinds = [(lite, "stages"), (lite, "logistic"), (own, "stages"), ("plain:pixels", "logistic")]
        for uri, head in [*kinds, ("plain:gradients", "logistic")]:
            stages = len(info("scratch:cnn-small" if uri == own else uri, channels=channels, image_size=SIDE).stages)
            base = Strategy(uri, domain, cut=stages, head=head)
            found += [base, replace(base, adaptation="moments")]
            if head == "stages":
                found.append(replace(base, adaptation="propagation"))
        found.append(Strategy(own, domain, cut=len(info("scratch:cnn-small").stages), head="logistic"))
    tuned = Strategy(f"pretrain:{domains[0]}/scratch:cnn-small", domains[0], head_lr=0.02, backbone_ratio=0.3)
    found += [replace(tuned, augmentation="shift"), replace(tuned, adaptation="mcc-pseudo-label", augmentation="shift")]
    adaptations = ("coral", "mcc", "dann", "information-maximisation", "adabn")
    found += [replace(tuned, adaptation=name) for name in adaptations]
    return [*found, Strategy("scratch:cnn-small", domains[0], head_lr=0.05, backbone_ratio=1.0)]


class Asked:
    """Models asked about images; what a frozen network makes of them is computed once for all heads on it."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], torch.Tensor] = {}

    @torch.inference_mode()
    def __call__(
        self, model: SourceModel, strategy: Strategy, name: str, pixels: torch.Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (n, k) and features (n, d) of uint8 images (n, c, s, s). name: of the images."""
        model.eval()
        key = (strategy.source_model, model.reads_stages, name)
        found = self._kept.get(key) if strategy.convex else None
        if found is None:
            chunks = pixels.split(BATCH)
            found = torch.cat([model.head_inputs(model.preprocessing.normalise(chunk)).float() for chunk in chunks])
            if strategy.convex:
                self._kept[key] = found
        return model.head(found).float().softmax(1).numpy(), found.flatten(1).numpy()


@dataclass
class Held:
    """Held-out source images: ``still`` to know accuracy on the domain by, ``moved`` to make shifts of."""

    images: LabelledImages
    still: np.ndarray
    moved: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """Of the images that shifts are made of."""
        return self.images.labels[self.moved]

    def parts(self) -> dict[str, np.ndarray]:
        """Some of the images: with skewed class frequencies, and of two classes in three."""
        k, labels, rng = len(self.images.classes), self.labels, np.random.default_rng(11)
        wanted = np.geomspace(8, 1, k)[rng.permutation(k)]
        skewed = np.flatnonzero(rng.random(len(labels)) < (wanted / wanted.max())[labels])
        some = rng.permutation(k)[: max(2 if k > 2 else 1, 2 * k // 3)]
        return {"skewed": skewed, "some": np.flatnonzero(np.isin(labels, some))}


def _held(workspace: Workspace) -> Held:
    images = workspace.held_out_source_images()
    assert images is not None
    order = np.random.default_rng(5).permutation(len(images))
    border = len(images) * 2 // 5
    return Held(images, np.sort(order[:border]), np.sort(order[border:]))


def _shifted(pixels: np.ndarray, held: Held) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By name, the images of each shift and slightly moved versions of them; ``clean`` are all held-out images."""
    versions = {"clean": pixels}
    for kind, strength in KINDS.items():
        own, rng = pixels[held.moved], np.random.default_rng(7)
        versions[kind] = 255 - own if kind == "invert" else changed(own, kind, strength, rng)
    policy, made = augmentation.get("shift"), {}
    for name, version in versions.items():
        images = torch.from_numpy(np.ascontiguousarray(version))
        again = policy(images.float() / 255, torch.Generator().manual_seed(3))
        made[name] = images, (255 * again).round().clamp(0, 255).to(torch.uint8)
    return made


def pool_of(made: Case, home: Path) -> Pool:
    """Train the models of a task's pool and ask them."""
    data = made.task().data
    workspace, lite, asked = Workspace(data, SETTINGS, home), lite0_uri(), Asked()
    seen = survey(workspace, [lite])
    held, truth = _held(workspace), made.truth.with_classes(data.classes)
    shifted: dict[str, dict[str, tuple[torch.Tensor, torch.Tensor]]] = {}
    records, right, answers = [], [], []
    shifts: dict[str, list[tuple[dict[str, float], float, np.ndarray]]] = {}
    for number, strategy in enumerate(strategies(seen.domains[:DOMAINS], lite, data.channels)):
        try:
            result = run_trial(workspace, TrialJob(strategy, None, True, seen.frequencies), lambda _: None)
        except TrialError:
            continue
        model = result.model
        form = f"{model.preprocessing.size}/{model.preprocessing.channels}"
        if form not in shifted:
            shifted[form] = _shifted(workspace.pixels(held.images, model.preprocessing).numpy(), held)
        said, _ = asked(model, strategy, "truth", workspace.pixels(truth, model.preprocessing))
        assert data.unlabelled is not None
        pooled, _ = asked(model, strategy, "unlabelled", workspace.pixels(data.unlabelled, model.preprocessing))
        answers.append(pooled)
        right.append(said.argmax(1) == truth.labels)
        score = result.metrics["score"]
        records.append(
            TrialRecord(
                number, "search", strategy.to_dict(), strategy.key, status=TrialStatus.COMPLETED, score=score,
                metrics=result.metrics,
            )
        )  # fmt: skip
        for name, found in _on_each(model, strategy, asked, shifted[form], held):
            shifts.setdefault(name, []).append(found)
    values = {name: np.array([record.metrics[name] for record in records]) for name in (*VALIDATORS, "score")}
    return Pool(
        tuple(records),
        values | {"consensus": consensus(np.stack(answers))},
        np.mean(right, axis=1),
        {name: _together(found) for name, found in shifts.items()},
        one_a_class(np.stack(right), truth.labels),
    )


def _on_each(
    model: SourceModel,
    strategy: Strategy,
    asked: Asked,
    shifted: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    held: Held,
) -> list[tuple[str, tuple[dict[str, float], float, np.ndarray]]]:
    """By the name of a shift: the validators' scores, accuracy and probabilities of a model."""
    clean, _ = asked(model, strategy, "clean", shifted["clean"][0])
    found, everyone = [], np.arange(len(held.moved))
    for name, (images, again) in shifted.items():
        said, features = asked(model, strategy, name, images)
        moved, _ = asked(model, strategy, f"{name} moved", again)
        if name == "clean":
            said, features, moved = said[held.moved], features[held.moved], moved[held.moved]
        parts = held.parts() if name in ("clean", "noise", "two") else {}
        for part, index in {"": everyone, **parts}.items():
            outputs = validators.Outputs(
                source_probabilities=clean[held.still],
                source_labels=held.images.labels[held.still],
                unlabelled_probabilities=said[index],
                unlabelled_features=features[index],
                unlabelled_moved_probabilities=moved[index],
            )
            scores = validators.score_all(outputs)
            scores |= selection.scores(scores, None, 0, said[index])
            share = float((said[index].argmax(1) == held.labels[index]).mean())
            found.append((f"{name} {part}".strip(), (scores, share, said[index])))
    return found


def _together(found: Sequence[tuple[dict[str, float], float, np.ndarray]]) -> tuple[Values, np.ndarray]:
    values = {name: np.array([scores[name] for scores, _, _ in found]) for name in (*VALIDATORS, "score")}
    values["consensus"] = consensus(np.stack([said for _, _, said in found]))
    return values, np.array([share for _, share, _ in found])


def one_a_class(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Shares of right answers (draws, m) on one image of each class, of right (m, n) and labels (n,)."""
    rng = np.random.default_rng(2)
    drawn = [[rng.choice(np.flatnonzero(labels == label)) for label in np.unique(labels)] for _ in range(DRAWS)]
    return np.stack([right[:, index].mean(axis=1) for index in drawn])


def consensus(said: np.ndarray) -> np.ndarray:
    """Of m models' probabilities (m, n, k), how often each says what the mean of the others says, (m,)."""
    others = (said.sum(0) - said).argmax(2)
    return np.asarray((said.argmax(2) == others).mean(1))


# --- tasks -----------------------------------------------------------------------------------------------------------


def _hard(pixels: np.ndarray) -> np.ndarray:
    """Faint, under noise."""
    rng = np.random.default_rng(int(pixels.sum()))
    faint = pixels.mean() + 0.35 * (pixels - pixels.mean())
    return np.clip(faint + rng.normal(0, 40, pixels.shape), 0, 255).astype(np.uint8)


def _even_or_odd() -> Case:
    """Two classes, 93 in 100 of the first where the model will be used, evenly in the domain."""
    sides, names = [list("02468"), list("13579")], ("even", "odd")
    printed = renamed(_digit_domains("printed-digits")["printed-digits"], "printed", sides, names)
    shares = np.array([0.93, 0.07])
    draw = Draw({"printed": printed}, pool_frequencies=shares, truth_frequencies=shares)
    return _cut("made-skewed", renamed(handwritten(), "handwritten", sides, names), draw, 0, 0)


MADE: dict[str, Callable[[], Case]] = {
    "made-easy": lambda: _cut(
        "made-easy", redrawn(shapes(1000, 32, seed=2), "hard", _hard), Draw({"shapes": shapes(800, 32, seed=1)}), 0, 0
    ),
    "made-junk": lambda: _cut("made-junk", handwritten(), Draw(_digit_domains("permuted")), 0, 0),
    "made-skewed": _even_or_odd,
}
"""Made so that something goes wrong: a domain that all models know, a domain of other labels, a shift of labels."""


def task(name: str) -> Case:
    """A case without labels, with no more images than are needed here."""
    made = MADE[name]() if name in MADE else case(name, 0)
    assert made.unlabelled is not None
    few = np.random.default_rng(1).permutation(len(made.unlabelled))[:MOST_UNLABELLED]
    domains = {name: _some(images, MOST_SOURCE) for name, images in made.source_domains.items()}
    unlabelled = made.unlabelled.subset(few) if len(made.unlabelled) > MOST_UNLABELLED else made.unlabelled
    return replace(made, source_domains=domains, unlabelled=unlabelled, truth=_some(made.truth, MOST_TRUTH))


def _some(images: LabelledImages, most: int) -> LabelledImages:
    """Without groups: of three faces none can be held out."""
    images = LabelledImages(images.name, images.items, None, images.classes, images.labels)
    if len(images) <= most:
        return images
    return images.subset(np.sort(np.random.default_rng(0).permutation(len(images))[:most]))


def figures(pools: Mapping[str, Pool]) -> tuple[list[list[str]], dict[str, Any]]:
    """Rows of the table, a task each and the means, and what the JSON line holds."""
    by_task = {name: mean_regrets(pool) for name, pool in pools.items()}
    rules = ["today", *RULES, "labels", "random"]
    rows = [
        [name + "+" * (name in UNSEEN), *(f"{100 * found[rule]:.1f}" for rule in SHOWN)]
        for name, found in by_task.items()
    ]
    told: dict[str, Any] = {"tasks": {}}
    for title, names in {"seen": SEEN, "unseen": UNSEEN, "all": SEEN + UNSEEN}.items():
        known = [by_task[name] for name in names if name in by_task]
        if known:
            told[title] = {
                rule: {
                    "mean": float(np.mean([one[rule] for one in known])), "worst": max(one[rule] for one in known)
                }
                for rule in rules
            }  # fmt: skip
            rows.append([f"mean, {title}", *(f"{100 * told[title][rule]['mean']:.1f}" for rule in SHOWN)])
    for name, pool in pools.items():
        made = trust(pool)
        told["tasks"][name] = {
            "models": len(pool.truth), "best": float(pool.truth.max()), "shifts": len(pool.telling),
            "regret": by_task[name],
            "correlation": {
                one: {"made": made[one], "true": correlation(pool.values[one], pool.truth)} for one in VALIDATORS
            },
            "score": correlation(pool.values["score"], pool.truth),
        }  # fmt: skip
    return rows, told


def main(
    quick: Annotated[bool, typer.Option("--quick", help="four tasks")] = False,
    only: Annotated[str, typer.Option(metavar="PATTERN", help="tasks whose name matches this regular expression")] = "",
) -> None:
    """Train, ask, rank."""
    names = [name for name in (QUICK if quick else SEEN + UNSEEN) if re.search(only, name)]
    pools: dict[str, Pool] = {}
    with scratch_home() as home:
        for name in names:
            began = time.perf_counter()
            pools[name] = pool_of(task(name), home)
            say(f"{name}: {len(pools[name].truth)} models in {time.perf_counter() - began:.0f} s")
    rows, told = figures(pools)
    title = "Regret without target labels (points of accuracy)"
    finish("validators", title, ["task", *SHOWN], rows, told)


if __name__ == "__main__":
    typer.run(main)
