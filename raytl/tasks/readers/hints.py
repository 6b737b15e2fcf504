"""What else lies in a folder: where its labels or its images seem to be when they are not where raytl reads them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

from raytl.core.errors import UserError
from raytl.core.names import few, printable, so_many
from raytl.tasks.formats import is_image, why_unread
from raytl.tasks.readers.archive import ENDINGS, Archive
from raytl.tasks.readers.file_names import FILENAME, crossed, pattern_of, say_crossed, spoken
from raytl.tasks.readers.listing import Listing, Place
from raytl.tasks.readers.split_names import split_of, splits_of
from raytl.tasks.readers.tree import Tree, name_of

_NAMED = 4
_BESIDE = frozenset({".txt", ".xml", ".json", ".cls"})
_SHEETS = frozenset({".xlsx", ".xls", ".ods", ".numbers", ".gsheet"})
_OTHER_ARCHIVES = frozenset({".rar", ".7z", ".gz", ".bz2", ".xz", ".zst", ".001", ".z01"})
_ARRAYS = frozenset(
    {
        *(".npz", ".npy", ".mat", ".pkl", ".pickle", ".h5", ".hdf5", ".tfrecord", ".tfrec", ".mdb", ".pt", ".pth"),
        *(".rec", ".record", ".beton", ".zarr"),
    }
)
_DATABASES = frozenset({".lmdb", ".sqlite", ".sqlite3", ".db"})
# MNIST's files, shards of TFRecord, CIFAR's batches.
_ARRAY_NAMES = re.compile(r"([-.]idx\d-ubyte(\.gz)?|\.tfrec(ords?)?([-_.]\d.*)?|(^|/)(data_batch_\d+|batches\.meta))$")
# Folders of these are meant as pictures of something, and not as notes: films and documents, arrays, shortcuts to
# pictures elsewhere, archives and downloads that are not finished.
MEDIA = frozenset(
    {
        *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".pdf", ".doc", ".docx", ".pptx"),
        *(".npy", ".npz", ".mat", ".h5", ".lnk", ".url", ".webloc", ".desktop", ".gdoc", ".gsheet", ".alias"),
        *(".zip", ".tar", ".tgz", ".gz", ".rar", ".7z", ".part", ".crdownload", ".download", ".wav", ".mp3"),
    }
)
# What may hold labels beside images whose folders tell none, and is not read.
_NOT_READ = frozenset({".txt", ".lst", ".json", ".xml", ".yaml", ".yml"}) | _ARRAYS | _DATABASES
_LEGEND = re.compile(r"(class|categor|label|legend|names?|synset|mapping|wnids|taxonomy)", re.IGNORECASE)
_NOT_ABOUT_LABELS = re.compile(
    r"readme|license|licence|requirements|^data\.yaml$|dataset_info|state\.json", re.IGNORECASE
)
_MASK = re.compile(
    r"^(.*?)[ _-]*(mask|masks|seg|segmentation|gt|groundtruth|ground_truth|annotation|depth|disparity|heatmap|saliency"
    r"|alpha|matte|edges|overlay|bbox|boxes|thermal|infrared)([ _-]?\d+)?$",
    re.I,
)


def describe_suffixes(paths: Iterable[str]) -> str:
    """``.txt (3), .db``: which kinds of files, the most frequent first."""
    counts = Counter(PurePosixPath(path).suffix.lower() or "no suffix" for path in paths)
    return ", ".join(suffix if count == 1 else f"{suffix} ({count})" for suffix, count in counts.most_common(4))


def is_archive_name(path: str) -> bool:
    """Whether a file is an archive by its name."""
    return path.lower().endswith(ENDINGS) or (
        PurePosixPath(path).suffix.lower() in _OTHER_ARCHIVES and not is_image(path)
    )


def is_array_name(path: str) -> bool:
    """Whether a file holds arrays, or a database, by its name."""
    return PurePosixPath(path).suffix.lower() in _ARRAYS | _DATABASES or bool(_ARRAY_NAMES.search(path))


def not_a_data_set(path: str, shown: str) -> str:
    """The error for a file that is no table."""
    suffix = PurePosixPath(path).suffix.lower()
    if why := why_unread(path):
        return f"{shown}: {why}"
    if suffix in _SHEETS:
        return f"{shown}: spreadsheets are not read; save the sheet as CSV (UTF-8) and give that"
    if suffix in _OTHER_ARCHIVES:
        return f"{shown}: {suffix} archives are not read; unpack it and give the folder"
    if is_array_name(path):
        what = "databases" if suffix in _DATABASES else "arrays"
        return (
            f"{shown}: {what} are not read; write each image as PNG into a folder of its class, or as bytes to Parquet"
        )
    if is_image(path):
        return f"{shown}: it is one image; give the folder that it lies in"
    if suffix in {".txt", ".lst"}:
        return f"{shown}: text files are not read; write a CSV file with the columns path and label"
    return f"{shown}: neither a folder nor a Parquet or CSV file; give one of these"


def why_no_images(tree: Tree, shown: str) -> str:
    """What a folder without images holds instead and what to do, to follow "no images found"; empty if nothing."""
    files = list(tree.below())
    if not files:
        return ""
    kinds = describe_suffixes(files)
    if any(map(is_array_name, files)):
        return f"its files ({kinds}) hold arrays: write each image as PNG into a folder of its class, or to Parquet"
    start = len(tree.path.rstrip("/")) + 1
    archives = [printable(path[start:]) for path in files if is_archive_name(path)]
    readable = [path for path in archives if path.lower().endswith(ENDINGS)]
    if len(archives) == 1 and readable and not shown.rstrip("/").lower().endswith(ENDINGS):
        return f"it holds an archive: give {shown}{readable[0]}"
    if archives:
        return f"unpack what it holds ({few(archives, _NAMED)})"
    if any(PurePosixPath(path).suffix.lower() in _SHEETS for path in files):
        return f"it holds a spreadsheet ({kinds}): save it as CSV (UTF-8) beside the images"
    return f"its files are of other kinds ({kinds})"


def why_unlabelled(tree: Tree, reasons: dict[str, str]) -> str:
    """What keeps the tables from giving labels, or where else labels seem to be; empty if nowhere.

    reasons: why each table is of no use, by its name.
    """
    for name, why in reasons.items():
        return f"its table {name}: {why}"
    files = list(tree.below())
    images = [path for path in files if is_image(path)]
    stems = {PurePosixPath(path).stem for path in images}
    beside = Counter(PurePosixPath(path).suffix.lower() for path in files if PurePosixPath(path).stem in stems)
    pairs = [(count, suffix) for suffix, count in beside.items() if suffix in _BESIDE]
    if pairs and 2 * max(pairs)[0] > len(images):
        count, suffix = max(pairs)
        return (
            f"it has {count} {suffix} files named like its images, as for boxes or captions, and these are not read; "
            "if each holds one label write a CSV file with the columns path and label"
        )
    parts = crossed(images)
    if parts:
        what = f"the files' names are of parts that come again with each other: {say_crossed(parts)}"
        what = f"{what}; pass the one that is the label, or --label {FILENAME} where they are it together"
        return f"{what}; where another says where images come from give its part to --group-by"
    found = spoken(images)
    if found is not None:
        listed = few(found.words, _NAMED, quoted=True)
        how = f"pass --label {FILENAME}, or move each into a folder of its own"
        return f"the files' names {found.where} {listed}; if these are the labels {how}"
    told = pattern_of(images)
    if told is not None:
        pattern, words = told
        where = f"the files' names say {few(words, _NAMED, quoted=True)}"
        return f"{where}; if these are the labels pass --label '{FILENAME}:{pattern}'"
    sheet = next((path for path in files if PurePosixPath(path).suffix.lower() in _SHEETS), None)
    if sheet is not None:
        return f"{name_of(sheet)} may hold them, but spreadsheets are not read; save it as CSV (UTF-8)"
    listed_in = next((path for path in tree.files if PurePosixPath(path).suffix.lower() in {".txt", ".lst"}), None)
    listed_in = listed_in or next((path for path in files if _may_hold_labels(path, stems)), None)
    if listed_in is not None and not _NOT_ABOUT_LABELS.search(name_of(listed_in)):
        inner = printable(listed_in[len(tree.path.rstrip("/")) + 1 :])
        return f"if {inner} holds them save it as a CSV file with the columns path and label"
    return ""


def _may_hold_labels(path: str, stems: set[str]) -> bool:
    """Whether a file that is not read, and is not about one image, may say what the images are."""
    name = PurePosixPath(path)
    kind = name.suffix.lower() in _NOT_READ or path.lower().endswith((".csv.gz", ".json.gz", ".txt.gz"))
    return kind and name.stem not in stems and not _NOT_ABOUT_LABELS.search(name.name)


def say_what_else(tree: Tree, listing: Listing) -> None:
    """Announce what a search does not look at: archives, lists of splits, names for numbered classes; and masks."""
    archives = [name_of(path) for path in tree.below() if is_archive_name(path)]
    if archives:
        some = "an archive is" if len(archives) == 1 else f"{len(archives)} archives are"
        listing.announce_warning(f"{some} not read ({few(archives, _NAMED)}); unpack what belongs to the data")
    say_lists(tree, listing)
    stems = {str(PurePosixPath(path).with_suffix("")) for path in tree.below() if is_image(path)}
    masks = []
    for stem in sorted(stems):
        name = PurePosixPath(stem)
        told = _MASK.match(name.name)
        if told and told[1] and str(name.with_name(told[1])) in stems:
            masks.append(stem)
    if masks:
        some = so_many(len(masks), "image is", "images are")
        listing.announce_warning(
            f"{some} named like masks of others (first: {name_of(masks[0])}) and learned as images; "
            "move them away if they are masks"
        )


def say_unpacked(place: Place, listing: Listing) -> None:
    """Say that what is packed was unpacked on disk."""
    copies = place.filesystem.copies if isinstance(place.filesystem, Archive) else []
    if copies:
        folder = copies[0].rpartition("/")[0]
        it = "it is packed, and was" if len(copies) == 1 else f"{len(copies)} of its files are packed, and were"
        listing.announce(f"{it} unpacked once to {printable(folder)}, to be read in place there")


def say_lists(tree: Tree, listing: Listing, used: Collection[str] = ()) -> None:
    """Announce files that may name the images of splits, or the classes that are codes. used: tables that are read."""
    if not listing.labelled:
        return
    others = [path for path in _near_the_top(tree) if name_of(path) not in {*used, *listing.heard}]
    others = [path for path in others if PurePosixPath(path).suffix.lower() in _NOT_READ | {".csv"}]
    # Where a table gives the labels another one may be of images without any, which are left out.
    kinds = {".txt", ".lst", ".json"} | ({".csv"} if "table" not in listing.layout else set())
    texts = [path for path in others if PurePosixPath(path).suffix.lower() in kinds]
    spoken = {path: split_of(PurePosixPath(path).stem) for path in texts}
    together = (
        len({found[0] for found in spoken.values() if found is not None}) > 1
    )  # clipart_train.txt, clipart_test.txt
    lists = [
        name_of(path)
        for path in texts
        if _speaks_of_split(PurePosixPath(path).stem) or (together and spoken[path] is not None)
    ]
    apart = splits_of(name for name, folder in tree.folders.items() if folder.images())  # what --split none joins
    if lists and not listing.split_names and len(set(apart.values())) < 2:
        what = f"{few(lists, _NAMED)} may say which images are for training or the test"
        what = f"{what}, and {'is' if len(lists) == 1 else 'are'}"
        listing.announce_warning(
            f"{what} not read: all images are learned from; move those of the test into a folder, and pass it as --test"
        )
    labels = {entry.label for entry in listing.entries if entry.label is not None}
    legend = next((name_of(path) for path in others if _LEGEND.search(PurePosixPath(path).stem)), None)
    if legend is not None and labels and all(re.fullmatch(r"(n0|class_?)?\d+", label) for label in labels):
        what = f"its classes are codes ('{min(labels)}', …), which the model will answer with"
        listing.announce(f"{what}; if {legend} says what they are, name the classes so")


def _near_the_top(tree: Tree) -> list[str]:
    """The files of a folder, and of those in it that hold no images."""
    return tree.files + [path for folder in tree.folders.values() if not folder.images() for path in folder.files]


def _speaks_of_split(stem: str) -> bool:
    found = split_of(stem)
    return stem.lower() in {"train_test_split", "splits", "split"} or (found is not None and not found[1])


def reason(error: UserError, shown: str) -> str:
    """An error's sentence without the path that it begins with."""
    return str(error).removeprefix(f"{shown}: ")
