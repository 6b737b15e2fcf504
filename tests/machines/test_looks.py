"""What ``raytl doctor`` finds, on machines that lack something."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from installed import install
from ray._private import ray_constants
from test_reaching import Peer, served

from raytl.core import machine
from raytl.machines import looks
from raytl.machines.looks import Finding, Mark

# A place where nobody can write, whoever runs the tests.
NOWHERE = Path("/dev/null/here")


def test_the_worst_is_read_first_and_the_rest_as_it_was_looked_at():
    marks = [Mark.OK, Mark.WARNING, Mark.PROBLEM, Mark.OK, Mark.PROBLEM]
    found = looks.worst_first([Finding(str(n), mark, "") for n, mark in enumerate(marks)])
    assert [finding.name for finding in found] == ["2", "4", "1", "0", "3"]


class TestPackages:
    def test_this_environment_is_one_that_raytl_is_made_for(self):
        assert [finding.mark for finding in looks.packages()] == [Mark.OK] * 4

    def test_a_version_that_raytl_is_not_made_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        install(tmp_path, "torchvision", {}, "")  # of version 1.0
        monkeypatch.syspath_prepend(str(tmp_path))
        found = looks.package("torchvision")
        assert found.mark is Mark.PROBLEM and found.found.startswith("1.0, and raytl takes ")
        assert found.advice.startswith("pip install 'torchvision")

    def test_one_that_is_missing_comes_with_raytl_from_where_there_is_one(self):
        """No registry has raytl: it is installed from a wheel or a checkout."""
        found = looks.package("no-such-package")
        assert found.mark is Mark.PROBLEM
        assert found.advice == "install raytl anew: pip install with its wheel, or pip install . in its checkout"

    def test_raytl_run_from_its_sources_asks_for_no_version(self, monkeypatch: pytest.MonkeyPatch):
        def gone(name: str) -> list[str]:
            raise PackageNotFoundError(name)

        monkeypatch.setattr(looks, "requires", gone)
        assert looks.package("torch").mark is Mark.OK

    def test_builds_that_do_not_fit_each_other(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "torchvision", raising=False)
        found = looks.pair()
        assert found.mark is Mark.PROBLEM and "operator torchvision::nms does not exist" in found.found
        assert "from one place and in one command" in found.advice


class TestCluster:
    @pytest.fixture(autouse=True)
    def loopback(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def test_none_is_named(self):
        assert looks.cluster(None).mark is Mark.OK

    def test_nobody_answers(self):
        found = looks.cluster("127.0.0.1:1")
        assert (found.mark, found.found) == (
            Mark.PROBLEM,
            "no Ray cluster answers at '127.0.0.1:1' (connection refused)",
        )
        assert found.advice.startswith("check --address")

    def test_what_it_has_is_told_though_it_is_elsewhere(self):
        with served(Peer()) as address:
            found = looks.cluster(address)
        assert found.mark is Mark.PROBLEM and found.advice == "run raytl on one of its nodes"
        assert found.found.startswith(f"{address}: 1 node, 8 CPUs, 2 GPUs, Ray ")

    def test_of_another_version(self):
        with served(Peer(b'{"ray_version": "2.9.3", "python_version": "3.9.18"}')) as address:
            found = looks.cluster(address)
        assert found.mark is Mark.PROBLEM and f"{address} runs Ray 2.9.3 on Python 3.9.18" in found.found
        assert found.advice.startswith("start it anew")


class TestPlaces:
    @pytest.fixture(autouse=True)
    def anew(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        monkeypatch.delenv("RAYTL_HOME", raising=False)
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        machine._user_folder.cache_clear()
        yield
        machine._user_folder.cache_clear()

    @pytest.mark.parametrize("folder", [NOWHERE, Path("/proc/runs"), Path("/sys/runs")])
    def test_a_folder_that_cannot_be_written_to(self, folder: Path):
        found = looks.disk("runs", folder, "--storage")
        assert found.mark is Mark.PROBLEM and found.found == f"{folder} cannot be written to"
        assert "--storage" in found.advice

    def test_looking_makes_nothing(self, tmp_path: Path):
        assert looks.disk("runs", tmp_path / "a" / "b", "--storage").name == "runs"
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("least", "mark"), [("LEAST_DISK_BYTES", Mark.PROBLEM), ("SCARCE_DISK_BYTES", Mark.WARNING)]
    )
    def test_a_disk_that_is_all_but_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: str, mark: Mark):
        monkeypatch.setattr(looks, "LEAST_DISK_BYTES", 0)
        monkeypatch.setattr(looks, least, 2**70)
        found = looks.disk("runs", tmp_path, "--storage")
        assert found.mark is mark and "larger disk" in found.advice

    def test_no_home(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        monkeypatch.setenv("HOME", str(NOWHERE))
        found = looks.home_folder()
        assert found.mark is Mark.WARNING and found.found.startswith(f"{NOWHERE}: {tmp_path}/raytl-")

    def test_a_cache_nowhere(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("RAYTL_HOME", str(NOWHERE))
        assert looks.cache() == Finding(
            "cache", Mark.PROBLEM, f"RAYTL_HOME is {NOWHERE}, which cannot be written to", "set it to a folder of yours"
        )

    def test_a_temporary_folder_too_long_for_sockets_is_passed_by(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(tempfile, "tempdir", "/tmp/" + "x" * 80)
        assert "is too long for Ray's sockets" in looks.temporary().found

    def test_little_shared_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(looks, "LEAST_SHM_BYTES", 2**70)
        found = looks.shared_memory(tmp_path)
        assert found.mark is Mark.WARNING and "--shm-size" in found.advice
        assert looks.shared_memory(tmp_path / "none").mark is Mark.OK

    @pytest.mark.skipif(os.getuid() != 0 or shutil.which("unshare") is None, reason="only root can mount")
    @pytest.mark.parametrize(
        ("size", "mark"),
        [("16m", Mark.WARNING), ("2g", Mark.OK), ("2g,ro", Mark.WARNING)],
        ids=["16 MiB", "2 GiB", "ro"],
    )
    def test_a_disk_of_memory_of_that_size(self, size: str, mark: Mark, tmp_path: Path):
        """What containers have: 64 MiB, unless they are started with more."""
        code = "import sys, pathlib, raytl.machines.looks as l; print(l.shared_memory(pathlib.Path(sys.argv[1])).mark)"
        mount = 'mount -t tmpfs -o "size=$0" none "$1" && exec "$2" -c "$3" "$1"'
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", mount, size, str(tmp_path), sys.executable, code],
            capture_output=True,
            text=True,
        )
        if "unshare" in done.stderr or "mount:" in done.stderr:
            pytest.skip(f"no mounts in here: {done.stderr.strip()}")
        assert done.stdout.strip() == mark, done.stderr


class TestMemory:
    @pytest.mark.parametrize(("lane", "mark"), [(1, Mark.OK), (2**60, Mark.PROBLEM)])
    def test_is_held_against_what_a_lane_takes(self, monkeypatch: pytest.MonkeyPatch, lane: int, mark: Mark):
        monkeypatch.setattr("raytl.core.memory.LANE_BYTES", lane)
        monkeypatch.setattr(looks, "LANE_BYTES", lane)
        assert looks.free_memory().mark is mark
