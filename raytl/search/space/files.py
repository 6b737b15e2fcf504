"""Search spaces on disk: YAML with errors that name file, line and key."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from raytl.core.errors import UserError, nearest

Lines = dict[tuple[str, ...], int | str]
"""Where each key path was given: the line of the file, or the assignment on the command line."""


_NO_UTF8 = re.compile(r"[\udc80-\udcff]")


class _Loader(yaml.SafeLoader):
    """YAML as people write it: ``1e-3`` is a number (as in YAML 1.2; PyYAML alone would take it for a word)."""

    def check_printable(self, data: str) -> None:
        """Raise ReaderError for control characters; bytes that are no UTF-8 are part of a file's name."""
        super().check_printable(_NO_UTF8.sub("", data))


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)


def find_space(name_or_path: str) -> Path:
    """The file of a shipped space's name, or the path itself. Raises UserError that names the nearest shipped one."""
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise UserError(f"{name_or_path}: no such search space file")
        return path
    shipped = {file.stem: file for file in _shipped()}
    if name_or_path not in shipped:
        raise UserError(f"unknown search space '{name_or_path}'{nearest(name_or_path, shipped)} (or give a .yaml file)")
    return shipped[name_or_path]


def shipped_spaces() -> list[str]:
    """Names of the spaces that come with raytl."""
    return sorted(file.stem for file in _shipped())


def read_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """A YAML mapping and the line (from 1) of every key path in it. Raises UserError with a syntax error's line."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_Loader)
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path.name} line {mark.line + 1}" if mark else path.name
        raise UserError(f"{where}: not valid YAML ({getattr(error, 'problem', None) or error})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path.name}: not a text file in UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path.name}: a search space is a mapping of keys to values")
    lines: Lines = {}
    _collect_lines(node, (), lines)
    return values, lines


def parse_assignment(text: str) -> tuple[tuple[str, ...], Any]:
    """``cut=[0, all]`` to (("cut",), [0, "all"]); the value is read as YAML. Raises UserError without a ``=``."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {text}: write key=value, for example --set adaptation=mcc")
    try:
        return tuple(key.strip().split(".")), yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        raise UserError(f"--set {text}: '{value}' is not a value that YAML can read") from None


def assignment_text(keys: Iterable[str], value: Any) -> str:
    """Inverse of :func:`parse_assignment`."""
    written = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True)
    return f"{'.'.join(keys)}={written.removesuffix('...' + chr(10)).strip()}"


def place(lines: Mapping[tuple[str, ...], int | str], file: str, path: Iterable[str]) -> str:
    """``demo.yaml line 14`` or ``--set cut=0`` for a key path; of the closest enclosing key where it was left out."""
    keys = tuple(path)
    while keys and keys not in lines:
        keys = keys[:-1]
    found = lines[keys] if keys else ""
    return found or file if isinstance(found, str) else f"{file} line {found}"


def _collect_lines(node: yaml.Node | None, path: tuple[str, ...], lines: Lines) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            lines[here] = key.start_mark.line + 1
            _collect_lines(value, here, lines)


def _shipped() -> list[Path]:
    """The YAML files beside the package: packed into the wheel, or at the top of a source checkout."""
    packed = Path(str(resources.files("raytl"))) / "_data" / "search_spaces"
    folder = packed if packed.is_dir() else Path(__file__).parents[3] / "search_spaces"
    return sorted(folder.glob("*.yaml"))
