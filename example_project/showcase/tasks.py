"""Tasks that end, or do not end, in every way there is to look at in the admin."""

from __future__ import annotations

import time

from django_taskq import task


@task
def watch_turnout(minutes: int) -> None:
    """Runs for as long as you like."""
    time.sleep(60 * minutes)


@task(autoretry_for=(ConnectionError,), default_retry_delay=600, max_retries=10)
def fetch_results(address: str) -> None:
    """Finds nobody at home, every time, and tries again in ten minutes."""
    raise ConnectionError(f"{address} does not answer")


@task
def count_ballots(cast: int, found: list[int]) -> int:
    """Fails where the numbers do not add up."""
    counted = sum(found)
    if counted > cast:
        raise ValueError(f"{counted} ballots were found in the boxes, and only {cast} were cast")
    return counted


@task
def close_polls(country: str) -> str:
    """Waits for its day."""
    return f"the polls in {country} are closed"
