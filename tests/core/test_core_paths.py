"""What came along with searches: whose it is, and that it stays while a search needs it."""

from __future__ import annotations

import os
import time

import pytest

from raytl.core.paths import below, in_use, lot_of, lot_with, note_run, run_argument, storage_of, submitted

LONG_AGO = 1e9
REACHED = "?endpoint_override=http://127.0.0.1:9000&region=eu"
"""What says of a URI how its store is reached."""


@pytest.fixture
def lots(tmp_path, monkeypatch):
    """Two of them, last used long ago; the user's folder is reached by a link, as /home is on some machines."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to("disk")
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path / "home" / "cache"))
    made = [submitted() / name for name in ("one", "two")]
    for lot in made:
        (lot / "photos").mkdir(parents=True)
        os.utime(lot, (LONG_AGO, LONG_AGO))
    return made


def renewed(lot) -> bool:
    return lot.stat().st_mtime > LONG_AGO


def wait_for(what) -> None:
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_what_a_search_needs_is_renewed_again_and_again_until_it_ends(lots, tmp_path):
    one, two = lots
    with in_use([one.resolve() / "photos", tmp_path, "s3://bucket/photos"], every_s=0.01):
        for _ in range(3):
            wait_for(lambda: renewed(one))
            os.utime(one, (LONG_AGO, LONG_AGO))
    os.utime(one, (LONG_AGO, LONG_AGO))
    time.sleep(0.05)
    assert not renewed(one) and not renewed(two)


def test_what_did_not_come_along_is_no_lot(lots, tmp_path):
    assert lot_of(lots[0] / "photos" / "1.png") == lots[0].resolve()
    assert lot_of(submitted()) is None and lot_of(tmp_path) is None and lot_of("s3://bucket/photos") is None


@pytest.mark.parametrize(
    ("storage", "run"),
    [
        ("/mnt/runs", "/mnt/runs/flowers"),
        ("/mnt/runs?", "/mnt/runs?/flowers"),
        ("s3://bucket/runs", "s3://bucket/runs/flowers"),
        (f"s3://bucket/runs{REACHED}", f"s3://bucket/runs/flowers{REACHED}"),
        (f"s3://bucket/runs/{REACHED}", f"s3://bucket/runs/flowers{REACHED}"),
    ],
)
def test_a_run_is_in_its_storage_by_the_way_that_it_is_reached(storage, run, monkeypatch):
    assert below(storage, "flowers") == run
    assert below(*storage_of(run)) == run
    monkeypatch.delenv("RAYTL_STORAGE", raising=False)
    assert run_argument(run) == (f"'{run}'" if "?" in run else run)
    monkeypatch.setenv("RAYTL_STORAGE", storage_of(run)[0])
    assert run_argument(run) == "flowers"


def test_a_run_is_the_same_one_by_another_way(lots, monkeypatch):
    monkeypatch.chdir(lots[0])
    note_run("s3://bucket/runs/flowers")
    assert lot_with(f"s3://bucket/runs/flowers{REACHED}").samefile(lots[0])


@pytest.mark.parametrize("run", ["/mnt/runs/flowers", "s3://bucket/runs/flowers"])
def test_a_run_is_gone_on_with_from_what_came_along_with_it(lots, monkeypatch, tmp_path, run):
    assert lot_with(run) is None
    for lot in lots:  # the run of that name is made, removed, and made anew
        monkeypatch.chdir(lot)
        note_run(run)
        assert lot_with(f"{run}/").samefile(lot)
        assert lot_with(f"{run}-2") is None
    monkeypatch.chdir(tmp_path)
    note_run(run)  # anew, without anything of the kind
    assert lot_with(run) is None
