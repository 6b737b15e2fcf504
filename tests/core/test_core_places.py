"""Places that cannot be looked at are places where nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from raytl.core.errors import NotWrittenError
from raytl.core.places import check_folder, expanded, is_file, is_folder, is_there

NOWHERE = Path("/dev/null/here")


@pytest.mark.parametrize("place", ["x" * 300, "no\0name", "/dev/null/here"])
def test_what_no_system_takes_is_not_there(place: str) -> None:
    assert not (is_there(place) or is_file(place) or is_folder(place))


def test_a_home_of_nobody_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/models") == tmp_path / "models"
    assert expanded("~nobody-here/models") == Path("~nobody-here/models")


def test_a_folder_that_can_be_made_is_not_made_yet(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    with pytest.raises(NotWrittenError, match="/dev/null/here: cannot be written"):
        check_folder(NOWHERE)
