"""Tables whose images lie at addresses of storages: brought here, or refused there."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry, known_implementations

from raytl.core.errors import UserError, cause
from raytl.tasks import read_labelled
from raytl.tasks.items import FileItem
from raytl.tasks.readers import listing
from raytl.tasks.readers.listing import open_uri
from raytl.tasks.readers.patience import impatient
from tests.tasks.pictures import make_folder
from tests.tasks.test_silent_misreadings import EIGHT

GOOGLE = (
    "google::cloud::Status(UNAVAILABLE: Retry policy exhausted, with a last message of Could not create a OAuth2 "
    "access token to authenticate the request. The underlying error message was: PerformWork() - CURL error [6]=Could "
    "not resolve hostname error_info={reason=, domain=, metadata={gcloud-cpp.retry.original-message=Could not create}})"
)


class Refusing(MemoryFileSystem):
    """A storage that refuses whatever it is asked, at length."""

    protocol = "refusing"
    asked = 0

    def info(self, path: str, **more: Any) -> Any:
        Refusing.asked += 1
        raise OSError("no, " * 250)

    _open = info


@pytest.fixture(autouse=True)
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(known_implementations, "refusing", {"class": f"{__name__}.Refusing"})
    monkeypatch.setitem(_registry, "refusing", Refusing)
    Refusing.asked = 0


def table(root: Path, scheme: str, *, flat: bool = False) -> Path:
    root.mkdir(exist_ok=True)
    rows = (f"{scheme}://bucket/set/{'' if flat else f'{label}/'}{n}.png,{label}" for n, label in enumerate(EIGHT))
    path = root / "labels.csv"
    path.write_text("\n".join(["path,label", *rows]) + "\n")
    return path


@pytest.mark.parametrize("scheme", ["gs", "s3", "https"])
@pytest.mark.parametrize("flat", [True, False])
def test_images_that_were_brought_here_are_found(scheme: str, flat: bool, tmp_path: Path) -> None:
    here = make_folder(tmp_path / "here", {".": 8})
    for n, label in enumerate(EIGHT if not flat else ()):
        (here / label).mkdir(exist_ok=True)
        (here / f"{n}.png").rename(here / label / f"{n}.png")
    read = read_labelled(table(tmp_path, scheme, flat=flat), images=here)
    assert len(read.images) == 8
    assert any("8 files are found by looking below" in problem.message for problem in read.problems)


def test_a_storage_that_refuses_is_asked_once_and_told_shortly(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_labelled(table(tmp_path, "refusing"))
    told = str(caught.value)
    assert len(told) < 300
    assert told.startswith("refusing://bucket/set/cat/0.png: cannot be reached (no, no, ")
    assert told.endswith("; sign in to where it is, or download the images and pass --images DIR")
    assert Refusing.asked == 1


def test_one_image_that_is_refused_is_told_shortly() -> None:
    from pyarrow import fs

    item = FileItem("refusing://bucket/0.png", "bucket/0.png", fs.PyFileSystem(fs.FSSpecHandler(Refusing())))
    with pytest.raises(UserError) as caught:
        item.read()
    assert len(str(caught.value).partition("; sign in")[0]) < 200


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOGLE, "PerformWork() - CURL error [6]=Could not resolve hostname"),
        ("AWS Error ACCESS_DENIED during HeadObject operation: no", "no"),
        ("first\nsecond", "first"),
        ("", "OSError"),
        ("x" * 1000, "x" * 120 + "…"),
    ],
)
def test_of_what_an_exception_says_the_cause_is_told(text: str, told: str) -> None:
    assert cause(OSError(text)) == told


@pytest.mark.parametrize("uri", ["gs://anonymous@bucket/photos", "s3://key:secret@bucket/photos?region=us-east-1"])
def test_of_a_storage_that_does_not_answer_it_is_said_soon_and_by_its_address(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is read there later may be asked for longer: it was there once."""
    asked: list[Any] = []

    def get_file_info(filesystem: Any, path: str) -> Any:
        asked.append(filesystem)
        raise OSError("no answer")

    patient = open_uri(uri)[0]
    monkeypatch.setattr(listing, "impatient", lambda filesystem: SimpleNamespace(
        get_file_info=lambda path: get_file_info(impatient(filesystem), path)
    ))  # fmt: skip
    with pytest.raises(UserError, match=rf"^{re.escape(uri)}: cannot be reached \(no answer\); check the address"):
        listing.locate(uri)
    assert not asked[0].equals(patient) and asked[0].equals(impatient(patient))
