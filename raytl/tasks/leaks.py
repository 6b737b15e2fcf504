"""Leaks: the same picture, or the same group, in two roles; found before it flatters, said, and left out of one side.

A test image is in no other role. A target image is in no source domain, whose models would know the validation images
by heart, and not among the unlabelled ones; nor is an image of a source domain there, whose label the models know.
What source models have learned from before the task, :mod:`raytl.search.space.known` asks.
Source domains may share images, which is only said: it flatters no figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from raytl.core.errors import UserError
from raytl.core.names import few, so_many
from raytl.tasks.duplicates import exact_groups, find_alike
from raytl.tasks.images import Images, LabelledImages
from raytl.tasks.parts import Part, occurring
from raytl.tasks.problems import Problem, Severity


@dataclass
class Roles:
    """The data of a task by role.

    target, unlabelled, test: None where there is none. source_domains: by name. problems: what was noticed about them.
    """

    target: Part[LabelledImages] | None
    unlabelled: Part[Images] | None
    test: Part[LabelledImages] | None
    source_domains: dict[str, Part[LabelledImages]]
    problems: list[Problem] = field(default_factory=list)

    def parts(self) -> list[Part[Any]]:
        """All there are."""
        parts = [self.target, self.unlabelled, self.test, *self.source_domains.values()]
        return [part for part in parts if part is not None]


def compare(parts: Sequence[Part[Any]]) -> None:
    """Look for copies within and between all parts at once, and number their images.

    pictures: equal numbers, in whatever part, are one picture beyond reasonable doubt.
    alike: equal numbers within a part may be one picture.
    """
    facts = [fact for part in parts for fact in part.facts]
    content = exact_groups([fact.pixels for fact in facts])
    _, first = np.unique(content, return_index=True)
    distinct = [facts[i] for i in first]
    owned = np.split(content, np.cumsum([len(part.facts) for part in parts])[:-1])
    present = [np.isin(np.arange(len(distinct)), own) for own in owned]
    found = find_alike(distinct, present, classes=_classes(parts, owned, len(distinct)))
    for part, own, alike in zip(parts, owned, found.within, strict=True):
        part.pictures, part.alike = found.pictures[own], alike[own]


def _classes(parts: Sequence[Part[Any]], owned: Sequence[np.ndarray], n: int) -> np.ndarray:
    """Numbers of n contents' label names, int64 (n,): -1 for one without a label, or with several.

    owned: the content of each part's images.
    """
    numbers: dict[str, int] = {}
    found = np.full(n, -1, dtype=np.int64)
    several = np.zeros(n, dtype=bool)
    for part, own in zip(parts, owned, strict=True):
        if isinstance(part.images, LabelledImages):
            names = [numbers.setdefault(name, len(numbers)) for name in part.images.classes]
            for content, label in zip(own.tolist(), part.images.labels.tolist(), strict=True):
                several[content] |= found[content] >= 0 and found[content] != names[label]
                found[content] = names[label]
    return np.where(several, -1, found)


def separate(roles: Roles) -> None:
    """Leave out of each role what another has as well, and say so: a line for each two roles.

    What the task can do without is dropped where nothing of use is left. Raises UserError where it cannot.
    """
    target, domains = roles.target, list(roles.source_domains)
    if roles.test is not None:
        if target is not None:
            roles.target = target = _needed(target, roles.test, f"the test set {roles.test.images.name}", roles)
        separate_test(roles)
    for number, key in enumerate(domains):
        if target is not None and key in roles.source_domains:
            _narrow(roles, key, target, f"the target {target.images.name}")
            if key in roles.source_domains:
                _part_groups(roles, key, target)
        for earlier in domains[:number]:
            if key in roles.source_domains and earlier in roles.source_domains:
                _compare_domains(roles, earlier, key)
    if target is not None:
        _thin(roles, target, f"the target {target.images.name}")
    for key, domain in roles.source_domains.items():
        _thin(roles, domain, f"the source domain {key}")


def separate_test(roles: Roles) -> None:
    """Leave test images, and images of the groups that are in the test, out of unlabelled images and source domains.

    Raises UserError as :func:`separate`.
    """
    test = roles.test
    if test is None:
        return
    where = f"the test set {test.images.name}"
    for key in list(roles.source_domains):
        if roles.target is None:
            roles.source_domains[key] = _needed(roles.source_domains[key], test, where, roles, domain=True)
        else:
            _narrow(roles, key, test, where, groups=True)
    _thin(roles, test, where, groups=True)


def _needed(
    part: Part[LabelledImages], test: Part[LabelledImages], where: str, roles: Roles, *, domain: bool = False
) -> Part[LabelledImages]:
    """A labelled part without what is in the test. Raises UserError where all of a class is."""
    copies, companions = _copies(part, test), _companions(part, test, roles, domain=domain)
    apart = ~(copies | companions)
    lost = sorted(occurring(part.images) - {part.images.classes[label] for label in part.images.labels[apart]})
    if lost:
        what = f"every image of class '{lost[0]}'" if apart.any() else "every image"
        also = "also in" if not companions.any() else "also in, or of a group that is in,"
        raise UserError(f"{part.images.name}: {what} is {also} {where}; give a test set of other images")
    _say(roles, part, test, where, copies, companions & ~copies, "left out of the training")
    return part.keep(apart)


def _narrow(roles: Roles, key: str, other: Part[LabelledImages], where: str, *, groups: bool = False) -> None:
    """A source domain without what another role has; none where fewer than two classes are left."""
    part = roles.source_domains[key]
    copies = _copies(part, other)
    companions = _companions(part, other, roles, domain=True) if groups else np.zeros(len(copies), dtype=bool)
    apart = ~(copies | companions)
    if apart.all():
        return
    images = part.keep(apart).images
    left = occurring(images)
    kept = tuple(name for name in images.classes if name in left)
    if len(kept) < 2:
        done = "too little is left: the source domain is not used" if apart.any() else "the source domain is not used"
        del roles.source_domains[key]
    else:
        gone = [f"'{name}'" for name in images.classes if name not in left]
        classes = f", and with them the class{'es' if len(gone) > 1 else ''} {', '.join(gone)}" if gone else ""
        done = f"left out of the source domain{classes}"
        roles.source_domains[key] = replace(part.keep(apart), images=images.with_classes(kept))
    _say(roles, part, other, where, copies, companions & ~copies, done)


def _compare_domains(roles: Roles, earlier: str, key: str) -> None:
    """Say what two source domains share. Both keep it.

    It flatters no figure; and which of two labels is wrong is found out by asking one domain's labels of the other's
    images, not by which was named first.
    """
    first, part = roles.source_domains[earlier], roles.source_domains[key]
    other = "" if set(first.images.classes) & set(part.images.classes) else "with other labels; "
    _say(roles, part, first, f"the source domain {earlier}", _copies(part, first), None, f"{other}kept in both")


def _thin(roles: Roles, other: Part[LabelledImages], where: str, *, groups: bool = False) -> None:
    """The unlabelled images without what another role has."""
    part = roles.unlabelled
    if part is None:
        return
    copies = _copies(part, other)
    companions = _companions(part, other, roles) if groups else np.zeros(len(copies), dtype=bool)
    apart = ~(copies | companions)
    if apart.any():
        _say(roles, part, other, where, copies, companions & ~copies, "left out of the unlabelled images")
        roles.unlabelled = part.keep(apart)
        return
    if roles.target is None:
        also = f"every image is also in another role, such as {where}"
        raise UserError(f"{part.images.name}: {also}; give other images to --unlabelled")
    _say(roles, part, other, where, copies, companions & ~copies, "no unlabelled images are left to use")
    roles.unlabelled = None


def _copies(part: Part[Any], other: Part[Any]) -> np.ndarray:
    return np.isin(part.pictures, other.pictures)


def _companions(part: Part[Any], test: Part[Any], roles: Roles, *, domain: bool = False) -> np.ndarray:
    """Which images are of a group of the test, bool (n,).

    domain: whether the part is a source domain. Numbers are given anew in each place, so a group number that the test
    has as well is no reason to take one patient of another hospital for one of this; it is only said.
    """
    shared = {name for name in test.group_names if name is not None} & set(part.group_names)
    doubtful = {name for name in shared if domain and name.isdecimal()}
    if doubtful:
        message = (
            f"{len(doubtful)} group number{'s are' if len(doubtful) > 1 else ' is'} also in the test set "
            f"{test.images.name}, and taken for other groups; if they are the same, write a letter before the numbers"
        )
        _note(roles, part, message, Severity.WARNING)
    shared -= doubtful
    if not shared:
        return np.zeros(len(part.images), dtype=bool)
    return np.array([name in shared for name in part.group_names], dtype=bool)


def _say(
    roles: Roles,
    part: Part[Any],
    other: Part[Any],
    where: str,
    copies: np.ndarray,
    companions: np.ndarray | None,
    done: str,
) -> None:
    """A line about the images that two roles share, and one about the groups.

    copies, companions: bool (n,), the images of ``part`` that ``other`` has, and those that are of one of its groups.
    """
    if copies.any():
        names = [item.name for item, copy in zip(part.images.items, copies, strict=True) if copy]
        wrong = _contradictions(part, other)
        doubt = f"; {wrong} of them under another label, a sign of wrong labels" if wrong else ""
        _note(roles, part, f"{count_are(len(names))} also in {where} ({few(names)}); {done}{doubt}", Severity.WARNING)
    if companions is not None and companions.any():
        groups = {name for name, companion in zip(part.group_names, companions, strict=True) if companion}
        what = f"{len(groups)} group{'s that are' if len(groups) > 1 else ' that is'} also in {where}"
        _note(roles, part, f"{count_are(int(companions.sum()))} of {what}; {done}", Severity.WARNING)


def _part_groups(roles: Roles, key: str, target: Part[LabelledImages]) -> None:
    """A source domain without images of the target's groups, where half of it and every class are left.

    A group that is validated would be learned from in the domain, and pretrained on. Where most are shared, as by two
    cameras at the same patients, that is the domain: it is kept, and said.
    """
    domain = roles.source_domains[key]
    shared = {name for name in target.group_names if name is not None and not name.isdecimal()}
    shared &= set(domain.group_names)
    if not shared:
        return
    where = f"the target {target.images.name}"
    companions = np.array([name in shared for name in domain.group_names], dtype=bool)
    rest = domain.keep(~companions)
    if 2 * companions.sum() <= len(companions) and occurring(rest.images) == occurring(domain.images):
        roles.source_domains[key] = rest
        nothing = np.zeros(len(companions), dtype=bool)
        _say(roles, domain, target, where, nothing, companions, "left out of the source domain")
        return
    groups = f"{len(shared)} groups are" if len(shared) > 1 else "1 group is"
    kept = "kept in both, for too little would be left, so that validation may flatter (a test split does not)"
    _note(roles, domain, f"{groups} also in {where}; {kept}", Severity.WARNING)


def _contradictions(part: Part[Any], other: Part[Any]) -> int:
    """Images of ``part`` that ``other`` has under other labels only, among the labels that both know."""
    if not isinstance(part.images, LabelledImages) or not isinstance(other.images, LabelledImages):
        return 0
    common = set(part.images.classes) & set(other.images.classes)
    theirs: dict[int, set[str]] = {}
    for picture, name in _labels(other):
        theirs.setdefault(picture, set()).add(name)
    return sum(
        name in common and bool(theirs.get(picture, set()) & common) and name not in theirs[picture]
        for picture, name in _labels(part)
    )


def _labels(part: Part[LabelledImages]) -> Iterable[tuple[int, str]]:
    names = [part.images.classes[label] for label in part.images.labels]
    return zip(part.pictures.tolist(), names, strict=True)


def _note(roles: Roles, part: Part[Any], message: str, severity: Severity) -> None:
    roles.problems.append(Problem(severity, part.images.name, message))


def count_are(number: int) -> str:
    """``1 image is``, ``2 images are``."""
    return so_many(number, "image is", "images are")
