"""What every task body does, in every queue: note that it ran, and when. Nothing but the standard library.

16 bytes appended to a file of the process's own cost about two microseconds, and what was written survives a kill -9
of the process. ``tests/peers/records.py`` reads them.
"""

import os
import struct
import time

_pack = struct.Struct("<qq").pack
_owner = 0
_file = -1


def record(number: int) -> None:
    """Append (number, now in nanoseconds) to this process's file."""
    global _owner, _file
    now = time.time_ns()
    if _owner != os.getpid():  # the first record, or the first after a fork: a file belongs to one process
        _owner = os.getpid()
        path = os.path.join(os.environ["PEER_RECORDS"], f"{_owner}.records")
        _file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(_file, _pack(number, now))
