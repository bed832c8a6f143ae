"""The table of fault cases: its tests exist, and its verdict is right."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from tests.conftest import ROOT
from tests.soak.cases import CASES, Case
from tests.soak.table import read, show

REPORT = """<testsuites><testsuite>
<testcase classname="tests.faults.test_kill" name="test_poison[kill]" time="2.5">
<system-out>--- Captured Out ---
1000 of 1000
</system-out></testcase>
<testcase classname="tests.faults.test_kill.TestMore" name="test_poison[exit]" time="1"><failure>no</failure></testcase>
<testcase classname="tests.faults.test_sqlite" name="test_kill_in_commit" time="0"><skipped/></testcase>
</testsuite></testsuites>"""


def test_every_test_of_a_case_exists() -> None:
    assert len({case.number for case in CASES}) == len(CASES)
    for case in CASES:
        for test in case.tests:
            path, _, function = test.partition("::")
            source = (ROOT / "tests" / f"{path}.py").read_text()
            assert re.search(rf"^ *def {function}\(", source, re.MULTILINE), f"{case.number}: {test}"


def test_the_table_has_figures_and_says_what_failed() -> None:
    results = {"sqlite": read(ElementTree.fromstring(REPORT))}
    text, is_good = show([Case("F06", "poison", ("faults/test_kill::test_poison",))], results)
    assert not is_good
    assert "F06  poison" in text
    assert "1 of 2 FAILED" in text
    assert "kill: 1000 of 1000" in text
    assert "exit: FAILED faults/test_kill::test_poison" in text


def test_what_was_skipped_everywhere_was_not_tried() -> None:
    results = {"postgresql": read(ElementTree.fromstring(REPORT))}
    text, is_good = show([Case("F25", "kill", ("faults/test_sqlite::test_kill_in_commit",))], results)
    assert (text.split()[-2:], is_good) == (["NOT", "TRIED"], False)


def test_what_passed_is_good() -> None:
    results = {"sqlite": read(ElementTree.fromstring(REPORT))[:1]}
    assert show([Case("F06", "poison", ("faults/test_kill::test_poison",))], results)[1]
