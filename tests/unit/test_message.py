"""Run ids, headers and the texts of errors."""

from __future__ import annotations

import os
import random
import threading
import time
import uuid

import pytest

from django_taskq import message
from django_taskq.exceptions import SerializationError
from django_taskq.message import NO_HEADERS, ErrorText, Headers, new_ids


def timestamp(id: str) -> int:
    return uuid.UUID(id).int >> 80


class TestIds:
    def test_are_version_7_of_rfc_9562(self) -> None:
        before = time.time_ns() // 1_000_000
        (id,) = new_ids(1)
        found = uuid.UUID(id)
        assert str(found) == id
        assert (found.version, found.variant) == (7, uuid.RFC_4122)
        assert before - 1 <= timestamp(id) <= time.time_ns() // 1_000_000 + 1

    def test_rise_and_differ_within_one_call_and_over_many(self) -> None:
        ids = [id for count in (1, 5000, 1, 0, 3) for id in new_ids(count)] + [new_ids(1)[0] for _ in range(5000)]
        assert ids == sorted(ids)
        assert len(set(ids)) == len(ids) == 10_005

    def test_rise_when_the_clock_stands_or_steps_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = time.time_ns() + 10**12
        for moment in (now, now, now - 10**10, now + 10**7):
            monkeypatch.setattr(time, "time_ns", lambda moment=moment: moment)
            last, *_ = reversed(new_ids(3))
            assert last < new_ids(1)[0]
        message._start_afresh()

    def test_carry_into_the_next_millisecond_when_a_batch_is_larger_than_chance_left_room(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(message, "_last_id", (time.time_ns() // 1_000_000 + 1000 << 74) + (1 << 74) - 2)
        ids = new_ids(1) + new_ids(4)
        assert ids == sorted(ids)
        assert {uuid.UUID(id).version for id in ids} == {7}
        assert {uuid.UUID(id).variant for id in ids} == {uuid.RFC_4122}

    def test_differ_over_threads(self) -> None:
        ids: list[str] = []
        threads = [threading.Thread(target=lambda: [ids.extend(new_ids(3)) for _ in range(500)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(ids)) == 8 * 500 * 3

    def test_differ_over_a_fork(self) -> None:
        """Also when both sides make theirs in the same millisecond, with the same clock."""
        new_ids(1)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, "".join(new_ids(200)).encode())
            os._exit(0)
        mine = set(new_ids(200))
        os.close(writer)
        with os.fdopen(reader) as pipe:
            text = pipe.read()
        os.waitpid(child, 0)
        theirs = {text[start : start + 36] for start in range(0, len(text), 36)}
        assert len(theirs) == 200
        assert not mine & theirs

    def test_do_not_depend_on_the_project_s_seed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        moment = time.time_ns()
        monkeypatch.setattr(time, "time_ns", lambda: moment)
        made = set()
        for _ in range(2):
            random.seed(5)
            message._start_afresh()
            made.update(new_ids(1))
        assert len(made) == 2

    def test_do_not_disturb_the_project_s_seeded_sequence(self) -> None:
        random.seed(5)
        expected = random.random()
        random.seed(5)
        new_ids(2)
        assert random.random() == expected


class TestHeaders:
    def test_nothing_changed_is_no_text(self) -> None:
        assert Headers().dumps() is None
        assert Headers.loads(None) is NO_HEADERS

    def test_what_changed_comes_back(self) -> None:
        headers = Headers(language="de", timezone="Asia/Tokyo", time_limit=1.5, max_retries=0, ignore_result=False)
        assert headers.dumps() == (
            '{"language":"de","timezone":"Asia/Tokyo","time_limit":1.5,"max_retries":0,"ignore_result":false}'
        )
        assert Headers.loads(headers.dumps()) == headers

    def test_what_a_newer_version_wrote_is_ignored(self) -> None:
        assert Headers.loads('{"language":"de","colour":"red"}') == Headers(language="de")

    @pytest.mark.parametrize("text", ["[]", "5", "null", '"x"', "", "{"])
    def test_what_is_no_dict_is_refused(self, text: str) -> None:
        with pytest.raises(SerializationError):
            Headers.loads(text)


class TestErrorText:
    @pytest.mark.parametrize(
        ("path", "text", "summary"),
        [
            ("builtins.ValueError", "no", "ValueError: no"),
            ("a.b.Own", "", "Own"),
            ("ValueError", "two\nlines\tand   more", "ValueError: two lines and more"),
            ("a.E", "x" * 1000, "E: " + "x" * 497),
        ],
    )
    def test_the_summary_is_one_bounded_line(self, path: str, text: str, summary: str) -> None:
        assert ErrorText(path, text).summary == summary
