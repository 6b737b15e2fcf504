"""Real tasks to measure judgement on, each with many labelled images to hold a search's word against.

    python benchmarks/tasks.py                                  # what there is
    python benchmarks/tasks.py --dump digits-mixture DIR        # one of them as class folders, for the command line

Whoever works on the search may look at the tasks marked ``development``. The others are for measuring only: a rule that
was tuned on them would no longer be measured by them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from drawn import (
    OTHER_SERIFS,
    SANS,
    SERIFS,
    changed,
    display_digits,
    halved,
    hash_of,
    icons,
    inverted,
    letters,
    permuted,
    renamed,
)
from packages import GARMENTS, clothes, emoji, grey_digits, solar_cells

import raytl
from raytl.tasks import Images, LabelledImages
from raytl.tasks.demo import printed_digits, printed_letters, textures
from raytl.tasks.items import PixelsItem

LABELS = (0, 1, 5, 20)

Domains = dict[str, LabelledImages]


@dataclass(frozen=True)
class Case:
    """A task as a user would have it, and the truth.

    target: None without labels. truth: what no search sees. facts: what is known of the task by its making:
    ``frequencies`` (of the classes in the truth), ``related`` and ``junk`` (source domains of use and of none).
    """

    name: str
    target: LabelledImages | None
    unlabelled: Images | None
    source_domains: Domains
    truth: LabelledImages
    facts: dict[str, Any]

    def task(self, *, test: bool = False, seed: int = 0) -> raytl.Task:
        """For a search. test: with the truth as its test set. Raises UserError where that is no task."""
        return raytl.Task(
            target=self.target,
            source_domain=list(self.source_domains.items()),
            unlabelled=self.unlabelled,
            test=self.truth if test else None,
            name=self.name,
            seed=seed,
        )


@dataclass(frozen=True)
class Spec:
    """How a case is made. make: from labels a class and a seed. tags: ``skewed``, ``junk`` (no domain is of use),
    ``package`` (its images come out of one that is to be downloaded).

    without: label counts that make no task.
    """

    name: str
    make: Callable[[int, int], Case]
    development: bool = False
    tags: frozenset[str] = frozenset()
    without: frozenset[int] = frozenset()

    @property
    def labels(self) -> list[int]:
        """Labels a class that it can be had with."""
        return [count for count in LABELS if count not in self.without]


SPECS: dict[str, Spec] = {}


def case(name: str, labels_per_class: int, seed: int = 0) -> Case:
    """A case by the name of its spec; the same for the same arguments."""
    return SPECS[name].make(labels_per_class, seed)


def _add(
    name: str, make: Callable[[int, int], Case], *tags: str, development: bool = False, without: tuple[int, ...] = ()
) -> None:
    SPECS[name] = Spec(name, make, development, frozenset(tags), frozenset(without))


def _add_packaged(name: str, make: Callable[[int, int], Case], *tags: str, **settings: Any) -> None:
    _add(name, make, "package", *tags, **settings)


# --- drawing the parts -----------------------------------------------------------------------------------------------


JUNK = ("textures", "printed-letters", "permuted", "display-digits")
"""Source domains of no use."""


@dataclass(frozen=True)
class Draw:
    """How the parts of a case are taken from a pool.

    label_frequencies, pool_frequencies, truth_frequencies: by class, None as they come; labels are otherwise equally
    many of each class. unlabelled: whether there are such images; foreign: images that are mixed into them, a third of
    all. domains: by name, in this order. least: labels of a class, where there are as many on average.
    """

    domains: Domains = field(default_factory=dict)
    unlabelled: bool = True
    label_frequencies: np.ndarray | None = None
    pool_frequencies: np.ndarray | None = None
    truth_frequencies: np.ndarray | None = None
    foreign: Images | None = None
    least: int = 2


def _cut(
    name: str, images: LabelledImages, draw: Draw, labels: int, seed: int, truth: LabelledImages | None = None
) -> Case:
    """The images shuffled and dealt out; none is in two parts. truth: other images than a part of these."""
    rng = np.random.default_rng(hash_of("parts", images.name, seed))
    order = rng.permutation(len(images))
    border = 0 if truth is not None else len(images) // 2
    held, rest = order[:border], order[border:]
    counts = _label_counts(labels, len(images.classes), draw)
    by_class = [rest[images.labels[rest] == label] for label in range(len(images.classes))]
    drawn = np.concatenate([of_class[:count] for of_class, count in zip(by_class, counts, strict=True)])
    others = _thinned(np.setdiff1d(rest, drawn), images.labels, draw.pool_frequencies, rng)
    held = _thinned(held, images.labels, draw.truth_frequencies, rng)
    pool = (
        _mixed(images.subset(rng.permutation(others)).without_labels(), draw.foreign, rng) if draw.unlabelled else None
    )
    final = truth if truth is not None else images.subset(np.sort(held))
    return Case(
        name,
        images.subset(np.sort(drawn)) if labels else None,
        pool,
        draw.domains,
        final,
        {
            "frequencies": (np.bincount(final.labels, minlength=len(final.classes)) / len(final)).tolist(),
            "related": [domain for domain in draw.domains if domain not in JUNK],
            "junk": [domain for domain in draw.domains if domain in JUNK],
        },
    )


def _label_counts(labels: int, classes: int, draw: Draw) -> np.ndarray:
    """Labelled images by class, ``labels`` on average."""
    if not labels or draw.label_frequencies is None:
        return np.full(classes, labels)
    shares = draw.label_frequencies / draw.label_frequencies.sum()
    return np.maximum(np.rint(labels * classes * shares).astype(int), min(draw.least, labels))


def _thinned(
    indices: np.ndarray, labels: np.ndarray, frequencies: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """As many of the indices as can be had with these class frequencies."""
    if frequencies is None:
        return indices
    by_class = [rng.permutation(indices[labels[indices] == label]) for label in range(len(frequencies))]
    total = min(len(found) / share for found, share in zip(by_class, frequencies, strict=True) if share > 0)
    kept = [found[: int(total * share)] for found, share in zip(by_class, frequencies, strict=True)]
    return np.concatenate(kept)


def _mixed(pool: Images, foreign: Images | None, rng: np.random.Generator) -> Images:
    if foreign is None:
        return pool
    taken = rng.choice(len(foreign), min(len(foreign), len(pool) // 2), replace=False)
    items = [*pool.items, *(foreign.items[i] for i in taken)]
    return Images(pool.name, [items[i] for i in rng.permutation(len(items))])


# --- handwritten digits ----------------------------------------------------------------------------------------------


@cache
def handwritten() -> LabelledImages:
    """1,797 digits, 8x8, white on black."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    items = [PixelsItem(f"digit {i}", image) for i, image in enumerate(pixels)]
    return LabelledImages("handwritten", items, None, tuple("0123456789"), digits.target.astype(np.int64))


def _digit_domains(*names: str) -> Domains:
    makers: Mapping[str, Callable[[], LabelledImages]] = {
        "printed-digits": printed_digits,
        "printed-letters": printed_letters,
        "textures": textures,
        "permuted": lambda: permuted(printed_digits(), "permuted"),
    }
    return {name: makers[name]() for name in names}


_USUAL = ("printed-digits", "printed-letters", "textures")
_MIXTURE = ("textures", "permuted", "printed-letters", "printed-digits")


def _digits(name: str, *domains: str, change: Callable[[np.ndarray], np.ndarray] | None = None, **settings: Any) -> Any:
    def make(labels: int, seed: int) -> Case:
        images = handwritten() if change is None else changed(handwritten(), "handwritten", change)
        return _cut(name, images, Draw(_digit_domains(*domains), **settings), labels, seed)

    return make


def _foreign() -> Images:
    return Images("foreign", [*textures().items, *printed_letters().items])


def _foreign_digits(labels: int, seed: int) -> Case:
    return _digits("digits-foreign", *_USUAL, foreign=_foreign())(labels, seed)


def _is_eight(labels: int, seed: int) -> Case:
    """Labels at the natural frequency: ``labels`` eights and nine times as many others."""
    sides = [[digit for digit in "0123456789" if digit != "8"], ["8"]]
    images = renamed(handwritten(), "handwritten", sides, ("another", "eight"))
    domains = _digit_domains(*_USUAL)
    domains["printed-digits"] = renamed(printed_digits(), "printed-digits", sides, ("another", "eight"))
    return _cut(
        "digits-is-it-8", images, Draw(domains, label_frequencies=np.array([0.9, 0.1]), least=1), 5 * labels, seed
    )


_SKEW = np.geomspace(20, 1, 10) / np.geomspace(20, 1, 10).sum()
_RISING = np.linspace(1, 5, 10) / np.linspace(1, 5, 10).sum()
_EIGHT_OF_TEN = np.array([1, 1, 1, 0, 1, 1, 1, 0, 1, 1]) / 8

_add("digits", _digits("digits", *_USUAL), development=True)
_add("digits-alone", _digits("digits-alone"), development=True, without=(0,))
_add("digits-related", _digits("digits-related", "printed-digits"), development=True)
_add("digits-unrelated", _digits("digits-unrelated", "textures", "printed-letters"), "junk", without=(0,))
_add("digits-permuted", _digits("digits-permuted", "permuted"), "junk", without=(0,))
_add("digits-mixture", _digits("digits-mixture", *_MIXTURE))
_add("digits-mixture-reversed", _digits("digits-mixture-reversed", *reversed(_MIXTURE)))
_add("digits-is-it-8", _is_eight, "skewed")
_add(
    "digits-skewed",
    _digits("digits-skewed", *_USUAL, label_frequencies=_SKEW, pool_frequencies=_SKEW, truth_frequencies=_SKEW),
    "skewed",
)
_add(
    "digits-frequencies",
    _digits("digits-frequencies", *_USUAL, pool_frequencies=_RISING, truth_frequencies=_RISING),
)
_add("digits-missing-classes", _digits("digits-missing-classes", *_USUAL, pool_frequencies=_EIGHT_OF_TEN))
_add("digits-foreign", _foreign_digits)
_add("digits-inverted", _digits("digits-inverted", *_USUAL, change=inverted))
_add("digits-4x4", _digits("digits-4x4", *_USUAL, change=halved))


# --- printed letters -------------------------------------------------------------------------------------------------


def _letters(name: str, *domains: str, new_faces: bool = False) -> Any:
    def make(labels: int, seed: int) -> Case:
        known: Mapping[str, Callable[[], LabelledImages]] = {
            "sans": lambda: letters("sans", SANS, 77),
            "display-digits": display_digits,
            "textures": textures,
            "permuted": lambda: permuted(letters("sans", SANS, 77), "permuted"),
        }
        draw = Draw({domain: known[domain]() for domain in domains})
        if not new_faces:
            return _cut(name, _ungrouped(letters("serifs", SERIFS + OTHER_SERIFS, 80)), draw, labels, seed)
        return _cut(
            name, letters("serifs", SERIFS, 60), draw, labels, seed, _ungrouped(letters("others", OTHER_SERIFS, 40))
        )

    return make


def _ungrouped(images: LabelledImages) -> LabelledImages:
    return LabelledImages(images.name, images.items, None, images.classes, images.labels)


_add("letters", _letters("letters", "sans", "display-digits", "textures"), development=True)
_add("letters-alone", _letters("letters-alone"), development=True, without=(0,))
_add("letters-unrelated", _letters("letters-unrelated", "display-digits", "textures"), "junk", without=(0,))
_add("letters-permuted", _letters("letters-permuted", "permuted"), "junk", without=(0,))
_add("letters-mixture", _letters("letters-mixture", "permuted", "textures", "sans"))
_add("letters-mixture-reversed", _letters("letters-mixture-reversed", "sans", "textures", "permuted"))
_add("letters-new-faces", _letters("letters-new-faces", "sans", "textures", new_faces=True))


# --- icons -----------------------------------------------------------------------------------------------------------


def _icons(name: str, style: str, *domains: str) -> Any:
    def make(labels: int, seed: int) -> Case:
        known = {domain: textures() if domain == "textures" else icons(domain, 60) for domain in domains}
        return _cut(name, _ungrouped(icons(style, 110)), Draw(known), labels, seed)

    return make


_add("icons-coloured", _icons("icons-coloured", "coloured", "filled", "outline", "textures"))
_add("icons-outline", _icons("icons-outline", "outline", "filled", "turned"))


# --- photographs of solar cells --------------------------------------------------------------------------------------


def _cells(probabilities: tuple[float, ...], mono: bool | None, side: int) -> LabelledImages:
    """Photographs whose defect probability is one of these, of one type of cell or of both; defect from 1/2."""
    pixels, probability, is_mono = solar_cells(side)
    kept = np.isin(np.round(probability, 1), np.round(probabilities, 1))
    if mono is not None:
        kept &= is_mono == mono
    items = [PixelsItem(f"cell {i + 1}", pixels[i]) for i in np.flatnonzero(kept)]
    labels = (probability[kept] >= 0.5).astype(np.int64)
    kind = {None: "cells", True: "mono", False: "poly"}[mono]
    return LabelledImages(kind, items, None, ("defect-free", "defective"), labels)


_CLEAN = (0.0, 1.0)  # what the inspectors were sure of
_ALL = (0.0, 1 / 3, 2 / 3, 1.0)


def solar(
    name: str,
    labels: int,
    seed: int,
    *,
    poly: bool,
    unlabelled: bool,
    graded: tuple[float, ...] = _CLEAN,
    side: int = 96,
) -> Case:
    """Defective or not. poly: only polycrystalline cells, with the monocrystalline ones as source domain."""
    domains = {"mono": _cells(graded, True, side)} if poly else {}
    return _cut(name, _cells(graded, False if poly else None, side), Draw(domains, unlabelled), labels, seed)


def _solar(name: str, *, poly: bool, unlabelled: bool, graded: tuple[float, ...] = _CLEAN) -> Any:
    return lambda labels, seed: solar(name, labels, seed, poly=poly, unlabelled=unlabelled, graded=graded)


_add_packaged("solar", _solar("solar", poly=False, unlabelled=True), without=(0,))
_add_packaged("solar-alone", _solar("solar-alone", poly=False, unlabelled=False), without=(0,))
_add_packaged("solar-doubtful", _solar("solar-doubtful", poly=False, unlabelled=True, graded=_ALL), without=(0,))
_add_packaged("solar-to-poly", _solar("solar-to-poly", poly=True, unlabelled=True))
_add_packaged(
    "solar-to-poly-alone",
    _solar("solar-to-poly-alone", poly=True, unlabelled=False),
    without=(0,),
)


# --- out of npm packages ----------------------------------------------------------------------------------------------


@cache
def _mnist() -> LabelledImages:
    pixels, labels = grey_digits(250)
    items = [PixelsItem(f"digit {i + 1}", image) for i, image in enumerate(pixels)]
    return LabelledImages("mnist", items, None, tuple("0123456789"), labels)


@cache
def _clothes() -> LabelledImages:
    pixels, labels = clothes(250)
    return LabelledImages(
        "clothes", [PixelsItem(f"garment {i + 1}", image) for i, image in enumerate(pixels)], None, GARMENTS, labels
    )


@cache
def _emoji(maker: str) -> LabelledImages:
    """At most 150 of a kind, the same ones of every maker."""
    kinds = {name: pictures for name, pictures in sorted(emoji(maker).items()) if len(pictures) >= 60}
    rng = np.random.default_rng(0)
    items, labels = [], []
    for label, (name, pictures) in enumerate(kinds.items()):
        taken = rng.permutation(len(pictures))[:150]
        items += [PixelsItem(f"{name} {i}", pictures[i]) for i in taken]
        labels += [label] * len(taken)
    return LabelledImages(maker, items, None, tuple(kinds), np.array(labels, dtype=np.int64))


def _of(name: str, target: Callable[[], LabelledImages], domains: Callable[[], Domains] = dict, **settings: Any) -> Any:
    return lambda labels, seed: _cut(name, target(), Draw(domains(), **settings), labels, seed)


def _is_bag() -> LabelledImages:
    return renamed(_clothes(), "clothes", [[kind for kind in GARMENTS if kind != "bag"], ["bag"]], ("another", "bag"))


def _some_clothes() -> Domains:
    return {"clothes": _clothes().subset(np.random.default_rng(5).permutation(len(_clothes()))[:1000])}


_TENTH = np.array([0.9, 0.1])
_add_packaged(
    "mnist",
    _of("mnist", _mnist, lambda: {"textures": textures(), "printed-digits": printed_digits()}),
    development=True,
)
_add_packaged("clothes", _of("clothes", _clothes), development=True, without=(0,))
_add_packaged(
    "clothes-inverted",
    _of("clothes-inverted", lambda: changed(_clothes(), "clothes", inverted), _some_clothes),
    development=True,
)
_add_packaged(
    "clothes-is-bag",
    _of("clothes-is-bag", _is_bag, label_frequencies=_TENTH, least=1),
    "skewed",
    development=True,
    without=(0,),
)
_add_packaged("emoji", _of("emoji", lambda: _emoji("twitter"), lambda: {"apple": _emoji("apple")}), development=True)
_add_packaged(
    "emoji-mixture",
    _of(
        "emoji-mixture",
        lambda: _emoji("google"),
        lambda: {
            "apple": _emoji("apple"),
            "permuted": permuted(_emoji("twitter"), "permuted"),
            "twitter": _emoji("twitter"),
        },
    ),
    development=True,
)


# --- as folders ------------------------------------------------------------------------------------------------------


def dump(made: Case, folder: Path) -> None:
    """Write a case as class folders: target/, unlabelled/, domains/NAME/, truth/."""
    parts = {"target": made.target, "truth": made.truth}
    parts |= {f"domains/{name}": domain for name, domain in made.source_domains.items()}
    for name, images in parts.items():
        if images is not None:
            for number, (item, label) in enumerate(zip(images.items, images.labels, strict=True)):
                _save(item, folder / name / images.classes[label] / f"{number:05d}.png")
    if made.unlabelled is not None:
        for number, item in enumerate(made.unlabelled.items):
            _save(item, folder / "unlabelled" / f"{number:05d}.png")


def _save(item: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    item.open().save(path)


def main(
    dumped: Annotated[
        tuple[str, Path] | None, typer.Option("--dump", metavar="NAME DIR", help="write as folders")
    ] = None,
    labels: Annotated[int, typer.Option(help="labelled images a class")] = 5,
    seed: int = 0,
) -> None:
    """List the tasks (images labelled + unlabelled + truth, source domains), or write one as folders."""
    if dumped is not None:
        name, folder = dumped
        if name not in SPECS:
            raise typer.BadParameter(f"no task '{name}'; there are {', '.join(SPECS)}")
        dump(case(name, labels, seed), folder)
        return
    for spec in SPECS.values():
        made = spec.make(max(labels, min(spec.labels)), seed)
        sizes = f"{len(made.target or ())} + {len(made.unlabelled.items) if made.unlabelled else 0} + {len(made.truth)}"
        what = "development" if spec.development else "measuring"
        print(f"{spec.name:31} {what:12} {sizes:18} {', '.join(made.source_domains)}")


if __name__ == "__main__":
    typer.run(main)
