"""``--pool``, ``--start-method`` and ``--log-format``: what goes together, and what is refused with a reason."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Mapping
from typing import Any

import pytest
from django.core.management.base import CommandError

from django_taskq import conf
from django_taskq.management import banner, worker_pools
from django_taskq.management.commands.taskworker import Command
from django_taskq.management.worker_arguments import parse
from django_taskq.worker import starting


def options(**given: Any) -> Any:
    nothing = vars(Command().create_parser("manage.py", "taskworker").parse_args([]))
    return parse(conf.get_settings(), nothing | given)


def test_the_command_line_is_stronger_than_the_settings(settings: Any) -> None:
    settings.TASKQ = {"POOL": "solo", "START_METHOD": "spawn", "LOG_FORMAT": "json"}
    assert (options().pool, options().log_format) == ("solo", "json")
    found = options(pool="processes", log_format="text")
    assert (found.pool, found.start_method, found.log_format) == ("processes", "spawn", "text")
    settings.TASKQ = {}
    assert (options().pool, options().start_method, options().log_format) == ("processes", None, "text")


def test_solo_is_one_at_a_time_whatever_the_settings_say(settings: Any) -> None:
    settings.TASKQ = {"PROCESSES": 4, "THREADS": 8, "COROUTINES": 9, "SLOTS": {"default": 3}, "MAX_TASKS_PER_CHILD": 5}
    found = options(pool="solo")
    (post,) = found.posts()
    assert (post.slots, found.max_tasks_per_child) == (1, None)
    assert "one at a time in this process" in banner._size(found)
    assert [text for text in banner.warnings(found) if text.startswith("solo: ") and "not enforced" in text]


def test_greenlets_are_threads(settings: Any) -> None:
    settings.TASKQ = {"COROUTINES": 9}
    found = options(pool="gevent", threads=50, processes=2)
    assert [post.slots for post in found.posts()] == [50, 50]
    assert banner._size(found) == "2 process(es) x 50 greenlet(s)"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"pool": "solo", "processes": 2}, "argument --processes: not with the solo pool"),
        ({"pool": "solo", "threads": 2}, "argument --threads: not with the solo pool"),
        ({"pool": "solo", "autoscale": "1,2"}, "argument --autoscale: not with the solo pool"),
        ({"pool": "solo", "max_tasks_per_child": 2}, "argument --max-tasks-per-child: not with the solo pool"),
        ({"pool": "solo", "start_method": "spawn"}, "argument --start-method: not with the solo pool"),
        ({"pool": "gevent"}, "such as --threads 50"),
        ({"pool": "gevent", "threads": 9, "coroutines": 2}, "argument --coroutines: not with the gevent pool"),
        ({"pool": "gevent", "threads": 9, "start_method": "forkserver"}, "processes of the gevent pool are spawned"),
    ],
    ids=[
        "solo-processes",
        "solo-threads",
        "solo-autoscale",
        "solo-max-tasks-per-child",
        "solo-start-method",
        "gevent-threads",
        "gevent-coroutines",
        "gevent-start-method",
    ],
)
def test_refusals(given: Mapping[str, Any], why: str) -> None:
    with pytest.raises(CommandError, match=re.escape(why)) as caught:
        options(**given)
    assert caught.value.returncode == 2


def test_without_gevent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pools, "find_spec", lambda name: None)
    with pytest.raises(CommandError, match=r"pip install 'django-kombu-taskq\[gevent\]'"):
        options(pool="gevent", threads=9)


def test_gevent_with_the_old_driver(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pools, "find_spec", lambda name: None if name == "psycopg" else object())
    monkeypatch.setitem(worker_pools.connections["other"].settings_dict, "ENGINE", "django.db.backends.postgresql")
    with pytest.raises(CommandError, match="gevent needs psycopg 3"):
        options(pool="gevent", threads=9)


def test_no_fork_server_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    with pytest.raises(CommandError, match="this system has no fork server"):
        options(start_method="forkserver")
    assert starting.choose().context.get_start_method() == "spawn"


def test_the_start_method_that_was_asked_for() -> None:
    assert starting.choose("spawn").context.get_start_method() == "spawn"
    assert starting.choose(patches=True).context.get_start_method() == "spawn"
