"""What needs no database: options, figures, text."""

from __future__ import annotations

import os
import time

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command

from django_taskq import registry
from django_taskq.bench import processes, report
from django_taskq.bench.plan import Figure, Plan


def test_projects_do_not_see_it() -> None:
    assert not apps.is_installed("django_taskq.bench")
    assert registry.find("django_taskq.bench.noop") is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "enqueue,drian"), "there is no part 'drian'"),
        (("--runs", "0"), "at least 1"),
        (("--history", "-5"), "'-5' is not a whole number"),
    ],
)
def test_bad_options_are_named(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        call_command("taskq", "bench", *arguments)


def test_a_plan_travels() -> None:
    plan = Plan(runs=7, only=("idle",))
    assert Plan.from_json(plan.to_json()) == plan


def test_a_figure_is_the_median() -> None:
    figure = Figure("drain", "runs/s", [30.0, 10.0, 20.0], [40.0]).to_json()
    assert (figure["value"], figure["raw"], figure["ratio"]) == (20.0, 40.0, 0.5)
    assert Figure("drain", "runs/s", [30.0]).to_json()["ratio"] is None


def test_the_text_is_aligned() -> None:
    figures = {
        "drain": Figure("drain", "runs/s", [12_345.0, 12_000.0, 13_000.0], [40_000.0]).to_json(),
        "idle": Figure("idle CPU", "% of a core", [0.5]).to_json(),
    }
    settings = {"runs": 20_000, "database settings": {"fsync": "on"}}
    text = report.as_text({"settings": settings, "figures": figures, "losses": {"drain": 0.25}})
    assert text == (
        "runs               20,000\n"
        "database settings  fsync=on\n"
        "\n"
        "          django_taskq  bare store  ratio  unit         min-max\n"
        "drain           12,345      40,000   0.31  runs/s       12,000-13,000\n"
        "idle CPU          0.50                     % of a core\n"
        "\n"
        "Beside history the drain loses 25 %."
    )


def test_what_a_process_uses_is_seen() -> None:
    pids = processes.tree(os.getpid())
    assert pids[0] == os.getpid()
    before, until = processes.cpu_seconds(pids), time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert 0.05 < processes.cpu_seconds(pids) - before < 1
    assert processes.pss_megabytes(pids) > 5
