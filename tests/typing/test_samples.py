"""The types that users meet, by strict mypy: each sample has exactly the errors that its ``# E:`` comments say.

``# E: arg-type`` is an error of that code on that line, ``# E: Missing positional`` one whose message has that text;
two errors on one line are two such comments. A type that must be inferred is stated with ``assert_type``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("mypy", reason="mypy is not installed: make setup")
pytest.importorskip("mypy_django_plugin", reason="django-stubs, which the project's mypy uses, is not installed")

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = Path(__file__).with_name("samples")
UNEXPECTED = "unexpected.py"  # the one that does not have the errors it says

ERROR = re.compile(r"(?P<path>[^:]+):(?P<line>\d+): error: (?P<message>.*)  \[(?P<code>[\w-]+)\]")


class Reported(NamedTuple):
    file: str
    line: int
    message: str
    code: str


class Expected(NamedTuple):
    file: str
    line: int
    text: str

    def fits(self, error: Reported) -> bool:
        same_line = (self.file, self.line) == (error.file, error.line)
        return same_line and (self.text == error.code or self.text in error.message)


def expectations(file: str, source: str) -> list[Expected]:
    found = []
    for number, line in enumerate(source.splitlines(), 1):
        found += [Expected(file, number, text.strip()) for text in line.split("# E:")[1:]]
    return found


def differences(reported: Iterable[Reported], expected: Iterable[Expected]) -> list[str]:
    """A line for each error nobody expected and for each expected one that did not come."""
    missing, found = list(expected), []
    for error in reported:
        fitting = next((one for one in missing if one.fits(error)), None)
        if fitting:
            missing.remove(fitting)
        else:
            found.append(f"{error.file}:{error.line}: not expected: {error.message}  [{error.code}]")
    return found + [f"{one.file}:{one.line}: expected, but not reported: {one.text}" for one in missing]


def run_mypy() -> list[Reported]:
    """The errors in all samples. Strict, whatever the project's configuration becomes."""
    # Of the package only the types matter here; whether it has errors itself is for `make lint`.
    options = ["--strict", "--follow-imports=silent", "--cache-dir=.mypy_cache/samples"]
    plain = ["--no-pretty", "--no-error-summary", "--show-error-codes", "--no-color-output"]
    command = [sys.executable, "-m", "mypy", *options, *plain, str(SAMPLES.relative_to(ROOT))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, f"mypy ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    matches = [ERROR.fullmatch(line) for line in done.stdout.splitlines() if ": note: " not in line]
    assert all(matches), f"not understood:\n{done.stdout}"
    return [Reported(Path(m["path"]).name, int(m["line"]), m["message"], m["code"]) for m in matches if m]


def test_samples_have_the_errors_they_say_and_others_are_reported() -> None:
    # One test, so that mypy runs once: it takes some seconds.
    expected = [one for path in SAMPLES.glob("*.py") for one in expectations(path.name, path.read_text())]
    found = differences(run_mypy(), expected)
    wrong = [line for line in found if not line.startswith(UNEXPECTED)]
    assert not wrong, "\n".join(wrong)
    unexpected, missing = sorted(line for line in found if line.startswith(UNEXPECTED))
    assert unexpected.startswith(f"{UNEXPECTED}:11: not expected: Argument 1")
    assert missing == f"{UNEXPECTED}:12: expected, but not reported: arg-type"


def test_each_expectation_is_met_by_one_error() -> None:
    expected = expectations("a.py", "f(1)  # E: arg-type # E: Too many\n")
    error = Reported("a.py", 1, 'Argument 1 to "f" is wrong', "arg-type")
    assert differences([error, Reported("a.py", 1, 'Too many arguments for "f"', "call-arg")], expected) == []
    assert differences([error, error], expected) == [
        'a.py:1: not expected: Argument 1 to "f" is wrong  [arg-type]',
        "a.py:1: expected, but not reported: Too many",
    ]
    assert len(differences([error._replace(line=2)], expected)) == 3
