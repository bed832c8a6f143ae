"""Reading a package's source for the rules: its modules, and what imports what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path


class When(Enum):
    """When an import statement runs."""

    IMPORT = "at import"
    CALL = "in a function"
    NEVER = "for the type checker only"


@dataclass(frozen=True)
class Import:
    target: str  # the module it loads, dotted, relative to the package: "models.task"; "" is the package itself
    names: tuple[str, ...]  # what is taken from that module; empty when the module itself is imported
    line: int
    when: When
    function: str  # the innermost function it stands in, or ""


@dataclass(frozen=True)
class Module:
    package: Package
    path: Path

    @cached_property
    def name(self) -> str:
        """Dotted and relative to the package; "" is the package's own ``__init__``."""
        parts = self.path.relative_to(self.package.root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def source(self) -> str:
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, str(self.path))

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    def at(self, line: int) -> str:
        """``django_taskq/models/task.py:12``, for messages."""
        return f"{self.path.relative_to(self.package.root.parent)}:{line}"

    @cached_property
    def imports(self) -> list[Import]:
        """Its imports of its own package; others do not matter here."""
        return list(self._walk(self.tree, When.IMPORT, ""))

    def _walk(self, node: ast.AST, when: When, function: str) -> Iterator[Import]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from self._resolve(node, when, function)
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            for child in node.body:
                yield from self._walk(child, When.NEVER, function)
            for child in node.orelse:
                yield from self._walk(child, when, function)
        else:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                function = node.name
                when = when if when is When.NEVER else When.CALL
            for child in ast.iter_child_nodes(node):
                yield from self._walk(child, when, function)

    def _resolve(self, node: ast.Import | ast.ImportFrom, when: When, function: str) -> Iterator[Import]:
        root = self.package.root.name
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == root:
                    yield Import(alias.name.removeprefix(root).lstrip("."), (), node.lineno, when, function)
            return
        if node.level:
            here = [*self.name.split("."), ""] if self.is_package and self.name else self.name.split(".")
            parts = here[: len(here) - node.level]
            target = ".".join([*parts, *(node.module or "").split(".")]).strip(".")
        elif node.module and node.module.split(".")[0] == root:
            target = node.module.removeprefix(root).lstrip(".")
        else:
            return
        names = []
        for alias in node.names:
            submodule = f"{target}.{alias.name}".lstrip(".")
            if submodule in self.package.modules:
                yield Import(submodule, (), node.lineno, when, function)
            else:
                names.append(alias.name)
        if names:
            yield Import(target, tuple(names), node.lineno, when, function)


def _is_type_checking(test: ast.expr) -> bool:
    return (test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")) == "TYPE_CHECKING"


class Package:
    """All modules below a directory, by name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modules: dict[str, Module] = {}
        paths = sorted(path for path in root.rglob("*.py") if "__pycache__" not in path.parts)
        for module in (Module(self, path) for path in paths):
            self.modules[module.name] = module

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules.values())

    def graph(self) -> dict[str, set[str]]:
        """What each module imports when it is itself imported."""
        return {
            module.name: {i.target for i in module.imports if i.when is When.IMPORT and i.target in self.modules}
            for module in self
        }
