"""Feeds that are read again and again, spread over the time between two rounds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.request import urlopen

from django.conf import settings

from django_taskq import group, task

WINDOW = 900.0  # seconds between two rounds
SHARE = 0.8  # of the window; the rest is for what had to be tried again
TIMEOUT = 10  # seconds for one feed


@task(autoretry_for=(OSError,), max_retries=3)
def refresh_feed(number: int) -> int:
    """Read one feed, and return how many of its entries are new."""
    with urlopen(f"{settings.FEEDS_URL}/{number}.xml", timeout=TIMEOUT) as answer:
        found = re.findall(r"<id>(.*?)</id>", answer.read().decode())
    seen = read_entries(number)
    entries_file(number).parent.mkdir(parents=True, exist_ok=True)
    entries_file(number).write_text(json.dumps(found))
    return len(set(found) - set(seen))


@task(transactional=True)
def refresh_feeds(start: int, stop: int, window: float = WINDOW) -> str:
    """Have the feeds from ``start`` up to ``stop`` read, evenly over most of ``window`` (seconds); returns its id.

    They are not all asked at once: neither the servers nor our workers get a peak. What has not begun when the next
    round does is left out. ``transactional``: however often this is started again, it starts one round.
    """
    feeds = group((refresh_feed.s(number) for number in range(start, stop)), spread=window * SHARE)
    return str(feeds.named(f"feeds {start}-{stop - 1}").expiring(window).enqueue().id)


def read_entries(number: int) -> list[str]:
    """The entries that a feed had when it was read last."""
    try:
        found: list[str] = json.loads(entries_file(number).read_text())
    except FileNotFoundError:
        return []
    return found


def entries_file(number: int) -> Path:
    """Where the entries of a feed are kept."""
    return Path(settings.OUTPUT_DIR) / "feeds" / f"{number}.json"
