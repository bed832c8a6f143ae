"""Which files are watched for ``taskworker --reload`` and ``--runserver``, and what becomes of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.utils import autoreload

INSTALLED = {"site-packages", "dist-packages"}
OF_AN_APP = ("apps.py", "tasks.py")  # the directory beside the settings that has one of these may be an app soon


class Watch:
    """Django's reloader, which tells here what has changed instead of ending the process."""

    def __init__(self, files: Iterable[Path] = (), *, is_loaded: bool = True) -> None:
        """``files`` are watched besides; ``is_loaded`` is False for a project of which that has failed."""
        self._reloader = autoreload.get_reloader()
        self._changed: set[Path] = set()
        self._directories: set[Path] = set()
        self._known: set[Path] = set()
        self._look_for_new()
        self._files = set(files)
        for file in self._files:
            self._reloader.watch_dir(file.parent, file.name)
        if is_loaded:
            autoreload.autoreload_started.send(sender=self._reloader)  # where templates and translations are added
        autoreload.file_changed.connect(self._note)
        self._ticks: Iterator[None] = self._reloader.tick()

    def wait(self) -> set[Path]:
        """For about a second; the files that have changed, and those that are new."""
        next(self._ticks)
        new = self._look_for_new()
        changed, self._changed = self._changed | new, set()
        return changed

    def has_changed_since(self, moment: float) -> bool:
        """Whether a file of the project was saved after ``moment`` (POSIX seconds), and not in the future."""
        now, times = time.time(), []
        for path in self._known | self._files:
            with suppress(OSError):
                times.append(path.stat().st_mtime)
        return any(moment < saved <= now for saved in times)

    def _look_for_new(self) -> set[Path]:
        """The Python files of the project that were not there before: the reloader only knows those as unchanged."""
        for directory in own_directories() - self._directories:
            self._directories.add(directory)
            # Files that did not exist when this process began, and those that it could not import.
            self._reloader.watch_dir(directory, "**/*.py")
        found = {path for directory in self._directories for path in directory.rglob("[!.]*.py")}  # .#x.py: Emacs' lock
        new, self._known = found - self._known, found
        return new

    def _note(self, file_path: Path, **kwargs: Any) -> bool:
        self._changed.add(Path(file_path))
        return True  # it is seen to


def own_directories() -> set[Path]:
    """Where the project's apps and its settings are, and what may become an app: not what is installed."""
    # Not get_app_configs(), which wants all of them to be there.
    found = {Path(config.path) for config in list(apps.app_configs.values())}
    name = settings.SETTINGS_MODULE
    module, top = import_module(name), sys.modules[name.partition(".")[0]]
    if "." in name:  # otherwise it lies beside manage.py, and maybe a virtual environment does, too
        found.add(Path(str(module.__file__)).parent)
    root = Path(next(iter(top.__path__))).parent if hasattr(top, "__path__") else Path(str(top.__file__)).parent
    found |= {path.parent for file in OF_AN_APP for path in root.glob(f"*/{file}")}
    return {path for path in found if not INSTALLED & set(path.parts)}
