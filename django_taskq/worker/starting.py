"""How worker processes are started: a fork server with Django preloaded, or ``spawn`` where that is not safe."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from types import ModuleType
from typing import Any

from django_taskq.conf_workers import FORKSERVER, SPAWN

logger = logging.getLogger("django_taskq")

# What a spawned process does first. Not a function of ours: whoever unpickles one imports its module, and with it our
# models, for which Django has to be set up; and all of it finds the standard library as it is by then.
_BEGIN = """
import django, pickle
django.setup()
target, plan = pickle.loads(job)
target(plan, *pipes)
"""
# asyncio's C module knows one running loop for each thread of the system, and all greenlets of a process are one: while
# a loop waits in one of them the others could neither run theirs nor make queries. The same in Python asks gevent.
_PATCH = """
import sys
from gevent import monkey
monkey.patch_all()
sys.modules["_asyncio"] = None
"""


@dataclass(frozen=True, slots=True)
class StartMethod:
    """A multiprocessing context, ready to start children. ``patches`` is for gevent."""

    context: Any
    patches: bool = False

    def spawn(self, target: Callable[..., None], args: tuple[Any, ...]) -> Any:
        """Start a child that runs ``target``. Not daemonic: tasks may start processes of their own.

        The first of ``args`` is a plan; the others are ends of pipes.
        """
        if self.context.get_start_method() == SPAWN:
            plan, *pipes = args
            begin = _PATCH + _BEGIN if self.patches else _BEGIN
            target, args = exec, (begin, {"job": pickle.dumps((target, plan)), "pipes": pipes})
        process = self.context.Process(target=target, args=args, daemon=False)
        with _without_main(), _import_path_in_environment():
            process.start()  # which starts a new fork server where the old one has died
        return process


def choose(method: str | None = None, *, patches: bool = False) -> StartMethod:
    """The fork server, started now so that it loads Django while the caller goes on; ``spawn`` when it must be.

    With ``method`` it is that one. ``patches``: children have gevent's patches before they load anything.
    """
    if patches or method == SPAWN or FORKSERVER not in multiprocessing.get_all_start_methods():
        return StartMethod(multiprocessing.get_context(SPAWN), patches)
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others and method is None:
        logger.warning(
            "importing this project starts threads (%s), so processes are spawned instead of forked: "
            "slower to start, and no memory is shared",
            ", ".join(others),
        )
        return StartMethod(multiprocessing.get_context(SPAWN))
    context = multiprocessing.get_context(FORKSERVER)
    context.set_forkserver_preload(["django_taskq.worker.preload"])
    with _without_main(), _import_path_in_environment():
        forkserver.ensure_running()
    return StartMethod(context)


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide ``__main__``: multiprocessing would run ``manage.py`` again in every child, as ``__mp_main__``."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _import_path_in_environment() -> Iterator[None]:
    """Python 3.11's fork server ignores the ``sys.path`` it is sent, and its preloading then fails without a word."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
