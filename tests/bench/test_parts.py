"""What needs no database: options, figures, text."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command

from django_taskq import envelope, registry
from django_taskq.bench import processes, report, tally
from django_taskq.bench.depots import targets
from django_taskq.bench.depots.base import envelopes
from django_taskq.bench.plan import Figure, Plan
from django_taskq.bench.scratch import Scratch
from django_taskq.conf_brokers import BrokerConfig


def test_projects_do_not_see_it() -> None:
    assert not apps.is_installed("django_taskq.bench")
    assert registry.find("django_taskq.bench.noop") is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "enqueue,drian"), "there is no part 'drian'"),
        (("--runs", "0"), "at least 1"),
        (("--history", "-5"), "'-5' is not a whole number"),
        (("--broker", "reddis://:secret@localhost"), "a URL whose scheme a broker speaks"),
        (("--broker", "database://"), "measured anyway"),
        (("--broker", "memory://"), "workers could not reach it"),
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


def test_brokers_have_sections_that_say_what_stands_beside() -> None:
    drain = Figure("drain", "runs/s", [100.0], [400.0], "a script").to_json()
    wall = Figure("drain, by the wall clock", "runs/s", [50.0]).to_json()
    section = {"settings": {"broker": "redis://h/1"}, "figures": {"drain": drain, "drain_wall": wall}, "losses": {}}
    text = report.as_text({"settings": {"runs": 1}, "figures": {}, "losses": {}, "brokers": [section]})
    assert text.endswith(
        "\n\n\n"
        "broker  redis://h/1\n"
        "\n"
        "                          django_taskq  beside it  ratio  unit    min-max  what stands beside it\n"
        "drain                            100.0      400.0   0.25  runs/s           a script\n"
        "drain, by the wall clock          50.0                    runs/s"
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://:pa@ss@host:1/2?password=x", "redis://host:1/2"),
        ("amqp://me:secret@one//;amqp://me:secret@two//", "amqp://one//;amqp://two//"),
        ("unix:///run/redis.sock?db=3", "unix:///run/redis.sock"),
    ],
)
def test_no_password_is_shown(url: str, expected: str) -> None:
    assert targets.shown(url) == expected


def test_the_project_s_brokers_are_measured_where_none_is_named(settings: Any) -> None:
    settings.TASKQ = {"BROKERS": {"fast": {"URL": "redis://h/1", "PREFIX": "mine", "OPTIONS": {"socket_timeout": 9}}}}
    (target,) = targets.targets([])
    assert (target.alias, target.config.alias, target.config.url) == ("fast", "default", "redis://h/1")
    assert target.config.options == {"socket_timeout": 9}
    assert target.config.prefix.startswith("taskqbench")
    one, other = targets.targets(["redis://a/0", "redis://a/0"])
    assert one.alias is None
    assert one.config.prefix != other.config.prefix
    settings.TASKQ = {}
    assert targets.targets([]) == []


def test_each_section_has_settings_of_its_own(tmp_path: Path) -> None:
    scratch = Scratch("tests.settings", "default", "scratch", tmp_path)
    target = targets.Target(BrokerConfig("default", "redis://:secret@h/1", "taskqbenchx"), None)
    found = []
    for environment in (scratch.environment(), scratch.environment(target)):
        assert "secret" not in str(environment)
        space: dict[str, Any] = {}
        exec((tmp_path / f"{environment['DJANGO_SETTINGS_MODULE']}.py").read_text(), space)
        found.append(space["TASKQ"])
    plain, redis = found
    assert plain == {"BROKER_URL": "database://", "QUEUES": [], "EAGER": False}
    broker = {"URL": "redis://:secret@h/1", "PREFIX": "taskqbenchx", "OPTIONS": {}}
    assert redis == {"BROKERS": {"default": broker}, "QUEUES": [], "EAGER": False, "ENQUEUE_TIMEOUT": 60}


def test_runs_without_rows_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tally.read(tmp_path) == (0, 0.0)
    monkeypatch.setenv(tally.VARIABLE, str(tmp_path))

    def run() -> None:
        for _ in range(3):
            tally.note()
            time.sleep(0.01)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = tally.read(tmp_path)
    assert found.runs == 6
    assert 0.02 <= found.seconds < 5
    assert len(list(tmp_path.iterdir())) == 2


def test_raw_messages_are_those_of_the_no_op() -> None:
    first, second = (envelope.loads(text) for text in envelopes(2))
    assert (first.delivery.name, first.delivery.payload) == ("django_taskq.bench.noop", "[[0],{}]")
    assert first.delivery.id != second.delivery.id


def test_what_a_process_uses_is_seen() -> None:
    pids = processes.tree(os.getpid())
    assert pids[0] == os.getpid()
    before, until = processes.cpu_seconds(pids), time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert 0.05 < processes.cpu_seconds(pids) - before < 1
    assert processes.pss_megabytes(pids) > 5
