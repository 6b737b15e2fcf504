"""Containers and batch systems: no home, long names for temporary files, a working directory that is not one's own."""

from __future__ import annotations

import pytest
from photos import folder, space
from test_cli_mistakes import only_sentence


def test_a_working_directory_that_cannot_be_written_to(raytl, tmp_path, monkeypatch):
    folder(tmp_path / "photos")
    space(tmp_path)
    monkeypatch.chdir("/proc")
    data = ("--target", str(tmp_path / "photos"), "--space", str(tmp_path / "tiny.yaml"), "--holdout", "0")
    said = only_sentence(raytl("search", *data))
    assert said.startswith("raytl-runs/") and "cannot be written" in said and said.endswith("choose another --storage.")
    assert raytl("check", str(tmp_path / "photos")).code == 0


@pytest.mark.slow
def test_no_home_and_a_long_name_for_temporary_files(place):
    folder(place.folder / "photos")
    space(place.folder)
    long = place.folder / ("x" * 80)
    long.mkdir()
    lot = {"HOME": "/dev/null/home", "TMPDIR": str(long), "RAYTL_HOME": ""}
    data = ("--target", "photos", "--space", "tiny.yaml", "--holdout", "0", "--trials", "1", "--set", "epochs=1")
    done = place.run("search", *data, "--lanes", "1", "--json", **lot)
    assert done.code == 0, done.err
    assert done.document["status"] == "finished"
    assert "Traceback" not in done.err
