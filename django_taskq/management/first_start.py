"""The first start of ``taskworker --reload`` or ``--runserver`` with code that does not import.

It fails while Django loads the project, before there is a command that could wait for the mend. So the end of the
process is made to wait: it shows the error, watches what there is, and begins anew when something has changed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType

from django.utils import autoreload

from django_taskq.management import leash
from django_taskq.management.watching import Watch

BEGAN = time.time()
SAID = "taskworker: the project cannot be loaded; it is tried again when a file has changed, and Ctrl+C ends this"


def install() -> None:
    """From now on an error that nobody handles waits for a change; not in the worker beside this process."""
    if leash.VARIABLE not in os.environ:
        sys.excepthook = begin_anew


def uninstall() -> None:
    """The project is loaded, and the command sees to the rest."""
    sys.excepthook = sys.__excepthook__


def begin_anew(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show the error as ever, wait for a change, and run the same command line once more."""
    uninstall()
    sys.__excepthook__(kind, error, trace)
    if not isinstance(error, Exception):
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        watch = Watch(files_of(error), is_loaded=False)
        print(SAID, flush=True)
        # What was saved while the project was being loaded has not been seen, or not by all of it.
        while not (watch.has_changed_since(BEGAN) or watch.wait()):
            pass
    except KeyboardInterrupt:
        raise SystemExit(1) from None
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    arguments = autoreload.get_child_arguments()
    os.execv(arguments[0], arguments)


def files_of(error: BaseException | None) -> set[Path]:
    """The files that an error and its causes went through: what failed to import is not among the loaded ones."""
    found: set[Path] = set()
    while error is not None:
        found.update(Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__))
        if isinstance(error, SyntaxError) and error.filename:
            found.add(Path(error.filename))
        error = error.__cause__ or error.__context__
    return {path for path in found if path.is_file()}
