"""The Python of every page runs, in its order, against a project's database."""

from __future__ import annotations

import ast
import doctest
import inspect
import io
import logging
import logging.config
import unittest
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings
from django.utils.module_loading import import_string

from django_taskq import checks, conf, maintenance
from django_taskq.status import Status
from django_taskq.worker import eager
from django_taskq.worker.log import _TaskRecordFactory
from tests.docs import pages
from tests.docs.pages import Block

# The quickstart is followed to the letter in test_quickstart.py.
RUN_HERE = [page for page in pages.PAGES if page.name != "quickstart.md"]
WITH_CODE = [page for page in RUN_HERE if {"python", "pycon"} & {block.language for block in pages.blocks(page)}]

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page: Path, module: ModuleType) -> None:
    namespace = vars(module)
    for block in pages.blocks(page):
        if block.language == "python" and block.is_settings:
            check_settings(block)
        elif block.language == "python":
            run(block, namespace)
            run_test_cases(block, namespace)
        elif block.language == "pycon":
            check_session(block, namespace)
        work()


def work() -> None:
    """What a worker does between two blocks: run everything that could run now, and what that lets go."""
    ready = maintenance.records().filter(status=Status.READY).order_by("pk")
    while ids := [str(pk) for pk in ready.values_list("pk", flat=True)]:
        eager.run(ids)


def run(block: Block, namespace: dict[str, Any]) -> None:
    # Padded, so that tracebacks show the line of the page.
    source = "\n" * (block.line - 1) + block.text
    code = compile(source, str(block.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    with redirect_stdout(io.StringIO()):
        if not code.co_flags & inspect.CO_COROUTINE:
            exec(code, namespace)
            return

        async def main() -> None:
            await eval(code, namespace)

        async_to_sync(main)()


def run_test_cases(block: Block, namespace: dict[str, Any]) -> None:
    for name, found in list(namespace.items()):
        if not (isinstance(found, type) and issubclass(found, unittest.TestCase) and f"class {name}(" in block.text):
            continue
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(found)
        result = unittest.TextTestRunner(stream=io.StringIO()).run(suite)
        assert result.testsRun, f"{block.where}: {name} has no tests"
        assert result.wasSuccessful(), f"{block.where}: {name}: {result.errors} {result.failures}"


def check_session(block: Block, namespace: dict[str, Any]) -> None:
    """A session in the shell gives what the page shows."""
    examples = doctest.DocTestParser().get_examples(block.text)
    assert examples, f"{block.where} is no session"
    test = doctest.DocTest(examples, namespace, block.where, str(block.page), block.line, block.text)
    said = io.StringIO()
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.write, clear_globs=False)
    assert not result.failed, said.getvalue()
    namespace.update(test.globs)
    for example in examples:
        if example.exc_msg:
            # The flag that lets the module's name differ lets the message differ as well, so it is held up here.
            check_error(block, example, namespace)


def check_error(block: Block, example: doctest.Example, namespace: dict[str, Any]) -> None:
    path, _, expected = (example.exc_msg or "").strip().partition(": ")
    with pytest.raises(BaseException) as caught:
        exec(example.source, namespace)
    assert type(caught.value).__name__ == path.rpartition(".")[2], block.where
    if "." in path:
        assert type(caught.value) is import_string(path), block.where
    shown = expected.split("\n")[0]
    assert doctest.OutputChecker().check_output(f"{shown}\n", f"{caught.value}\n", FLAGS), (
        f"{block.where} shows:\n{shown}\nand the message is:\n{caught.value}"
    )


def check_settings(block: Block) -> None:
    """Settings that a page shows are sound, by the package's own judgement."""
    given: dict[str, Any] = {"INSTALLED_APPS": [], "DATABASES": {"default": {}}}
    exec(compile("\n" * (block.line - 1) + block.text, str(block.page), "exec"), given)
    with override_settings(TASKQ=given.get("TASKQ", {})):
        assert conf.problems() == [], block.where
    for router in given.get("DATABASE_ROUTERS", []):
        import_string(router)
    shown, recommended = given["DATABASES"]["default"], ast.literal_eval(f"{{{checks.SQLITE_OPTIONS}}}")
    assert shown in ({}, recommended), f"{block.where}: not what the checks recommend"
    if "LOGGING" in given:
        check_logging(given["LOGGING"])


def check_logging(config: dict[str, Any]) -> None:
    """Every formatter formats a record that comes from a worker, and one that does not."""
    configurator: Any = logging.config.DictConfigurator(config)
    for formatter in configurator.config["formatters"].values():
        made = configurator.configure_formatter(formatter)
        plain = logging.LogRecord
        for factory in (plain, _TaskRecordFactory(plain)):
            assert "hello" in made.format(factory("x", logging.INFO, "x.py", 1, "hello", (), None))
