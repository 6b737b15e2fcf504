"""Registries find their components by reading a package, and errors name the nearest known one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raytl.core.errors import UserError, nearest
from raytl.core.registry import Registry

MODULE = """
from plugs.registry import registry
registry.add("{name}", {value})
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[int]]:
    """A package ``plugs`` of two components, and its registry."""
    folder = tmp_path / "plugs"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "registry.py").write_text(
        "from raytl.core.registry import Registry\nregistry = Registry('plug', 'plugs')\n"
    )
    (folder / "coral.py").write_text(MODULE.format(name="coral", value=1))
    (folder / "dann.py").write_text(MODULE.format(name="dann", value=2))
    monkeypatch.syspath_prepend(str(tmp_path))
    from plugs.registry import registry

    yield registry
    for name in [name for name in sys.modules if name.partition(".")[0] == "plugs"]:
        del sys.modules[name]


class TestRegistry:
    def test_knows_every_file_of_its_package_without_a_list(self, package: Registry[int]) -> None:
        assert package.names() == ["coral", "dann"]
        assert (package.get("coral"), package.get("dann")) == (1, 2)

    def test_names_the_nearest_known_one(self, package: Registry[int]) -> None:
        with pytest.raises(UserError, match="unknown plug 'corral'; did you mean 'coral'"):
            package.get("corral")

    def test_lists_what_is_known_where_nothing_is_near(self, package: Registry[int]) -> None:
        with pytest.raises(UserError, match="known are coral, dann"):
            package.get("xyz")

    def test_a_component_that_cannot_be_imported_is_heard_of_each_time(
        self, package: Registry[int], tmp_path: Path
    ) -> None:
        (tmp_path / "plugs" / "broken.py").write_text("import a_module_that_is_not_there")
        for _ in range(2):
            with pytest.raises(ModuleNotFoundError):
                package.names()

    def test_a_name_taken_twice_is_a_mistake_in_the_code(self) -> None:
        registry: Registry[int] = Registry("plug", "plugs")
        registry.add("a", 1)
        with pytest.raises(ValueError, match="'a' is registered twice"):
            registry.register("a")(2)


class TestNearest:
    def test_says_nothing_where_nothing_is_known(self) -> None:
        assert nearest("a", []) == ""

    def test_does_not_guess_wildly(self) -> None:
        assert "did you mean" not in nearest("zzz", ["coral", "dann"])
