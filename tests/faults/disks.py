"""A small file system that a test can fill: one in memory, which only root may mount."""

from __future__ import annotations

import errno
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import MISSING
from tests.servers import PostgresServer

# Waits for the end of the test, or of a test run that was killed.
JANITOR = 'read -r _; umount -l "$1"; rmdir "$1"'


class Disk:
    """``path`` is where it is mounted, open to everybody."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Leave no byte of it."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        self._filler.unlink()


@contextmanager
def mounted(megabytes: int, config: pytest.Config) -> Iterator[Disk]:
    """A disk of this size; where it cannot be had, the test is skipped, loudly."""
    path = Path(tempfile.mkdtemp(prefix="taskq-disk-"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "taskq", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        why = done.stderr.strip()
    except FileNotFoundError as error:
        why = str(error)
    if not path.is_mount():
        path.rmdir()
        config.stash[MISSING]["small disk"] = f"A disk to fill needs root and its right to mount: {why}"
        pytest.skip(config.stash[MISSING]["small disk"])
    janitor = subprocess.Popen(
        ["/bin/sh", "-c", JANITOR, "janitor", str(path)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield Disk(path)
    finally:
        janitor.communicate()


class SmallPostgres(PostgresServer):
    """All of its data on a small disk, with small segments of its log so that it fits."""

    def __init__(self, disk: Disk) -> None:
        self.data = disk.path / "data"
        super().__init__()

    def prepare(self) -> None:
        options = ["--username=postgres", "--auth=trust", "--no-locale", "--encoding=UTF8", "--no-sync"]
        self.run(str(self.programs / "initdb"), "--pgdata", str(self.data), "--wal-segsize=1", *options)

    def command(self) -> list[str]:
        return [str(self.data) if word == str(self.home / "data") else word for word in super().command()]
