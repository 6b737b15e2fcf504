"""What the clients of Google's and Azure's stores do otherwise than S3's, as far as it shows without a server."""

from __future__ import annotations

import errno
import os
import resource
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyarrow import ArrowException, fs

from raytl.core.errors import NotWrittenError, cause
from raytl.runs.storage.objects import PARTS, Objects, reaching
from raytl.runs.storage.places import DOCUMENT, JOURNAL
from raytl.runs.storage.remote import ObjectStorage
from raytl.runs.storage.segments import Segment
from raytl.tasks.readers.listing import open_uri
from raytl.tasks.readers.patience import RETRY_S


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    """On a disk, but written as on a store that shows an object empty while it is written."""
    found = Objects(fs.LocalFileSystem(), str(tmp_path / "run"), "file")
    found._shows_halves = True
    return found


def settings_of(filesystem: Any) -> dict[str, Any]:
    settings: dict[str, Any] = filesystem.__reduce__()[1][0]
    return settings


def test_where_halves_show_an_object_is_there_once_it_is_whole(objects: Objects, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"two")
    for content in (b"one", tmp_path / "file"):
        objects.put("run.json", content)
    assert objects.get("run.json") == b"two" and list(objects.list()) == ["run.json"]
    objects._write(f"{PARTS}/0123", b"ha")  # its writer died
    assert list(objects.list()) == ["run.json"] and objects.below("nothing").list() == {}
    assert not objects.list(PARTS)
    objects.delete_all()
    assert not (tmp_path / "run").exists()


def test_a_writer_that_dies_leaves_what_was_there(objects: Objects, tmp_path: Path) -> None:
    objects.put("run.json", b"one")
    (tmp_path / "run" / "table.json").mkdir()  # over which nothing can be copied
    with pytest.raises(OSError):
        objects.put("table.json", b"two")
    assert list(objects.list()) == ["run.json"] and objects.get("run.json") == b"one"


def test_a_disk_here_that_is_full_is_not_taken_for_a_store_that_does_not_answer(
    objects: Objects, tmp_path: Path
) -> None:
    objects.put("model.safetensors", b"0" * 10_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(NotWrittenError, match=r"copy: cannot be written \(file too large\)\. Free space .* RAYTL_HOME"):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
            with reaching("s3://bucket/runs"):
                objects.download("model.safetensors", tmp_path / "copy")
        finally:  # at once: where pytest writes to a file, it must not be the next whose file is too large
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_a_disk_that_takes_nothing_is_told_by_what_it_said_first(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects.put("run.json", b"{}")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "open", fail)
    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(NotWrittenError, match=r"copy: cannot be written \(read-only file system\)"):
        objects.download("run.json", tmp_path / "copy")


@pytest.mark.parametrize("name", [DOCUMENT, JOURNAL, "gone.json"])
def test_a_place_for_copies_that_cannot_be_used_is_not_told_as_the_store(
    objects: Objects, tmp_path: Path, name: str
) -> None:
    objects.below("digits").put(DOCUMENT, b"{}")
    objects.below("digits").put(Segment(1, 0, 0).key, b"{}\n")
    place = ObjectStorage("s3://bucket/runs", objects=objects, copies=tmp_path / "copies").place("digits")
    assert place.has(name) is (name != "gone.json")
    place.folder.parent.mkdir(parents=True)
    place.folder.write_bytes(b"a file")
    with pytest.raises(NotWrittenError, match=rf"digits/{name}: cannot be written \(.*RAYTL_HOME name a folder"):
        place.file(name)


def test_google_is_asked_again_for_no_longer_than_is_bearable() -> None:
    for query, seconds in (("", RETRY_S), ("?retry_limit_seconds=20", 20)):
        client = Objects.at(f"gs://anonymous@bucket/runs{query}")._filesystem
        assert settings_of(client)["retry_time_limit"] == timedelta(seconds=seconds)
        assert settings_of(client)["anonymous"]


def test_azure_takes_the_key_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "abfs://team@account.dfs.core.windows.net/runs"
    monkeypatch.setenv("AZURE_STORAGE_KEY", "a2V5")
    filesystem, path = open_uri(uri)
    settings = settings_of(filesystem)
    assert path == "team/runs" and (settings["account_name"], settings["account_key"]) == ("account", "a2V5")
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    assert not settings_of(open_uri(uri)[0])["account_key"]


@pytest.mark.parametrize("there", [True, False])
def test_azures_command_is_run_for_a_token_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], there: bool
) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9")  # where no machine's identity is
    monkeypatch.setenv("PATH", str(tmp_path))
    if there:
        (tmp_path / "az").write_text("#!/bin/sh\necho log in first >&2\n")
        (tmp_path / "az").chmod(0o755)
    filesystem, path = open_uri("abfs://team@account.dfs.core.windows.net/runs")
    with pytest.raises(ArrowException, match="Failed to get token from DefaultAzureCredential"):
        filesystem.get_file_info(path)
    assert capfd.readouterr().err == ("log in first\n" if there else "")
    assert "AZURE_TOKEN_CREDENTIALS" not in os.environ


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            "When initiating multiple part upload for key 'a' in bucket 'b': AWS Error NO_SUCH_BUCKET during "
            "CreateMultipartUpload operation: The specified bucket does not exist",
            "The specified bucket does not exist",
        ),
        (
            "google::cloud::Status(NOT_FOUND: Permanent error, with a last message of Received HTTP status code: 404 "
            "error_info={reason=, domain=, metadata={gcloud-cpp.retry.function=InsertObject}})",
            "NOT_FOUND: Permanent error, with a last message of Received HTTP status code: 404",
        ),
        (
            "UploadFrom failed for 'https://account.blob.core.windows.net/team/x'. There is no existing blob at this "
            "location. Azure Error: [ContainerNotFound] 404 The specified container does not exist. The specified "
            "container does not exist.",
            "The specified container does not exist.",
        ),
        (
            "Check for Hierarchical Namespace support on 'https://account.blob.core.windows.net/team' failed. Azure "
            "Error: [] Fail to get a new connection for: https://account.dfs.core.windows.net. Could not resolve "
            "hostname",
            "Could not resolve hostname",
        ),
        (
            "Unknown error: Check for Hierarchical Namespace support on 'https://account.blob.core.windows.net/team' "
            "failed: N5Azure4Core11Credentials23AuthenticationExceptionE: Failed to get token from "
            "DefaultAzureCredential.\nSee Azure::Core::Diagnostics::Logger for details (https://aka.ms/azsdk).",
            "Failed to get token from DefaultAzureCredential.",
        ),
        ("no answer", "no answer"),
    ],
)
def test_of_a_stores_error_the_last_words_are_told(said: str, why: str) -> None:
    assert cause(OSError(said)) == why
