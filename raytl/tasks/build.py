"""The task as a user states it: paths (or images in memory) in, checked and split data out."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from raytl.core.errors import UserError, nearest
from raytl.core.names import few, plural, printable
from raytl.tasks.duplicates import label_conflicts
from raytl.tasks.given import given_paths
from raytl.tasks.grouping import grouped, numbered_alike, say_things_tested
from raytl.tasks.holding_out import checked_holdout, groups_per_class, hold_out
from raytl.tasks.images import Images, LabelledImages
from raytl.tasks.judgements import (
    judge_colours,
    judge_depth,
    judge_frames,
    judge_kinds,
    judge_pool,
    judge_role_colours,
    judge_sizes,
    judge_test,
)
from raytl.tasks.leaks import Roles, compare, count_are, separate, separate_test
from raytl.tasks.parts import (
    Labelled,
    Part,
    Path,
    SourceDomains,
    base_name,
    further_part,
    labelled_part,
    named_domains,
    occurring,
    own_test,
    unlabelled_part,
)
from raytl.tasks.problems import Problem, Severity
from raytl.tasks.resembling import resemblance
from raytl.tasks.survey import Facts
from raytl.tasks.task import Role, SealedTest, TrainingData

_USUAL = 0.9  # share of the images that are as small as a task's ``image_side`` says
_SAME_SIZE = 1.25  # times the side of others that is not another size yet
_CONFLICTS_NAMED = 5  # more are only counted


class Task:
    """What is to be learned, from data in up to three roles, with a test split put aside.

    target: labelled images of the domain that the model will be used in: a folder with one subfolder per class, a
        Parquet or CSV file (local or a URI), or a LabelledImages.
    source_domain: labelled images of other domains: one, several, (name, images) pairs, or a mapping by name.
    unlabelled: images of the target domain without labels.
    test: labelled images for the final test. Without it, the target's own test split where it has one; else a part of
        the target may be held out.
    name: what the task is called; the folder's name by default.
    seed: decides which images are held out.
    holdout: the share of the target that is held out as the test, 0 for none. By default a fifth where the
        median class has 30 images or more, and every class four, of three groups; else all labels are learned from.
    split: the one split of the target to learn from; "none" where folders with names of splits are classes, in the
        source domains and the test too where they could not be read else. By default what it has for training and
        validation.
    images: the folder that the paths in tables count from, where that is not the table's own.
    label, image_column: the columns of tables that hold labels and images, where their names do not say so; label
        "filename" takes labels from the files' names (:func:`raytl.tasks.readers.read_labelled`).
    group_by: what images belong together, never on two sides of a split: a column of tables, a regular expression whose
        group finds it in a path from the given one on, "folder" for the folder that each image lies in, or "none" where
        each is its own. By default what columns and names say (:func:`raytl.tasks.readers.read_labelled`).
    classes_of: the source domain whose classes are to be learned, where there are no target labels and domains differ.
        By default the classes that most domains share; where no two agree, those of the domain that looks most like the
        unlabelled images.

    data: all that a search may see. test: the sealed test split, or None. problems: what was noticed about the data.
    given: what it was made of (:func:`raytl.tasks.remaking.make_task`), None where images were given in memory.
    Raises UserError where the data allows no search, saying what to do.
    """

    def __init__(
        self,
        target: Labelled | None = None,
        source_domain: SourceDomains = (),
        unlabelled: Path | Images | None = None,
        test: Labelled | None = None,
        *,
        name: str | None = None,
        seed: int = 0,
        holdout: float | None = None,
        split: str | None = None,
        images: Path | None = None,
        label: str | None = None,
        image_column: str | None = None,
        group_by: str | None = None,
        classes_of: str | None = None,
    ) -> None:
        domains = named_domains(source_domain)
        _check_classes_of(classes_of, list(domains), has_target=target is not None)
        if target is None and not domains:
            raise UserError(
                "no labelled data; pass --target PATH, or --source-domain PATH together with --unlabelled PATH"
            )
        if target is None and unlabelled is None:
            raise UserError("no data of the target domain; pass --target PATH (labelled) or --unlabelled PATH")
        holdout = checked_holdout(holdout, has_target=target is not None, has_test=test is not None)
        self.seed = seed
        columns = {"label": label, "image_column": image_column, "group_by": group_by}
        tables = {"images": images, **columns}
        parts = {
            key: further_part(place, Role.SOURCE_DOMAIN, split=split, tables=tables) for key, place in domains.items()
        }
        goal = None if target is None else labelled_part(target, Role.TARGET, split=split, tables=tables)
        pool = None if unlabelled is None else unlabelled_part(unlabelled, tables=tables)
        final = None if test is None else further_part(test, "test", split=split, tables=tables)
        own = final is None and goal is not None and goal.has_test
        if own and target is not None and goal is not None:
            final = own_test(target, goal, tables=tables)
            checked_holdout(holdout, has_target=True, has_test=True)
        self.problems: list[Problem] = []
        roles = Roles(goal, pool, final, parts, self.problems)
        self.problems += [problem for part in roles.parts() for problem in part.problems]
        for labelled in [goal, *parts.values()]:
            if labelled is not None:
                _two_classes(labelled.images)

        compare(roles.parts())
        if goal is not None:
            self._note_conflicts(goal)
        separate(roles)
        goal, final = roles.target, roles.test
        self.problems += _judge_colours(roles)
        wanted = None if final is None else occurring(final.images)
        classes = goal.images.classes if goal is not None else self._agreed(roles, wanted, classes_of)
        classes = tuple(sorted(classes))
        if final is not None:
            final.images = _into_classes(final, classes, "the target" if goal else "any source domain", own=own)
        beside = {"without labels": roles.unlabelled, "of the test": final}
        others = {key: part.images for key, part in beside.items() if part is not None}
        if goal is not None:
            goal.images = goal.images.with_classes(classes)
            if final is not None:
                learned = {name: count for name, count in goal.images.counts().items() if count}
                self.problems += judge_test(final.images.name, learned, set(), occurring(final.images))
            goal.images, told = grouped(goal, self.problems, others)
            if roles.unlabelled is not None:
                roles.unlabelled.images = numbered_alike(roles.unlabelled, goal)
            if final is not None and told:
                self.problems += say_things_tested(goal.images, final.images)
            if final is None:
                roles.target, roles.test, said = hold_out(goal, holdout, seed)
                self.problems += said
                separate_test(roles)
                if roles.test is None:
                    self.problems += _judge_lonely(goal.images)
        for key, part in roles.source_domains.items():
            # With a target its images say how good a model is, and how much a domain's are heard.
            part.images, _ = grouped(part, self.problems, others if goal is None else None, domain=True)
            self._note_half_shared(key, part.images, classes, by_path=not isinstance(domains[key], LabelledImages))

        self.name = printable(name) if name else _task_name(target, unlabelled)
        chosen = {"split": split, **columns, "classes_of": classes_of}
        places = {"target": target, "unlabelled": unlabelled, "test": test, "images": images}
        self.given = given_paths(places, domains, self.name, seed, holdout, chosen)
        of_target = roles.target or roles.unlabelled
        seen = [part for part in roles.parts() if part is not roles.test]
        self.data = TrainingData(
            name=self.name,
            classes=classes,
            target=None if roles.target is None else roles.target.images,
            unlabelled=None if roles.unlabelled is None else roles.unlabelled.images,
            source_domains={key: part.images for key, part in roles.source_domains.items()},
            channels=1 if all(fact.greyscale for part in roles.parts() for fact in part.facts) else 3,
            image_side=max(_long_side(part.facts) for part in seen),
            target_side=None if of_target is None else _long_side(of_target.facts),
            piece_side=_piece_side(roles.target, roles.unlabelled),
        )
        self.test = None if roles.test is None else SealedTest(roles.test.images)
        if self.data.target is not None and not self.data.can_score:
            self.problems.append(_judge_unscored(self.data.target, tested=self.test is not None))

    def __repr__(self) -> str:
        data = self.data
        roles = [
            f"target={len(data.target)}" if data.target else "",
            f"unlabelled={len(data.unlabelled)}" if data.unlabelled else "",
        ]
        roles += [f"source domain {key}={len(images)}" for key, images in data.source_domains.items()]
        roles += [f"test={len(self.test)}" if self.test else ""]
        return f"Task({self.name}: {len(data.classes)} classes, {', '.join(filter(None, roles))})"

    def _note(self, where: str, message: str, severity: Severity = Severity.WARNING) -> None:
        self.problems.append(Problem(severity, where, message))

    def _agreed(self, roles: Roles, wanted: set[str] | None, classes_of: str | None) -> tuple[str, ...]:
        """The classes to learn where there are no target labels.

        wanted: the label names of a given test set, which the classes have to cover where any domain does.
        """
        parts = roles.source_domains
        sets = {key: frozenset(part.images.classes) for key, part in parts.items()}
        if classes_of is not None and classes_of not in sets:  # its images are in other roles
            raise UserError(f"the source domain {classes_of} is not used, so its classes cannot be learned")
        shared, alike = Counter(sets.values()), dict.fromkeys(sets, 0.0)
        if len(shared) > 1 and roles.unlabelled is not None:
            alike = resemblance(roles.unlabelled.facts, {key: part.facts for key, part in parts.items()})
        order = {
            key: (wanted is None or wanted <= names, shared[names], alike[key], len(names), sorted(names))
            for key, names in sets.items()
        }
        first = classes_of or max(order, key=lambda key: order[key])
        others = [key for key in sets if not sets[key] <= sets[first]]
        if others:
            by_looks = (
                alike[first] and not classes_of and shared[sets[first]] == 1 and not (wanted and wanted <= sets[first])
            )
            share = f"{100 * alike[first]:.0f} % of the unlabelled images look most like its own"
            why = f", for {share}" if by_looks else ""
            how = "" if classes_of else f"; to learn another's, name it with --classes-of {others[0]}"
            what = f"its {len(sets[first])} classes will be learned{why}; {', '.join(others)} can only pretrain{how}"
            self._note(first, what)
        return tuple(sets[first])

    def _note_conflicts(self, part: Part[LabelledImages]) -> None:
        images = part.images
        digests = [item.digest for item in images.items]
        conflicts = label_conflicts(digests, images.labels)
        self._note_alike(images, set(conflicts), label_conflicts(part.pictures.tolist(), images.labels))
        if len(conflicts) > _CONFLICTS_NAMED:
            message = f"{len(conflicts)} images are there under another label as well; raytl check --json lists them"
            self._note(images.name, message)
            return
        for first, other in conflicts:
            labels = f"'{images.classes[images.labels[first]]}' and '{images.classes[images.labels[other]]}'"
            self._note(images.items[other].name, f"the same image as {images.items[first].name}, but labelled {labels}")

    def _note_alike(self, images: LabelledImages, same: set[tuple[int, int]], alike: Sequence[tuple[int, int]]) -> None:
        """Pictures under two labels that are not the same bytes: recompressed, scaled."""
        pairs = [pair for pair in alike if pair not in same]
        if pairs:
            first, other = (images.items[index].name for index in pairs[0])
            what = f"{count_are(len({i for pair in pairs for i in pair}))} like one of another class"
            message = f"{what} ({first} and {other}{'; …' if len(pairs) > 1 else ''}): one of the two labels is wrong,"
            self._note(images.name, f"{message} or it shows both; raytl check --json lists them")

    def _note_half_shared(self, key: str, images: LabelledImages, classes: tuple[str, ...], *, by_path: bool) -> None:
        """A source domain that shares some classes but not all, or nearly the same, looks like a misspelling."""
        odd = [name for name in images.classes if name not in classes]
        if odd and len(odd) == len(images.classes):
            plain = {name.casefold().strip(): name for name in classes}
            meant = ((name, plain.get(name.casefold().strip()) or _alike(name, classes)) for name in odd)
            like = next(((name, other) for name, other in meant if other), None)
            hint = f"; is '{like[0]}' the same as '{like[1]}'?" if like else ""
            what = f"none of its classes ({few(odd, quoted=True)}) is one to learn"
            grade = Severity.WARNING if like else Severity.INFO
            if like or by_path:  # who makes images knows their names
                self.problems.append(Problem(grade, key, f"{what}: the domain can only pretrain{hint}", leading=True))
        elif odd:
            hint = nearest(odd[0], classes) if len(classes) <= 20 else ""
            named, those = few(odd, quoted=True), sum(images.counts()[name] for name in odd)
            what = f"class {named} is" if len(odd) == 1 else f"classes {named} are"
            told = f"{what} none of the classes to learn{hint}; the domain can only pretrain"
            if "did you mean" not in hint:  # a class by another name is to be renamed
                told = f"{told}, and without the {those} images of {named} the other {len(images) - those} could join"
            self._note(key, told)


def _alike(name: str, known: Sequence[str]) -> str | None:
    """The one of the names that this one may be a misspelling, or the plural, of."""
    close = difflib.get_close_matches(name.casefold(), [other.casefold() for other in known], n=1, cutoff=0.8)
    return next((other for other in known if close and other.casefold() == close[0]), None)


def _judge_colours(roles: Roles) -> list[Problem]:
    """What being grey or in colour would give away: of classes of the target, and of one role against another."""
    goal, named = roles.target, {"the target": roles.target, "the unlabelled set": roles.unlabelled}
    named |= {"the test": roles.test} | {f"source domain {key}": part for key, part in roles.source_domains.items()}
    problems = []
    if goal is not None:
        labels = [goal.images.classes[label] for label in goal.images.labels]
        problems = judge_colours(goal.images.name, labels, goal.facts)
        problems += judge_sizes(goal.images.name, labels, goal.facts) + judge_kinds(
            goal.images.name, labels, goal.facts
        )
    for part in roles.parts():
        names = [item.name for item in part.images.items]
        problems += judge_depth(part.images.name, names, part.facts) + judge_frames(part.images.name, names, part.facts)
    if roles.unlabelled is not None:
        pool = roles.unlabelled
        problems += judge_pool(pool.images.name, [item.name for item in pool.images.items], pool.facts)
    shares = {
        role: float(np.mean([fact.greyscale for fact in part.facts]))
        for role, part in named.items()
        if part is not None and part.facts
    }
    return problems + judge_role_colours(shares, next(part for part in roles.parts()).images.name)


def _task_name(target: Labelled | None, unlabelled: Path | Images | None) -> str:
    place = target if target is not None else unlabelled
    return base_name(place) if place is not None else "task"


def _long_side(facts: Sequence[Facts], share: float = _USUAL) -> int:
    """Pixels of the longer side that a share of the images, nine in ten, do not exceed."""
    return int(np.quantile([max(fact.width, fact.height) for fact in facts] or [0], share))


def _piece_side(target: Part[LabelledImages] | None, unlabelled: Part[Images] | None) -> int | None:
    """A task's ``piece_side``."""
    if target is None:
        return None
    own = _long_side(target.facts, 0.5)
    other = own if unlabelled is None else _long_side(unlabelled.facts, 0.5)
    return own if max(own, other) <= _SAME_SIZE * min(own, other) else None


def _two_classes(images: LabelledImages) -> None:
    if len(images.classes) < 2:
        only = images.classes[0]
        raise UserError(f"{images.name}: only one class, '{only}'; a classifier needs at least two. Add another class.")


def _into_classes(part: Part[LabelledImages], classes: tuple[str, ...], where: str, *, own: bool) -> LabelledImages:
    """The test's images with the classes of what is learned. own: whether they are a split of the target's data."""
    images = part.images
    odd = sorted(occurring(images) - set(classes))
    if odd:
        name = images.items[int(np.flatnonzero(images.labels == images.classes.index(odd[0]))[0])].name
        said = f" ({part.told_by[name]} says it of {name})" if name in part.told_by else ""
        hint = nearest(odd[0], classes)
        more = f"{'' if hint.endswith('?') else '.'} To go on without this test pass --split train" if own else ""
        raise UserError(f"{images.name}: test class '{odd[0]}'{said} is not a class of {where}{hint}{more}")
    return images.with_classes(classes)


def _judge_unscored(images: LabelledImages, *, tested: bool) -> Problem:
    """What to say of a target of which nothing can be held out, where there is nothing else to choose by."""
    groups = groups_per_class(images)
    lonely = next(name for name in images.classes if groups[name] < 2)
    count = images.counts()[lonely]
    has = f"{count} image{plural(count)}" + (" that belong together (duplicates or one group)" if count > 1 else "")
    tells = "only the test tells" if tested else "nothing tells"
    more = "a second image of each class or --unlabelled" if tested else "a second image of each class, or --test PATH,"
    what = f"class '{lonely}' has {has}, so none can be held out and {tells} how good a model is. It will be a head on"
    what = f"{what} frozen features, of the kind that usually does best; {more} would tell more"
    return Problem(Severity.WARNING, images.name, what, leading=True)


def _judge_lonely(images: LabelledImages) -> list[Problem]:
    """Classes that no figure speaks of: what is alone in its class is learned, and never held out.

    Nothing where fewer than two classes can be held out: there is no such figure then.
    """
    groups = groups_per_class(images)
    lonely = [name for name, count in groups.items() if count == 1]
    if not lonely or len(groups) - len(lonely) < 2:
        return []
    count = images.counts()[lonely[0]]
    has = f"class '{lonely[0]}' has {count} image{plural(count)}" + (" that belong together" if count > 1 else "")
    its = "it"
    if len(lonely) > 1:
        has = f"{len(lonely)} of {len(groups)} classes ({few(lonely, quoted=True)}) have 1 image each"
        has, its = f"{has}, or images that belong together", "them"
    message = f"{has}: learned, but how well is not known, and no figure counts {its}"
    return [Problem(Severity.WARNING, images.name, message)]


def _check_classes_of(name: str | None, domains: Sequence[str], *, has_target: bool) -> None:
    if name is None:
        return
    if has_target:
        raise UserError("--classes-of: the classes are those of the target's labels; leave it out, or --target")
    if name not in domains:
        raise UserError(f"--classes-of {name}: no such source domain; there are {', '.join(domains)}")
