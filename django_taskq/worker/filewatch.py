"""Hearing of writes to a directory from the kernel (inotify), instead of asking forty times a second.

Linux only and of local file systems only; whoever uses it looks by himself now and then as well.
"""

from __future__ import annotations

import ctypes
import os
import select
from pathlib import Path

_IN_MODIFY, _IN_CREATE = 0x2, 0x100


class FileWatch:
    """Watches one directory. Not thread-safe."""

    def __init__(self, directory: Path) -> None:
        """Raises ``OSError`` where the system has no inotify, no more watches, or no such directory."""
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "inotify_init1"):
            raise OSError("this system has no inotify")
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1 failed")
        if libc.inotify_add_watch(self._descriptor, os.fsencode(directory), _IN_MODIFY | _IN_CREATE) < 0:
            error = ctypes.get_errno()
            self.close()
            raise OSError(error, f"cannot watch {directory}")

    def wait(self, seconds: float) -> bool:
        """Until something in the directory is written; False when nothing was in so many seconds."""
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        if ready:
            os.read(self._descriptor, 1 << 16)
        return bool(ready)

    def close(self) -> None:
        """Stop watching."""
        os.close(self._descriptor)
