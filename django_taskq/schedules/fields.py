"""The five fields of a crontab: what they may say, and the numbers they stand for.

Parsed here and not by croniter, for two reasons: an error has to name the field and what it takes, and a range such
as ``5-5`` must mean the same with every version of croniter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from django_taskq.conf import suggest
from django_taskq.exceptions import InvalidSchedule

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_VALUE = r"[0-9]{1,2}|[a-z]{3}"
_RANGE = re.compile(rf"(?:\*|(?P<low>{_VALUE})(?:-(?P<high>{_VALUE}))?)(?:/(?P<step>[0-9]{{1,3}}))?")
_NTH = re.compile(rf"(?P<day>{_VALUE})#(?P<nth>[0-9]+)")
_LAST = re.compile(rf"l(?P<after>{_VALUE})|(?P<before>{_VALUE})l")


@dataclass(frozen=True, slots=True)
class Values:
    """What one field says: its text, its numbers, and its days that hang on the month (``l``, ``l5``, ``1#2``)."""

    text: str
    numbers: frozenset[int]
    special: frozenset[str]
    is_full: bool

    @property
    def has_star(self) -> bool:
        """Whether it starts with ``*``, which is what Vixie's rules go by."""
        return self.text.startswith("*")


@dataclass(frozen=True, slots=True)
class Field:
    """One of the five."""

    name: str
    low: int
    high: int
    example: str
    names: dict[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.high - self.low + 1

    def parse(self, text: str) -> Values:
        """What ``text`` says. Raises :exc:`InvalidSchedule` naming this field and what it takes."""
        numbers: set[int] = set()
        special: set[str] = set()
        words = []
        for item in text.lower().split(","):
            found = self._special(item)
            if found:
                special.add(found)
            else:
                numbers.update(self._numbers(item))
            words.append(found.upper() if found.startswith("l") else item)
        return Values(",".join(words), frozenset(numbers), frozenset(special), len(numbers) == self.size)

    def _special(self, item: str) -> str:
        if self.name == "day_of_month":
            return "l" if item == "l" else ""
        if self.name != "day_of_week":
            return ""
        if found := _LAST.fullmatch(item):
            return f"l{self._number(found['after'] or found['before'], item) % 7}"
        if found := _NTH.fullmatch(item):
            if not 1 <= int(found["nth"]) <= 5:
                raise self._error(item, "no month has more than five of a day")
            return f"{self._number(found['day'], item) % 7}#{int(found['nth'])}"
        return ""

    def _numbers(self, item: str) -> Iterator[int]:
        found = _RANGE.fullmatch(item)
        if found is None:
            raise self._error(item, hint=suggest(item, self.names))
        low, high, step = self.low, self.high, int(found["step"] or 1)
        if found["low"]:
            low = high = self._number(found["low"], item)
            if found["high"]:
                high = self._number(found["high"], item)
            elif found["step"]:
                high = self.high
        if not 1 <= step <= self.size:
            raise self._error(item, f"a step is from 1 to {self.size}")
        if self.name == "day_of_week" and low == 7:
            low, high = 0, high % 7
        # "22-2" and "fri-mon" lead over the end of the day, the week or the year.
        length = high - low if high >= low else high - low + self.size
        return (self.low + (low - self.low + done) % self.size for done in range(0, length + 1, step))

    def _number(self, text: str, item: str) -> int:
        if text in self.names:
            return self.names[text]
        # Sunday is 0 and 7.
        highest = 7 if self.name == "day_of_week" else self.high
        if not text.isdigit() or not self.low <= int(text) <= highest:
            raise self._error(item, hint=suggest(text, self.names))
        return int(text)

    def _error(self, item: str, why: str = "", hint: str = "") -> InvalidSchedule:
        because = f" ({why})" if why else ""
        return InvalidSchedule(f"{self.name} is {item or 'empty'}; it takes {self.example}, or *{because}.{hint}")


MINUTE = Field("minute", 0, 59, "0-59, ranges (10-20), steps (*/5), lists of these (0,30)")
HOUR = Field("hour", 0, 23, "0-23, ranges (9-17), steps (*/2), lists of these (8,20)")
DAY_OF_MONTH = Field(
    "day_of_month", 1, 31, "1-31, L for the last day, ranges (1-7), steps (*/2), lists of these (1,15)"
)
MONTH_OF_YEAR = Field(
    "month_of_year",
    1,
    12,
    "1-12, jan-dec, ranges (jun-aug), steps (*/3), lists of these (1,7)",
    {name: number for number, name in enumerate(MONTHS, start=1)},
)
DAY_OF_WEEK = Field(
    "day_of_week",
    0,
    6,
    "0-7 (0 and 7 are Sunday), sun-sat, ranges (mon-fri), steps (*/2), mon#2 for the second Monday, L5 for the last "
    "Friday, lists of these (sat,sun)",
    {name: number for number, name in enumerate(DAYS)},
)
FIELDS = (MINUTE, HOUR, DAY_OF_MONTH, MONTH_OF_YEAR, DAY_OF_WEEK)
