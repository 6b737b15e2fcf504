"""Source code taken out of its modules: a component and all that it stands on, to be read and run without raytl.

A loss, an augmentation or an architecture is one file of plain PyTorch; a script that trains with it holds the very
lines that the search ran, plugins' included. What only registers or types a component is left behind.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import ModuleType
from typing import Any

from raytl.core.errors import UserError

VIEWS = "Views"
"""The one type of raytl's that a script has as well, and may name."""
_PYTHONS = ("dataclass", "staticmethod", "classmethod", "property", "contextmanager", "torch.no_grad")


class Lifted:
    """What was lifted so far: the imports it needs and the definitions, each after what it uses.

    instead: definitions to put in the place of named ones (a base class that knows the registry).
    """

    def __init__(self, instead: Mapping[str, str] | None = None) -> None:
        self._instead = dict(instead or {})
        self._known: set[tuple[str, str]] = set()
        self.imports: set[str] = set()
        self.definitions: list[str] = []

    def add(self, thing: Callable[..., Any]) -> str:
        """Lift a function or a class; its name. Raises UserError where its source is not to be had."""
        self._lift(inspect.getmodule(thing), thing.__name__)
        return thing.__name__

    def _lift(self, module: ModuleType | None, name: str) -> None:
        if module is None:
            raise UserError(f"'{name}' was not defined in a file, so that no script can be written with it")
        key = (module.__name__, name)
        if key in self._known:
            return
        self._known.add(key)
        if name in self._instead:
            self._definition(module, self._instead[name], ast.parse(self._instead[name]).body[-1])
            return
        node = _definitions(module).get(name)
        if node is None and name in _imports(module):  # a package that shows what its modules define
            self._need(module, name)
            return
        if node is None:
            raise UserError(f"{module.__name__}: no definition of '{name}' is found to write a script with")
        self._definition(module, _source(module, node), node)

    def _definition(self, module: ModuleType, text: str, node: ast.AST) -> None:
        for used in sorted(_used(node)):
            self._need(module, used)
        for named in sorted(_in_annotations(node)):
            if not _own(module, named) and named in _imports(module):
                self.imports.add(ast.unparse(_imports(module)[named]))
        if "Any" in text:
            self.imports.add("from typing import Any")
        if text not in self.definitions:  # a constant may be assigned together with another
            self.definitions.append(text)

    def _need(self, module: ModuleType, name: str) -> None:
        """Whatever a name means in a module: an import stays one, what is raytl's own is lifted as well."""
        statement = _imports(module).get(name)
        if statement is None:
            if name in _definitions(module):
                self._lift(module, name)
        elif _own(module, name):
            self._lift(sys.modules[str(getattr(statement, "module", ""))], name)
        else:
            self.imports.add(ast.unparse(statement))


def _own(module: ModuleType, name: str) -> bool:
    """Whether a module takes a name from raytl or from its own package, which a script is to do without."""
    statement = _imports(module).get(name)
    source = statement.module if isinstance(statement, ast.ImportFrom) else None
    return source is not None and source.partition(".")[0] in ("raytl", module.__name__.partition(".")[0])


def _used(node: ast.AST) -> set[str]:
    """Names that a definition needs when it runs; annotations and decorators of a registry are not run."""
    found: set[str] = set()
    for child in _running(node):
        if isinstance(child, ast.Name):
            found.add(child.id)
    return found


def _in_annotations(node: ast.AST) -> set[str]:
    annotated = (getattr(child, field, None) for child in ast.walk(node) for field in ("annotation", "returns"))
    return {name.id for found in annotated if found for name in ast.walk(found) if isinstance(name, ast.Name)}


def _running(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        children = value if isinstance(value, list) else [value]
        for child in children:
            if name == "decorator_list" and not _kept(child):
                continue
            if isinstance(child, ast.AST):
                yield from _running(child)


def _kept(decorator: ast.expr) -> bool:
    """Whether a decorator is Python's own: raytl's register what they decorate."""
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(target) in _PYTHONS


def _source(module: ModuleType, node: ast.stmt) -> str:
    """A definition as it is written, without what registers it; what types it by raytl's names is ``Any``."""
    lines = [line.encode() for line in _text(module).splitlines()]
    found = [getattr(child, field, None) for child in ast.walk(node) for field in ("annotation", "returns")]
    annotations = [each for each in found if each is not None and each.lineno == each.end_lineno]
    for each in sorted(annotations, key=lambda each: (each.lineno, each.col_offset), reverse=True):
        names = {name.id for name in ast.walk(each) if isinstance(name, ast.Name)} - {VIEWS}
        if any(_own(module, name) or name in _definitions(module) for name in names):
            line = lines[each.lineno - 1]
            lines[each.lineno - 1] = line[: each.col_offset] + b"Any" + line[each.end_col_offset :]
    kept = [f"@{ast.unparse(decorator)}" for decorator in getattr(node, "decorator_list", []) if _kept(decorator)]
    return "\n".join([*kept, *(line.decode() for line in lines[node.lineno - 1 : node.end_lineno])])


@cache
def _text(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):
        raise UserError(f"the source of {module.__name__} is not to be had, so that no script can be written") from None


@cache
def _definitions(module: ModuleType) -> dict[str, ast.stmt]:
    """Functions, classes and constants of a module by name."""
    found: dict[str, ast.stmt] = {}
    for node in ast.parse(_text(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {each.id: node for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    return found


@cache
def _imports(module: ModuleType) -> dict[str, ast.Import | ast.ImportFrom]:
    """The import of each imported name, by itself."""
    found: dict[str, ast.Import | ast.ImportFrom] = {}
    for node in ast.parse(_text(module)).body:
        if isinstance(node, ast.Import):
            found |= {(a.asname or a.name).partition(".")[0]: ast.Import([a]) for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: ast.ImportFrom(node.module, [a], 0) for a in node.names}
    return found
