"""Rules on the text of the package: sizes, names, SQL, settings. Each rule yields one line for each violation.

An exception is an entry in one of the tables below, with its reason; an entry that is no longer needed is a violation.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.architecture.package import Module, Package

MODULE_LINES = 350
FUNCTION_LINES = 60
SHAPELESS_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}

# "models/task.py": "why it is one module all the same"
LONG_MODULES: dict[str, str] = {}
# "worker/courier.py:Courier.run": "why it is one function all the same"
LONG_FUNCTIONS: dict[str, str] = {}
# Where SQL may be written: directories end in a slash.
WRITTEN_SQL: dict[str, str] = {
    "brokers/database/": "the dialects, which are for exactly this",
    "migrations/": "storage parameters and partial indexes that Django's operations do not know",
    "bench/": "the benchmark's raw limit is the same store without Django",
}

SQL = re.compile(
    r"\s*(SELECT\s|INSERT\s+INTO\s|UPDATE\s+\S+\s+SET\s|DELETE\s+FROM\s|WITH\s+\w+\s+AS\s|PRAGMA\s|LISTEN\s|NOTIFY\s)"
)


def modules_are_short(package: Package) -> Iterator[str]:
    sizes = {_path(module): len(module.source.splitlines()) for module in package if not _is_migration(module)}
    yield from _over("lines", sizes, MODULE_LINES, LONG_MODULES)


def functions_fit_a_screen(package: Package) -> Iterator[str]:
    sizes = {}
    for module in package:
        for name, node in _functions(module.tree):
            sizes[f"{_path(module)}:{name}"] = (node.end_lineno or node.lineno) - node.lineno + 1
    yield from _over("lines", sizes, FUNCTION_LINES, LONG_FUNCTIONS)


def no_shapeless_names(package: Package) -> Iterator[str]:
    for module in package:
        if module.name.rpartition(".")[2] in SHAPELESS_NAMES:
            yield f"{module.at(1)} is named after nothing: say what it holds"


def sql_is_written_in_dialects(package: Package) -> Iterator[str]:
    """A cursor's ``execute`` and the ORM's ``raw``; ``executor.execute`` and ``super().execute`` are something else."""
    for module, node in _outside_sql(package):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        receiver = node.func.value
        owner = getattr(receiver, "attr", getattr(receiver, "id", getattr(getattr(receiver, "func", None), "id", "")))
        if node.func.attr in {"execute", "executemany"} and owner not in {"executor", "super"}:
            yield f"{module.at(node.lineno)} sends SQL ({owner}.{node.func.attr}): that belongs into a dialect"
        elif node.func.attr == "raw" and node.args:
            yield f"{module.at(node.lineno)} uses raw(): that belongs into a dialect"


def sql_is_not_formatted(package: Package) -> Iterator[str]:
    """f-strings, ``%`` and ``format`` on text that starts like SQL; values belong into parameters."""
    for module, node in _outside_sql(package):
        text: ast.AST | None = None
        if isinstance(node, ast.JoinedStr) and node.values:
            text = node.values[0]
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.Add):
            text = node.left
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "format":
            text = getattr(node.func, "value", None)
        if isinstance(text, ast.Constant) and isinstance(text.value, str) and SQL.match(text.value):
            yield f"{module.at(text.lineno)} puts SQL together from text"


def no_mark_safe(package: Package) -> Iterator[str]:
    """Nothing that a task can influence may be declared safe, so nothing is: templates and format_html escape."""
    for module in package:
        for node in ast.walk(module.tree):
            name = node.name if isinstance(node, ast.alias) else getattr(node, "attr", getattr(node, "id", ""))
            if name in {"mark_safe", "SafeString", "SafeText"}:
                yield f"{module.at(getattr(node, 'lineno', 1))} uses {name}"
    for path in sorted(package.root.rglob("*.html")):
        for word in ("|safe", "autoescape off"):
            if word in path.read_text():
                yield f"{path.relative_to(package.root.parent)} uses {word}"


def no_settings_read_at_import(package: Package) -> Iterator[str]:
    """They may not be configured yet, and ``override_settings`` would not be seen."""
    for module in package:
        aliases = {"get_settings"}
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and node.module == "django.conf":
                aliases |= {alias.asname or alias.name for alias in node.names if alias.name == "settings"}
        for node in _run_at_import(module.tree):
            if isinstance(node, ast.Attribute) and node.attr == "AUTH_USER_MODEL":
                continue  # Django's own way to a foreign key to the user
            uses = [child.id for child in ast.iter_child_nodes(node) if isinstance(child, ast.Name)]
            # Decorating, aliasing or connecting get_settings reads nothing; calling it does.
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if called == "get_settings" or set(uses) & (aliases - {"get_settings"}):
                yield f"{module.at(getattr(node, 'lineno', 1))} reads settings when it is imported"


def _path(module: Module) -> str:
    return module.path.relative_to(module.package.root).as_posix()


def _is_migration(module: Module) -> bool:
    return module.name.startswith("migrations.")


def _over(unit: str, sizes: dict[str, int], limit: int, exceptions: dict[str, str]) -> Iterator[str]:
    for name, size in sizes.items():
        if size > limit and not exceptions.get(name):
            yield f"{name} has {size} {unit}, more than {limit}: divide it, or enter the reason why not"
    for name in exceptions:
        if sizes.get(name, 0) <= limit:
            yield f"{name} is no longer too long: take it out of the exceptions"


def _functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{node.name}", node
        inner = f"{prefix}{node.name}." if isinstance(node, ast.ClassDef) else prefix
        yield from _functions(node, inner)


def _outside_sql(package: Package) -> Iterator[tuple[Module, ast.AST]]:
    for module in package:
        if not _path(module).startswith(tuple(WRITTEN_SQL)):
            for node in ast.walk(module.tree):
                yield module, node


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that is evaluated by importing the module: not the bodies of functions, but their defaults."""
    yield node
    children: list[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        children = [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
    elif isinstance(node, ast.Lambda):
        children = []
    for child in children:
        yield from _run_at_import(child)


RULES = [
    modules_are_short,
    functions_fit_a_screen,
    no_shapeless_names,
    sql_is_written_in_dialects,
    sql_is_not_formatted,
    no_mark_safe,
    no_settings_read_at_import,
]
