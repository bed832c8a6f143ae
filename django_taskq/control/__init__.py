"""Orders to workers and queues while they run, and verbs on runs that exist already.

Each order is a row that its workers answer; see :mod:`django_taskq.control.issuing`.
"""

from django_taskq.control.issuing import Reply
from django_taskq.control.limits import clear_limit, release_permit, reset_breaker, set_limit
from django_taskq.control.orders import (
    add_consumer,
    cancel_consumer,
    dump_stacks,
    inspect,
    pause_queue,
    ping,
    quiet,
    restart,
    resume_queue,
    set_autoscale,
    set_processes,
    set_threads,
    set_time_limits,
    shutdown,
    work,
)
from django_taskq.control.runs import cancel, retry

__all__ = [
    "Reply",
    "add_consumer",
    "cancel",
    "cancel_consumer",
    "clear_limit",
    "dump_stacks",
    "inspect",
    "pause_queue",
    "ping",
    "quiet",
    "release_permit",
    "reset_breaker",
    "restart",
    "resume_queue",
    "retry",
    "set_autoscale",
    "set_limit",
    "set_processes",
    "set_threads",
    "set_time_limits",
    "shutdown",
    "work",
]
