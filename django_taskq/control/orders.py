"""The commands as functions. All take ``by`` (who issues it: a user, whose permission is checked, or a text)."""

from __future__ import annotations

from typing import Any

from django.apps import apps

from django_taskq import client, conf, registry, signals
from django_taskq.control import catalogue
from django_taskq.control.issuing import TIMEOUT, Replies, issue
from django_taskq.exceptions import InvalidCommand, UnknownQueue


def ping(workers: Any = None, *, timeout: float = TIMEOUT, by: Any = None) -> Replies:
    """Who is there: pid, version, and seconds since the start."""
    return issue("ping", workers=workers, timeout=timeout, by=by)


def inspect(*what: str, workers: Any = None, timeout: float = TIMEOUT, by: Any = None) -> Replies:
    """What workers do and know: some of ``active``, ``reserved``, ``registered``, ``stats``, ``settings``, or all.

    Secrets in settings are masked; arguments of runs are not among it.
    """
    return issue("inspect", {"what": list(what or catalogue.INSPECTED)}, workers=workers, timeout=timeout, by=by)


def quiet(workers: Any = None, *, timeout: float = TIMEOUT, by: Any = None) -> Replies:
    """Fetch nothing more; what runs goes on."""
    return issue("quiet", workers=workers, timeout=timeout, by=by)


def work(workers: Any = None, *, timeout: float = TIMEOUT, by: Any = None) -> Replies:
    """Fetch again after :func:`quiet`."""
    return issue("work", workers=workers, timeout=timeout, by=by)


def restart(workers: Any = None, *, timeout: float = TIMEOUT, by: Any = None) -> Replies:
    """Replace every process, one after another, without a gap; the code is the one the worker was started with."""
    return issue("restart", workers=workers, timeout=timeout, by=by)


def shutdown(workers: Any = None, *, timeout: float = TIMEOUT, by: Any = None) -> Replies:
    """Stop in order, as SIGTERM does."""
    return issue("shutdown", workers=workers, timeout=timeout, by=by)


def dump_stacks(workers: Any = None, *, timeout: float = TIMEOUT, by: Any = None) -> Replies:
    """Log what every thread of every process is doing; the answer holds the supervisor's own."""
    return issue("dump_stacks", workers=workers, timeout=timeout, by=by)


def set_processes(number: int, *, workers: Any = None, timeout: float = TIMEOUT, by: Any = None) -> Replies:
    """So many worker processes from now on; those too many finish what they run."""
    return issue("set_processes", {"number": number}, workers=workers, timeout=timeout, by=by)


def set_threads(number: int, *, workers: Any = None, timeout: float = TIMEOUT, by: Any = None) -> Replies:
    """So many threads in each process from now on; processes are replaced for it one after another."""
    return issue("set_threads", {"number": number}, workers=workers, timeout=timeout, by=by)


def set_autoscale(least: int, most: int, *, workers: Any = None, timeout: float = TIMEOUT, by: Any = None) -> Replies:
    """Between so many processes, as the load asks for."""
    return issue("set_autoscale", {"least": least, "most": most}, workers=workers, timeout=timeout, by=by)


def add_consumer(queue_name: str, *, workers: Any = None, timeout: float = TIMEOUT, by: Any = None) -> Replies:
    """Serve this queue as well, until the worker is restarted."""
    client.check_queue(queue_name)
    return issue("add_consumer", {"queue_name": queue_name}, workers=workers, timeout=timeout, by=by)


def cancel_consumer(queue_name: str, *, workers: Any = None, timeout: float = TIMEOUT, by: Any = None) -> Replies:
    """Serve this queue no more, until the worker is restarted; other workers go on."""
    return issue("cancel_consumer", {"queue_name": queue_name}, workers=workers, timeout=timeout, by=by)


def pause_queue(queue_name: str, *, reason: str = "", timeout: float = TIMEOUT, by: Any = None) -> Replies:
    """Have nothing of this queue started, by any worker, until it is resumed; enqueueing goes on.

    Stored: it holds over restarts. Claims in the database respect it at once, workers on other brokers within a
    second. Raises :exc:`UnknownQueue`.
    """
    client.check_queue(queue_name)

    def effect(using: str, who: str) -> None:
        apps.get_model("django_taskq", "Queue").objects.using(using).pause(queue_name, by=who, reason=reason)

    found = issue("pause_queue", {"queue_name": queue_name, "reason": reason}, timeout=timeout, by=by, effect=effect)
    signals.send(signals.queue_paused, None, queue_name=queue_name, reason=reason, by=by)
    return found


def resume_queue(queue_name: str, *, timeout: float = TIMEOUT, by: Any = None) -> Replies:
    """End a pause. Raises :exc:`UnknownQueue` for a name that is neither a queue's nor paused."""
    using = conf.get_settings().database
    queues = apps.get_model("django_taskq", "Queue").objects.using(using)
    if queue_name not in client.known_queues() and not queues.filter(name=queue_name).exists():
        hint = conf.suggest(queue_name, client.known_queues())
        raise UnknownQueue(f"no queue is named {queue_name!r}, and none of that name is paused.{hint}")
    found = issue(
        "resume_queue",
        {"queue_name": queue_name},
        timeout=timeout,
        by=by,
        effect=lambda alias, who: queues.resume(queue_name),
    )
    signals.send(signals.queue_resumed, None, queue_name=queue_name, by=by)
    return found


def set_time_limits(
    task_name: str, *, soft: float | None = None, hard: float | None = None, timeout: float = TIMEOUT, by: Any = None
) -> Replies:
    """Time limits of a task, in seconds, instead of those of its options; with neither, its options hold again.

    For runs that start from then on; what a call sets itself goes before. Stored: it holds over restarts. Those of a
    task that is no more can be cleared. Raises :exc:`InvalidCommand`.
    """
    limits = apps.get_model("django_taskq", "TaskLimits").objects.using(conf.get_settings().database)
    is_left_over = soft is None and hard is None and limits.filter(task_name=task_name).exists()
    if registry.find(task_name) is None and not is_left_over:
        hint = conf.suggest(task_name, [task.name for task in registry.all_tasks()])
        raise InvalidCommand(f"no task is named {task_name[:100]!r}.{hint}")
    arguments = {"task_name": task_name, "soft": soft, "hard": hard}

    def effect(using: str, who: str) -> None:
        apps.get_model("django_taskq", "TaskLimits").objects.using(using).put(task_name, soft, hard, by=who)

    return issue("set_time_limits", arguments, timeout=timeout, by=by, effect=effect)
