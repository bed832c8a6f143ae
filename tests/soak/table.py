"""From pytest's report to a table of cases with their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from tests.soak.cases import Case


@dataclass(frozen=True, slots=True)
class Result:
    """One test: ``name`` as in a case, its parameters, ``passed``, ``failed`` or ``skipped``, and what it printed."""

    name: str
    parameters: str
    outcome: str
    seconds: float
    figures: tuple[str, ...]


def read(report: Element) -> list[Result]:
    """The results in a JUnit report."""
    found = []
    for test in report.iter("testcase"):
        # tests.faults.test_kill, and perhaps a class
        _, directory, module, *_ = test.get("classname", "...").split(".")
        function, _, parameters = test.get("name", "").partition("[")
        kinds = {child.tag for child in test}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        seconds = float(test.get("time", "0"))
        name = f"{directory}/{module}::{function}"
        found.append(Result(name, parameters.rstrip("]"), outcome, seconds, _printed(test)))
    return found


def _printed(test: Element) -> tuple[str, ...]:
    """The lines that are no frame around them."""
    lines = "\n".join(child.text or "" for child in test if child.tag == "system-out").splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("---"))


def show(cases: Sequence[Case], results: Mapping[str, Sequence[Result]]) -> tuple[str, bool]:
    """The table, and whether every case was tried somewhere and failed nowhere."""
    lines, is_good = [], True
    for case in cases:
        tried = False
        for database, found in results.items():
            mine = [result for result in found if result.name in case.tests and result.outcome != "skipped"]
            if not mine:
                continue
            tried = True
            failed = [result for result in mine if result.outcome == "failed"]
            is_good = is_good and not failed
            verdict = f"{len(failed)} of {len(mine)} FAILED" if failed else f"{len(mine)} passed"
            seconds = sum(result.seconds for result in mine)
            lines.append(f"{case.number}  {case.what:<46}  {database:<10}  {verdict:<14}  {seconds:6.0f} s")
            for result in mine:
                place = f"{result.parameters}: " if result.parameters else ""
                lines += [f"       {place}{figure}" for figure in result.figures]
                if result.outcome == "failed":
                    lines.append(f"       {place}FAILED {result.name}")
        if not tried:
            is_good = False
            lines.append(f"{case.number}  {case.what:<46}  NOT TRIED")
    return "\n".join(lines), is_good
