"""What a folder of image files is: class folders, splits with class folders inside, or a heap of images."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from statistics import median

from raytl.core.names import few, printable
from raytl.tasks.formats import is_image
from raytl.tasks.readers.annotations import ANNOTATIONS
from raytl.tasks.readers.masks import IMAGES
from raytl.tasks.readers.split_names import NONE, TRAIN, SplitsOrClassesError, class_and_split, split_of, splits_of
from raytl.tasks.readers.table import TABLES
from raytl.tasks.readers.tree import Tree

_NAMED = 4
_STRAYS = 4  # of so many images that a folder of folders holds at most one lies beside these by chance
_PARTITION = re.compile(r"^(?:label|class|category|target|species)=(.+)$")  # as hive partitions are named


@dataclass
class Found:
    """One file and what its place says. label: None outside of class folders. split: "train", "validation", "test"."""

    path: str
    label: str | None = None
    split: str | None = None


@dataclass
class Layout:
    """What a folder was taken for.

    kind: in words. files: every file, the folder's own first. said: sentences about it. empty: class folders
    without any file. splits: names of the folders of each split.
    """

    kind: str
    files: list[Found]
    said: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    splits: dict[str, list[str]] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """Names of the class folders that hold images, or files at all where none has the suffix of an image."""
        images = [found for found in self.files if is_image(found.path)] or self.files
        return list(dict.fromkeys(found.label for found in images if found.label is not None))


def recognise(tree: Tree, shown: str, *, split: str | None = None) -> Layout:
    """The layout of a folder whose files are images.

    shown: the folder in messages, with a slash at its end. split: "none" takes names of splits for names of classes.
    Raises UserError where it may be meant in two ways.
    """
    full = _full(tree)
    if split == NONE:
        return _class_folders(tree)
    outside = _splits_inside(full)
    if outside is not None:
        return _joined(tree, outside)
    named = _splits_in_names(full)
    if named is not None:
        return _named(tree, named)
    names = splits_of(full)
    if len(full) == 1:
        inner = _inner(next(iter(full.items())), shown)
        if inner is not None:
            return _beside(tree, inner)
    elif names:
        taken = _splits(tree, full, names, shown)
        if taken is not None:
            return taken
    _refuse_several_sets(full, shown)
    _refuse_same_inside(full, shown)
    _refuse_copy_inside(full, shown)
    layout = _class_folders(tree)
    _say_taken_together(layout, full)
    return layout


def _full(tree: Tree) -> dict[str, Tree]:
    """The folders that hold images; folders of files without suffix where no file has the suffix of an image."""
    with_images = {name: folder for name, folder in tree.folders.items() if folder.images()}
    return with_images or {name: folder for name, folder in tree.folders.items() if any(True for _ in folder.below())}


def _has_images(tree: Tree) -> bool:
    """Whether the folder itself holds images."""
    return any(map(is_image, tree.files)) or (bool(tree.files) and not tree.images())


def _is_of_images(tree: Tree) -> bool:
    """Whether the folder itself holds images, more than strays beside folders of classes."""
    own, inside = sum(map(is_image, tree.files)), _full(tree)
    while len(inside) == 1:
        inside = _full(next(iter(inside.values())))
    usual = median(folder.images() for folder in inside.values()) if len(inside) > 1 else -1
    return _has_images(tree) and not (own <= usual and own * _STRAYS <= tree.images())


def _label(name: str) -> str:
    text = unicodedata.normalize("NFC", printable(name))
    partition = _PARTITION.match(text)
    return partition[1] if partition else text


def _class_folders(tree: Tree) -> Layout:
    files = [Found(path) for path in tree.files]
    empty = []
    for name, folder in tree.folders.items():
        below = sorted(folder.below())
        files += [Found(path, _label(name)) for path in below]
        if not below:
            empty.append(_label(name))
    return Layout(
        "class folders" if any(found.label for found in files) else "images without folders", files, [], empty
    )


def _inner(only: tuple[str, Tree], shown: str) -> Layout | None:
    """The layout of the one folder that there is, where that has class folders inside."""
    name, folder = only
    if _is_of_images(folder) or not _full(folder):
        return None
    layout = recognise(folder, f"{shown}{printable(name)}/")
    several = len(layout.classes) > 1 or bool(layout.splits)
    if not several or layout.kind == "images without folders":
        return None
    if not layout.said or " lie in " not in layout.said[0]:
        what = "the class folders" if layout.classes else "its images"
        layout.said.insert(0, f"{what} lie in {shown}{printable(name)}/; they are taken from there")
    layout.kind = layout.kind if layout.kind.endswith("further down") else f"{layout.kind} further down"
    return layout


def _beside(tree: Tree, layout: Layout) -> Layout:
    """A layout found further down, with the files that lie above it."""
    known = {found.path for found in layout.files}
    layout.files = [Found(path) for path in tree.below() if path not in known] + layout.files
    return layout


def _classes_in(folder: Tree) -> set[str]:
    """Names of the class folders inside a split's folder."""
    return set(_full(_unwrapped(folder))) if not _is_of_images(folder) else set()


def _classes_of_splits(folders: dict[str, Tree]) -> dict[str, set[str]]:
    """The same of several splits: folders that another split has too are classes beside up to as many loose images.

    Not where a table lies among these, which may say what they are.
    """
    found = {}
    for name, folder in folders.items():
        inside = set(_full(_unwrapped(folder)))
        others = (set(_full(_unwrapped(other))) for key, other in folders.items() if key != name)
        same = any(len(inside & other) > 1 for other in others) and not any(map(may_be_table, folder.files))
        fewer = 2 * sum(map(is_image, folder.files)) <= folder.images()
        found[name] = inside if same and fewer else _classes_in(folder)
    return found


def may_be_table(path: str) -> bool:
    """Whether a file may say what images are, by its ending."""
    return PurePosixPath(path).suffix.lower() in TABLES | ANNOTATIONS


def _unwrapped(folder: Tree) -> Tree:
    """``seg_train/seg_train``: past folders that hold one folder and no images, strays apart."""
    inside = _full(folder)
    while len(inside) == 1 and not _is_of_images(folder):
        below = next(iter(inside.values()))
        if _is_of_images(below):
            break  # a single class
        folder, inside = below, _full(below)
    return folder


def _splits(tree: Tree, full: dict[str, Tree], names: dict[str, str], shown: str) -> Layout | None:
    """Split folders with class folders inside, None where the names of splits are names of classes.

    A split folder without class folders inside holds images without labels, unless it is the one to train on.
    """
    classes = _classes_of_splits({name: full[name] for name in names})
    for name, inside in classes.items():
        if len(inside) == 1 and (split_of(*inside) or ("",))[0] == names[name]:
            classes[name] = set()  # train/train, test/test
    every = list(set().union(*classes.values()))
    if len(every) == 1 and IMAGES.fullmatch(every[0]):
        classes = {name: set() for name in names}  # train/images, beside train/labels.csv
    for name, inside in classes.items():
        elsewhere = set().union(*(found for other, found in classes.items() if other != name and len(found) > 1))
        if len(inside) == 1 and elsewhere and not inside & elsewhere:
            classes[name] = set()  # test/test, beside train/cat and train/dog
    inside = set().union(*classes.values())
    others = [name for name in full if name not in names]
    kinds = set(names.values())
    if not inside:
        if others and len(kinds) < 2:
            return None  # a class that happens to be called 'train'
        if not others:
            return _split_layout("splits without classes", tree, full, names, {})
    same = [name for name in others if _classes_in(full[name]) & inside]
    blank = [name for name, split in names.items() if split == TRAIN and not classes[name]]
    if blank and not others:
        labelled = max(names, key=lambda name: len(classes[name]))
        raise SplitsOrClassesError(
            _blank_train(full[blank[0]], f"{shown}{printable(blank[0])}", printable(labelled), shown)
        )
    if same or blank or not inside or len(kinds) < 2:
        odd = f", and '{printable((same or others)[0])}' is another" if others else ""
        train = min(names, key=lambda name: names[name] != TRAIN)
        raise SplitsOrClassesError(
            f"{shown}: its folders {few(names, _NAMED)} may be splits or classes{odd}; give one of them, as in "
            f"{shown}{printable(train)}, or pass --split none to take all folders for classes"
        )
    for name in filter(classes.__getitem__, names):
        _refuse_copy_inside(_full(_unwrapped(full[name])), f"{shown}{printable(name)}/", "")
    return _split_layout("split folders", tree, full, names, classes)


def _blank_train(folder: Tree, train: str, labelled: str, shown: str) -> str:
    """What is said of images to train on that lie in no class folders, where those of another split do.

    folder: of the former, with ``train`` as what it is called. labelled: name of the folder of the latter.
    """
    if any(map(may_be_table, folder.below())):
        return (
            f"{train}/: its images lie in no class folders, and those of '{labelled}' do; where its table has their "
            f"labels give the two apart, {train} as --target and {shown}{labelled} as --test"
        )
    return (
        f"{train}/: nothing says what its images are, while those of '{labelled}' lie in class folders; put them into "
        f"class folders too or a table of their labels beside them, or give {shown}{labelled} as --target and {train} "
        "as --unlabelled"
    )


def _split_layout(
    kind: str, tree: Tree, full: dict[str, Tree], names: dict[str, str], classes: dict[str, set[str]]
) -> Layout:
    layout = Layout(kind, [Found(path) for path in tree.files], splits=_by_split(names))
    for name, split in names.items():
        if not classes.get(name):
            layout.files += [Found(path, None, split) for path in sorted(full[name].below())]
            continue
        below = _class_folders(_unwrapped(full[name]))
        known = {found.path for found in below.files}
        layout.files += [Found(found.path, found.label, split) for found in below.files]
        layout.files += [Found(path) for path in full[name].below() if path not in known]
        layout.empty += [f"{_label(name)}/{empty}" for empty in below.empty]
    rest = [folder for name, folder in tree.folders.items() if name not in names]
    layout.files += [Found(path) for folder in rest for path in sorted(folder.below())]
    return layout


def _by_split(names: dict[str, str]) -> dict[str, list[str]]:
    by_split: dict[str, list[str]] = {}
    for name, split in names.items():
        by_split.setdefault(split, []).append(_label(name))
    return by_split


def _splits_inside(full: dict[str, Tree]) -> dict[str, dict[str, str]] | None:
    """The splits inside each class folder (``cat/train``, ``cat/test``), None where that is not the layout."""
    if len(full) < 2 or any(map(_is_of_images, full.values())) or splits_of(full).keys() == full.keys():
        return None
    inside = {name: splits_of(_full(folder)) for name, folder in full.items()}
    below = [set(_full(_full(full[name])[split])) for name, splits in inside.items() for split in splits]
    if any(len(names) > 1 for names in below):
        return None  # several data sets, each with splits and classes
    kinds = {split for names in inside.values() for split in names.values()}
    exact = all(len(names) == len(_full(full[name])) for name, names in inside.items())
    return inside if exact and len(kinds) > 1 else None


def _splits_in_names(full: dict[str, Tree]) -> dict[str, tuple[str, str]] | None:
    """(class, split) of each folder where all names have both, ``train_cat`` or ``cat-test``; None otherwise."""
    found = {name: class_and_split(name) for name in full}
    if len(full) < 4 or any(value is None for value in found.values()):
        return None
    told = {name: value for name, value in found.items() if value is not None}
    kinds = {split: {label for label, its in told.values() if its == split} for _, split in told.values()}
    shared = set.intersection(*kinds.values())
    return told if len(kinds) > 1 and len(shared) > 1 and len(told) == len(set(told.values())) else None


def _named(tree: Tree, named: dict[str, tuple[str, str]]) -> Layout:
    layout = Layout("class folders with splits in their names", [Found(path) for path in tree.files])
    for name, folder in tree.folders.items():
        label, split = named.get(name, (None, None))
        layout.files += [Found(path, label and _label(label), split) for path in sorted(folder.below())]
        if split is not None:
            layout.splits.setdefault(split, []).append(_label(name))
    labels = sorted({_label(label) for label, _ in named.values()})
    layout.said.append(f"its folders are named by class and split; the classes are {few(labels, _NAMED)}")
    return layout


def _joined(tree: Tree, inside: dict[str, dict[str, str]]) -> Layout:
    layout = Layout("class folders with splits inside", [Found(path) for path in tree.files])
    for name, folder in tree.folders.items():
        names = inside.get(name, {})
        layout.files += [Found(path) for path in folder.files]
        for child, below in folder.folders.items():
            label = _label(name) if child in names else None
            layout.files += [Found(path, label, names.get(child)) for path in sorted(below.below())]
            if child in names and child not in layout.splits.get(names[child], []):
                layout.splits.setdefault(names[child], []).append(child)
    return layout


def _refuse_several_sets(full: dict[str, Tree], shown: str) -> None:
    """Folders of which several hold splits with class folders inside are data sets, and not classes."""
    sets, kinds = [], set()
    for name, folder in full.items():
        inside = _full(folder)
        splits = splits_of(inside)
        if any(len(_full(inside[split])) > 1 for split in splits):
            sets.append(name)
            kinds |= set(splits.values())
    if len(sets) > 1 and len(kinds) > 1:
        raise SplitsOrClassesError(
            f"{shown}: its folders {few(sets, _NAMED)} each hold splits with class folders; give one, as in "
            f"{shown}{printable(sets[0])}, or pass --split none to take them for classes"
        )


def _refuse_same_inside(full: dict[str, Tree], shown: str) -> None:
    """Folders with the same folders inside: domains or splits of unknown names, or classes with the same parts."""
    if len(full) < 2 or any(map(_is_of_images, full.values())):
        return
    inside = Counter(name for folder in full.values() for name in _full(_unwrapped(folder)))
    common = [name for name, count in inside.items() if count > 1]
    if len(common) >= 2 and 2 * len(common) >= len(inside):
        first, second = list(full)[:2]
        raise SplitsOrClassesError(
            f"{shown}: its folders {few(full, _NAMED)} have the same folders inside ({few(sorted(common), _NAMED)}); "
            f"if those inside are the classes give one, as in {shown}{printable(first)}, and the others as "
            f"--source-domain or --test; to learn from all, each of them kept on one side of every split, write a CSV "
            f"file with the columns path, label and group; if '{printable(first)}' and '{printable(second)}' are the "
            f"classes, pass --split none, with --group-by folder to keep together what those inside hold"
        )


def _refuse_copy_inside(
    full: dict[str, Tree], shown: str, otherwise: str = ", or pass --split none to take it for a class"
) -> None:
    """A folder that has most of its folders in common with the classes, wherever it lies, is a copy that was put there.

    It would be a class of its own, or double one. otherwise: what to do where it is meant.
    """
    folders = list(full.items())
    for name, folder in folders:
        inside = _full(folder)
        shared = sorted(inside.keys() & full.keys())
        if len(shared) > 1 and 2 * len(shared) >= len(inside):
            raise SplitsOrClassesError(
                f"{shown}: its folder '{printable(name)}' holds folders named like those beside it "
                f"({few(shared, _NAMED)}), as a copy of the data does; move it away{otherwise}"
            )
        folders += [(f"{name}/{child}", below) for child, below in inside.items()]  # as deep as there are any


def _say_taken_together(layout: Layout, full: dict[str, Tree]) -> None:
    """Class folders that have folders of other names inside, and no images beside these, may be groups of classes."""
    if len(full) < 2:
        return
    inside = {name: list(_full(folder)) for name, folder in full.items() if not _is_of_images(folder)}
    below = list(dict.fromkeys(found for name, names in inside.items() for found in names if found != name))
    if len(below) > 1:
        said = f"the classes are its folders {few(full, _NAMED)}; the folders inside ({few(below, _NAMED)})"
        layout.said.append(f"{said} are not told apart")
