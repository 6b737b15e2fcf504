from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raytl.core import machine
from raytl.core.errors import UserError
from raytl.core.paths import home

# A folder that nobody can make, whoever runs the tests.
NOWHERE = "/dev/null/home"


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("RAYTL_HOME", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    machine._user_folder.cache_clear()
    yield
    machine._user_folder.cache_clear()


def test_the_home_folder_is_used_where_it_can_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert home() == tmp_path / "me" / ".cache" / "raytl"


@pytest.mark.parametrize("given", [NOWHERE, "/proc", "/nonexistent/../proc"])
def test_without_a_usable_home_a_folder_of_ones_own_takes_its_place(
    given: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where root is told by the permissions that it may write, as in /proc."""
    monkeypatch.setenv("HOME", given)
    folder = machine.user_folder()
    assert folder == tmp_path / f"raytl-{os.getuid()}"
    assert folder.stat().st_mode & 0o077 == 0
    assert home() == folder / ".cache" / "raytl"


def test_a_folder_that_is_somebody_elses_is_not_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", NOWHERE)
    (tmp_path / "theirs").mkdir()
    (tmp_path / f"raytl-{os.getuid()}").symlink_to(tmp_path / "theirs")
    with pytest.raises(UserError, match=r"neither the home folder .* can be used; set RAYTL_HOME"):
        machine.user_folder()


def test_a_cache_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYTL_HOME", NOWHERE)
    with pytest.raises(UserError, match="RAYTL_HOME is /dev/null/home, which cannot be written to"):
        home()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user that does not exist")
def test_a_user_without_name_or_home_has_a_folder_too() -> None:
    code = "import os, raytl.core.machine as m; os.setuid(54321); print(m.user_folder())"
    environment = {key: value for key, value in os.environ.items() if key not in {"HOME", "TMPDIR"}}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    found = Path(done.stdout.strip())
    assert found.name == "raytl-54321", done.stderr
    found.rmdir()


class TestShortTempDir:
    def test_the_usual_one_will_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", "/tmp")
        assert machine.short_temp_dir() is None

    def test_a_long_one_is_passed_by(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 80)))
        assert machine.short_temp_dir() in {"/tmp", "/var/tmp", "/dev/shm"}


class TestRayToken:
    @pytest.fixture(autouse=True)
    def untouched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            monkeypatch.setenv(name, "")  # so that it is put back afterwards
            monkeypatch.delenv(name)

    def test_is_written_once_and_for_the_user_alone(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "me"))
        machine.ray_token()
        path = tmp_path / "me" / ".ray" / "auth_token"
        token = path.read_text()
        assert len(token) == 64
        assert path.stat().st_mode & 0o077 == 0
        machine.ray_token()
        assert path.read_text() == token
        assert "RAY_AUTH_TOKEN_PATH" not in os.environ

    def test_without_a_home_ray_is_told_where_it_is(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", NOWHERE)
        machine.ray_token()
        assert Path(os.environ["RAY_AUTH_TOKEN_PATH"]) == tmp_path / f"raytl-{os.getuid()}" / ".ray" / "auth_token"
        assert len(Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text()) == 64


class TestCores:
    def test_are_those_that_affinity_leaves(self, tmp_path: Path) -> None:
        some = {next(iter(os.sched_getaffinity(0)))}
        code = f"import os; os.sched_setaffinity(0, {some}); from raytl.core.machine import cores; print(cores())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "1"

    @pytest.mark.parametrize(
        ("files", "expected"),
        [
            ({"cpu.max": "100000 100000\n"}, 1),
            ({"cpu.max": "50000 100000\n"}, 1),
            ({"cpu.max": "99900000 100000\n"}, None),
            ({"cpu.max": "max 100000\n"}, None),
            ({"cpu.max": ""}, None),
            ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
            ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
            ({}, None),
        ],
    )
    def test_are_as_many_as_a_containers_quota_is_for(
        self, files: dict[str, str], expected: int | None, tmp_path: Path
    ) -> None:
        for name, text in files.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert machine.cores(tmp_path) == (expected or len(os.sched_getaffinity(0)))


_FAULTS = """
import resource, sys, threading
from raytl.core.machine import keep_freed

if sys.argv[1] == "keeps":
    keep_freed(256 * 2**20, 512 * 2**20, together=True)

def work():
    def ask():
        block = bytearray(100 * 2**20)
        block[::4096] = b"1" * len(block[::4096])
    ask()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        ask()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
@pytest.mark.parametrize(
    ("argument", "environment", "kept"),
    [("keeps", {}, True), ("none", {}, False), ("keeps", {"MALLOC_TRIM_THRESHOLD_": "65536"}, False)],
)
def test_freed_memory_is_kept_in_any_thread_unless_the_environment_says_otherwise(
    argument: str, environment: dict[str, str], kept: bool
) -> None:
    """Of five blocks of 25,600 pages each was new from the system: two thirds of a network's time went into that."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | environment
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS, argument], env=own, capture_output=True, text=True, check=True
    )
    assert (int(done.stdout) < 25_600) == kept
