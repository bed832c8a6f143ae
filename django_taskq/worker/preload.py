"""Imported by the fork server before its first child: Django and every task, loaded once and shared by all children.

It must start no thread and open no connection, or forked children would inherit halves of them; the supervisor looks
for threads after its own set-up and falls back to ``spawn`` when it finds some.
"""

import gc
import os
import signal

import django

if os.environ.get("DJANGO_SETTINGS_MODULE"):
    django.setup()
    # systemd and Docker signal the whole group; without its fork server a stopping worker could not learn how its
    # children ended.
    for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    # What is loaded by now lives for ever: kept out of the collector, its pages stay shared.
    gc.collect()
    gc.freeze()
