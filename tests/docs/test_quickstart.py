"""The quickstart, done by a newcomer to the letter: a new project, a real worker, in a directory of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs.pages import DOCS, ROOT, Block

# They need a network or a person; what they lead to is tested elsewhere.
NOT_DONE = ("pip", "createsuperuser", "--runserver")

# A shell for one session of the page, checked as a doctest; names go on from one session to the next as in one shell.
SHELL = """
import doctest, os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
import django
django.setup()
said, kept = sys.argv[1:]
names = {}
if os.path.exists(kept):
    from orders.tasks import add
    names = {"add": add, "result": add.get_result(open(kept).read())}
examples = doctest.DocTestParser().get_examples(open(said).read())
test = doctest.DocTest(examples, names, said, said, 0, None)
result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, clear_globs=False)
open(kept, "w").write(test.globs["result"].id)
sys.exit(bool(result.failed or not result.attempted))
"""


def test_it_does_what_it_says(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    printed: dict[str, str] = {}
    for block in pages.blocks(DOCS / "quickstart.md"):
        if block.language == "console":
            for command in block.commands():
                printed[command] = run(command, tmp_path, environment)
        elif block.language == "python":
            write(block, tmp_path)
        elif block.language == "pycon":
            session(block, tmp_path, environment)
    assert "SUCCESSFUL" in printed["python manage.py taskq demo"].upper()
    assert "warning" not in printed["python manage.py taskworker"].replace("warning: DEBUG", "").replace(
        "warning: running as root", ""
    )


def run(command: str, directory: Path, environment: Mapping[str, str]) -> str:
    words = shlex.split(command)
    if set(words) & set(NOT_DONE):
        return ""
    if words[0] == "django-admin":
        words[:1] = [sys.executable, "-m", "django"]
    elif words[0] == "python":
        words[0] = sys.executable
    if words[-1] == "taskworker":
        words += ["--burst", "--processes", "1"]
    done = subprocess.run(
        words, cwd=directory, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def write(block: Block, directory: Path) -> None:
    assert block.file, f"{block.where} does not say into which file it goes"
    path = directory / block.file
    with path.open("a" if block.is_settings else "w") as file:
        file.write(f"\n{block.text}")


def session(block: Block, directory: Path, environment: Mapping[str, str]) -> None:
    said = directory / "session.txt"
    said.write_text(block.text)
    done = subprocess.run(
        [sys.executable, "-c", SHELL, str(said), str(directory / "result-id.txt")],
        cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{block.where}:\n{done.stdout}\n{done.stderr}"


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
