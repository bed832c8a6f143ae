"""What ``TASKS`` may say of an alias of ours, and how wrong settings are named."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.apps import apps
from django.core.checks import run_checks
from django.test import override_settings

from django_taskq import client, registry
from django_taskq.backend import aliases, framework
from tests.backend import tasks

BACKEND = "django_taskq.backend.TaskqBackend"


class Retryable(Exception):
    pass


def a_function() -> None: ...


def with_options(**options: Any) -> Any:
    return override_settings(TASKS={"default": {"BACKEND": BACKEND, "OPTIONS": options}})


def twin() -> Any:
    return registry.find("tests.backend.tasks.plus")


def messages() -> list[Any]:
    return [message for message in run_checks() if str(message.id).startswith("django_taskq.backend")]


class TestOptions:
    def test_are_defaults_of_the_tasks(self) -> None:
        options = registry.find("tests.backend.tasks.until").options
        assert (options.max_retries, options.time_limit, options.autoretry_for) == (2, 60, (OSError,))
        assert twin().options.max_retries == 3

    def test_follow_the_settings(self) -> None:
        paths = [f"{__name__}.Retryable", "django.db.utils.OperationalError"]
        with with_options(max_retries=7, soft_time_limit=5, retry_backoff=True, dont_autoretry_for=paths):
            options = twin().options
            assert (options.max_retries, options.soft_time_limit, options.retry_backoff) == (7, 5, True)
            assert options.dont_autoretry_for[0] is Retryable
            assert twin().retry_policy.max_retries == 7
        assert twin().options.max_retries == 3

    @pytest.mark.parametrize(
        ("option", "value", "said"),
        [
            ("max_retry", 1, 'Did you mean "max_retries"?'),
            ("queue_name", "x", "It belongs to the task"),
            ("nonsense", 1, "has no option 'nonsense'"),
            ("max_retries", -1, "a whole number of at least 0"),
            ("max_retries", "3", "a whole number of at least 0"),
            ("time_limit", 0, "a number of seconds above 0"),
            ("retry_jitter", 1, "True or False"),
            ("autoretry_for", [5], "dotted paths"),
            ("autoretry_for", ["OSError"], "dotted paths"),
        ],
    )
    def test_that_are_wrong(self, option: str, value: Any, said: str) -> None:
        with with_options(**{option: value}), pytest.raises(framework.InvalidTaskBackend) as caught:
            _ = framework.task_backends["default"]
        assert "TASKS['default']['OPTIONS']" in str(caught.value)
        assert repr(option) in str(caught.value)
        assert said in str(caught.value)

    def test_that_contradict_each_other(self) -> None:
        with (
            with_options(soft_time_limit=9, time_limit=5),
            pytest.raises(framework.InvalidTaskBackend, match=r"\['OPTIONS'\].*soft_time_limit"),
        ):
            _ = framework.task_backends["default"]

    @pytest.mark.parametrize("path", ["no.such.module", "os.path", "tests.backend.tasks.plus"])
    @pytest.mark.django_db(databases=["default", "other"])  # other checks ask
    def test_paths_are_for_the_check(self, path: str) -> None:
        with with_options(autoretry_for=[path]):
            (message,) = messages()
            assert message.id == "django_taskq.backend.E002"
            assert repr(path) in message.msg
            with pytest.raises(framework.InvalidTaskBackend, match="autoretry_for"):
                client.known_queues()  # which a worker asks for when it starts
        assert messages() == []

    def test_of_a_task(self) -> None:
        if not hasattr(tasks, "optioned"):
            with pytest.raises(TypeError):  # Django 6.0's own decorator
                tasks.task(max_retry=1)
            return
        for given, said in (({"max_retry": 1}, "Did you mean"), ({"bind": True}, "own @task"), ({"name": "x"}, "own")):
            with pytest.raises((framework.InvalidTask, TypeError), match=said):
                tasks.task(**given)(a_function)

    @pytest.mark.parametrize("bad", ["default", [1], ["a b"], 5])
    def test_queues(self, bad: Any) -> None:
        with (
            override_settings(TASKS={"default": {"BACKEND": BACKEND, "QUEUES": bad}}),
            pytest.raises((framework.InvalidTaskBackend), match=r"TASKS\['default'\]\['QUEUES'\]"),
        ):
            _ = framework.task_backends["default"]


def test_queues_follow_the_settings() -> None:
    with override_settings(TASKS={"x": {"BACKEND": BACKEND, "QUEUES": ["own-queue"]}}):
        assert "own-queue" in client.known_queues()
    assert "own-queue" not in client.known_queues()


def test_queues_of_other_backends_are_not_ours() -> None:
    dummy = type(framework.task_backends["other"])
    path = f"{dummy.__module__}.{dummy.__qualname__}"
    with override_settings(TASKS={"x": {"BACKEND": path, "QUEUES": ["theirs"]}, "y": {"BACKEND": "no.such"}}):
        assert "theirs" not in client.known_queues()


def test_an_instance_for_each_thread_is_cheap_and_alike() -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(framework.task_backends["default"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(backend) for backend in found}) == 8
    assert {frozenset(backend.queues) for backend in found} == {frozenset({"default", "framework"})}


class TestChecks:
    @pytest.mark.django_db(databases=["default", "other"])
    def test_the_test_project_is_sound(self) -> None:
        assert messages() == []

    def test_they_touch_no_database(self) -> None:
        """``django_db`` is not asked for, so a query would fail this test."""
        assert list(framework.task_backends["default"].check()) == []

    def test_the_app_has_to_be_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = framework.task_backends["default"]
        monkeypatch.setattr(apps, "is_installed", lambda name: name != "django_taskq")
        (message,) = backend.check()
        assert message.id == "django_taskq.backend.E001"
        assert "INSTALLED_APPS" in message.hint

    def test_so_has_the_backport(self, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = framework.task_backends["default"]
        monkeypatch.setattr(apps, "is_installed", lambda name: name != "django_tasks")
        found = [message.id for message in backend.check()]
        assert found == ([] if framework.IS_DJANGO_S_OWN else ["django_taskq.backend.W001"])


def test_an_alias_that_is_gone_has_no_options() -> None:
    assert aliases.get("nobody") == aliases.Alias("nobody")
