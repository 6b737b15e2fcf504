"""Where the cluster's token comes from, and who else may read it."""

from __future__ import annotations

import pytest

from raytl.core.errors import UserError
from raytl.machines.token import find_token


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(path, text="secret\n", mode=0o600):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_variable_goes_before_the_named_file_and_that_before_the_usual_one(home, monkeypatch):
    assert find_token() is None
    write(home / ".ray" / "auth_token", "usual")
    assert find_token() == ("usual", "~/.ray/auth_token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(write(home / "named", "named")))
    assert find_token() == ("named", str(home / "named"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    assert find_token() == ("given", "RAY_AUTH_TOKEN")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_can_read_is_refused(home, mode):
    path = write(home / ".ray" / "auth_token", mode=mode)
    with pytest.raises(UserError, match=f"can be read by others.* chmod 600 {path}$"):
        find_token()


def test_what_a_container_mounts_as_a_secret_is_taken(home, monkeypatch):
    """Kubernetes mounts it readable by all, and nobody in the container can change that."""
    path = write(home / ".ray" / "auth_token", mode=0o644)
    owner = path.stat().st_uid
    monkeypatch.setattr("os.getuid", lambda: owner + 1)
    assert find_token() == ("secret", "~/.ray/auth_token")


def test_a_named_file_that_is_not_there_and_an_empty_one_are_said(home, monkeypatch):
    write(home / ".ray" / "auth_token", "\n")
    with pytest.raises(UserError, match="is empty"):
        find_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "nowhere"))
    with pytest.raises(UserError, match=r"RAY_AUTH_TOKEN_PATH is .*nowhere, and there is no such file"):
        find_token()
