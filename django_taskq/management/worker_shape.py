"""The options of ``taskworker`` that say how big it is and what it serves: slots by queue, autoscaling, load limits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_taskq import conf
from django_taskq.conf_brokers import LoadLimit
from django_taskq.conf_workers import (
    Autoscale,
    SlotGroup,
    parse_autoscale_text,
    parse_load_text,
    parse_slots_text,
    slot_groups,
)
from django_taskq.management import storage
from django_taskq.worker.fetcher import QueueOrder

# What says the same in another way.
EXCLUDES = {"slots": ("queues", "processes", "autoscale"), "autoscale": ("processes", "max_tasks")}


def add_to(parser: CommandParser) -> None:
    """Declare them."""
    group = parser.add_argument_group("size and load")
    group.add_argument(
        "--slots",
        metavar="QUEUE=N,...",
        help="Slots of their own for queues: 'mail=2,default+bulk=6'. Default: TASKQ['SLOTS'], or else all share.",
    )
    group.add_argument(
        "--autoscale",
        metavar="MIN,MAX",
        help="Have as many processes as the work asks for, within these bounds. Default: TASKQ['AUTOSCALE'].",
    )
    group.add_argument(
        "--max-load",
        action="append",
        metavar="QUEUE=cpu:P,memory:P",
        help="Fetch nothing from this queue while the host is busier, in percent; may be given several times. "
        "Default: 'max_cpu' and 'max_memory' of TASKQ['QUEUES'].",
    )


def parse(settings: conf.Settings, given: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The fields of ``WorkerOptions`` they decide. Raises ``CommandError``."""
    for option, others in EXCLUDES.items():
        for other in others:
            if given.get(option) and given.get(other):
                text = f"argument --{option}: not together with --{other.replace('_', '-')}, which says it otherwise"
                raise CommandError(text, returncode=storage.USAGE_EXIT)
    groups = _slots(settings, given, known)
    autoscale = None if groups else _autoscale(settings, given)
    if groups:
        order = QueueOrder(tuple(name for group in groups for name in group.names), rotate=True)
    else:
        order = _usable("queues", lambda: QueueOrder.parse(given["queues"], sorted(known)))
    return {
        "order": order,
        "processes": autoscale.minimum if autoscale else given["processes"] or settings.processes,
        "groups": groups,
        "autoscale": autoscale,
        "load_limits": _load_limits(settings, given, known),
    }


def _slots(settings: conf.Settings, given: Mapping[str, Any], known: Collection[str]) -> tuple[SlotGroup, ...]:
    text = given.get("slots")
    if text:
        slots: Mapping[str, int] = _usable("slots", lambda: parse_slots_text(text))
    else:
        slots = {} if any(given.get(other) for other in EXCLUDES["slots"]) else settings.slots
    groups = slot_groups(slots)
    _check_known(
        "argument --slots" if text else "TASKQ['SLOTS']", (name for group in groups for name in group.names), known
    )
    return groups


def _autoscale(settings: conf.Settings, given: Mapping[str, Any]) -> Autoscale | None:
    text = given.get("autoscale")
    if text:
        found: Autoscale | None = _usable("autoscale", lambda: parse_autoscale_text(text))
        return found
    return None if any(given.get(other) for other in EXCLUDES["autoscale"]) else settings.autoscale


def _load_limits(settings: conf.Settings, given: Mapping[str, Any], known: Collection[str]) -> dict[str, LoadLimit]:
    """By queue; what the command line says of a queue replaces what the settings do."""
    limits = {name: queue.load_limit for name, queue in settings.queues.items() if queue.load_limit != LoadLimit()}
    for text in given.get("max_load") or []:
        name, limit = _usable("max-load", partial(parse_load_text, text))
        _check_known("argument --max-load", [name], known)
        limits[name] = limit
    return limits


def _check_known(where: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            hint = f"{conf.suggest(name, known)} Known queues: {', '.join(sorted(known))}."
            raise CommandError(f"{where}: no queue is named {name!r}.{hint}", returncode=storage.USAGE_EXIT)


def _usable(option: str, parse: Callable[[], Any]) -> Any:
    try:
        return parse()
    except ValueError as error:
        told = str(error) if option == "queues" else f"it takes {error}"
        raise CommandError(f"argument --{option}: {told}", returncode=storage.USAGE_EXIT) from error
