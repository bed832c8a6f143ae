"""What several threads print comes out in whole lines."""

from __future__ import annotations

import io
import threading

from django_taskq.worker.printing import Lines


class Writes(io.StringIO):
    """Remembers what was written at once."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []

    def write(self, text: str) -> int:
        self.made.append(text)
        return super().write(text)


def test_a_line_is_written_at_once() -> None:
    stream = Writes()
    print("adding", 2, 3, file=Lines(stream))  # type: ignore[arg-type]
    assert stream.made == ["adding 2 3\n"]


def test_threads_do_not_mix() -> None:
    stream = Writes()
    lines = Lines(stream)
    lines.write("mine ")
    other = threading.Thread(target=print, args=("theirs",), kwargs={"file": lines})
    other.start()
    other.join()
    lines.write("goes on\nand ")
    assert stream.made == ["theirs\n", "mine goes on\n"]


def test_what_was_begun_goes_out_when_it_is_flushed() -> None:
    stream = Writes()
    lines = Lines(stream)
    lines.writelines(["password", ": "])
    assert not stream.made
    lines.flush()
    lines.flush()
    assert stream.made == ["password: "]


def test_the_rest_is_the_stream_s() -> None:
    stream = Writes()
    assert Lines(stream).getvalue() == ""
    assert not Lines(stream).closed
