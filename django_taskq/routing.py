"""Where a call goes: what ``TASKQ["ROUTES"]`` says about it. The call's own options come before, the task's after."""

from __future__ import annotations

from typing import Any

from django.utils.module_loading import import_string

from django_taskq import conf
from django_taskq.conf_routes import Route, Rule, parse_route
from django_taskq.exceptions import EnqueueError


def find(task_name: str, args: Any, kwargs: Any) -> Route | None:
    """The first route that says something about this call, or None.

    Raises :exc:`EnqueueError` when a router fails or says what no route can say.
    """
    for rule in conf.get_settings().routes:
        if rule.router is not None:
            route = _ask(rule, task_name, args, kwargs)
            if route is not None:
                return route
        elif rule.matches(task_name):
            return rule.route
    return None


def _ask(rule: Rule, task_name: str, args: Any, kwargs: Any) -> Route | None:
    router: Any = import_string(rule.router) if isinstance(rule.router, str) else rule.router
    try:
        said = router(task_name, args, kwargs)
        return None if said is None else parse_route(said)
    except Exception as error:
        raise EnqueueError(f"the router {rule.router!r} in TASKQ['ROUTES'] failed for {task_name}: {error}") from error
