"""Sizes, names, SQL, settings and safe strings of the package; sleeping in unit tests."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.architecture import sources
from tests.architecture.package import Package

Rule = Callable[[Package], Iterator[str]]

BAD = {
    "a long module": (sources.modules_are_short, {"client.py": "x = 1\n" * 351}, "client.py has 351 lines"),
    "a long method": (
        sources.functions_fit_a_screen,
        {"client.py": "class A:\n    def f():\n" + "        x = 1\n" * 60},
        "client.py:A.f has 61 lines",
    ),
    "utils.py": (sources.no_shapeless_names, {"worker/utils.py": ""}, "worker/utils.py"),
    "helpers/": (sources.no_shapeless_names, {"helpers/__init__.py": ""}, "helpers/__init__.py"),
    "a cursor": (
        sources.sql_is_written_in_dialects,
        {"client.py": "def f(cursor):\n    cursor.execute('x')"},
        "client.py:2 sends SQL",
    ),
    "a cursor made on the way": (
        sources.sql_is_written_in_dialects,
        {"client.py": "def f(c):\n    c.cursor().executemany('x', [])"},
        "client.py:2 sends SQL",
    ),
    "raw()": (sources.sql_is_written_in_dialects, {"client.py": "Row.objects.raw('x')"}, "client.py:1 uses raw()"),
    "an f-string": (sources.sql_is_not_formatted, {"client.py": "q = f'SELECT * FROM {x}'"}, "client.py:1"),
    "percent": (sources.sql_is_not_formatted, {"client.py": "q = 'DELETE FROM %s' % x"}, "client.py:1"),
    "format": (sources.sql_is_not_formatted, {"client.py": "q = 'UPDATE {} SET a = 1'.format(x)"}, "client.py:1"),
    "mark_safe": (
        sources.no_mark_safe,
        {"admin/__init__.py": "from django.utils.safestring import mark_safe as ok"},
        "admin/__init__.py:1 uses mark_safe",
    ),
    "|safe": (sources.no_mark_safe, {"templates/a.html": "{{ result|safe }}"}, "templates/a.html uses |safe"),
    "settings in a class": (
        sources.no_settings_read_at_import,
        {"client.py": "from django.conf import settings as s\nclass A:\n    x = s.USE_TZ"},
        "client.py:3",
    ),
    "settings in a default": (
        sources.no_settings_read_at_import,
        {"client.py": "from django_taskq.conf import get_settings\ndef f(x=get_settings().grace): ..."},
        "client.py:2",
    ),
}

GOOD = {
    "brokers/database/sqlite.py": "def f(cursor):\n    cursor.execute(f'SELECT * FROM {x}')",
    "client.py": """
        from django.conf import settings
        from django_taskq.conf import get_settings
        owner = ForeignKey(settings.AUTH_USER_MODEL)
        connect(get_settings)
        def f():
            executor.execute(settings.USE_TZ)
            return f"SELECTED {get_settings().grace}"
        """,
}


@pytest.mark.parametrize("rule", sources.RULES)
def test_the_package_keeps(rule: Rule, package: Package) -> None:
    violations = list(rule(package))
    assert not violations, "\n".join(violations)


@pytest.mark.parametrize(("rule", "files", "named"), BAD.values(), ids=BAD.keys())
def test_a_violation_is_seen(rule: Rule, files: dict[str, str], named: str, make_package: Callable) -> None:
    found = list(rule(make_package(files)))
    assert len(found) == 1
    assert named in found[0]


def test_every_rule_is_tried() -> None:
    assert {rule for rule, _, _ in BAD.values()} == set(sources.RULES)


@pytest.mark.parametrize("rule", sources.RULES)
def test_a_sound_package_passes(rule: Rule, make_package: Callable) -> None:
    assert list(rule(make_package(GOOD))) == []


def test_an_exception_wants_a_reason_and_a_need(make_package: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    package = make_package({"client.py": "x = 1\n" * 351, "result.py": ""})
    monkeypatch.setattr(sources, "LONG_MODULES", {"client.py": "", "result.py": "it was long once"})
    unexplained, unneeded = sources.modules_are_short(package)
    assert "client.py has 351 lines" in unexplained
    assert "result.py is no longer too long" in unneeded


def sleeps(directory: Path) -> list[str]:
    """Where tests below the directory sleep: ``time.sleep`` by any name it is imported under, and asyncio's."""
    found = []
    for path in sorted(directory.rglob("*.py")):
        tree = ast.parse(path.read_text(), str(path))
        for node in ast.walk(tree):
            call = isinstance(node, ast.Attribute) and node.attr == "sleep"
            name = isinstance(node, ast.ImportFrom) and "sleep" in [alias.name for alias in node.names]
            if call or name:
                found.append(f"{path.relative_to(directory)}:{node.lineno}")
    return found


def test_unit_tests_do_not_sleep() -> None:
    assert sleeps(Path(__file__).parent.parent / "unit") == []


def test_sleeping_is_seen(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("import time\ntime.sleep(1)\n")
    (tmp_path / "test_b.py").write_text("from time import sleep\n")
    assert sleeps(tmp_path) == ["test_a.py:2", "test_b.py:1"]
