"""When a failed attempt is tried again: pure decisions, no clock and no I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A task's retry options.

    ``max_retries`` counts retries, so a task makes at most ``max_retries + 1`` attempts; None means no bound.
    ``retry_backoff`` is the first delay in seconds of an exponential back-off (True: one second, False: always
    ``default_retry_delay``), ``retry_backoff_max`` its ceiling. With ``retry_jitter`` a back-off is drawn
    uniformly between nothing and the computed delay ("full jitter"), so that runs that failed together do not
    come back together.
    """

    max_retries: int | None = 3
    default_retry_delay: float = 180
    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    retry_backoff: bool | float = False
    retry_backoff_max: float = 600
    retry_jitter: bool = True

    def has_retries_left(self, attempt: int, max_retries: int | None = None) -> bool:
        """Whether ``attempt`` (from 1) may be followed by another; ``max_retries`` overrides the task's own."""
        limit = self.max_retries if max_retries is None else max_retries
        return limit is None or attempt <= limit

    def retries_on(self, error: BaseException) -> bool:
        """Whether this error asks for a retry by itself."""
        return isinstance(error, self.autoretry_for) and not isinstance(error, self.dont_autoretry_for)

    def delay(self, attempt: int) -> float:
        """Seconds to wait after ``attempt`` (from 1) failed."""
        if self.retry_backoff is False:
            return self.default_retry_delay
        # The exponent is capped: 2.0 ** 1024 does not fit a float, and every sane ceiling is reached long before.
        delay = min(float(self.retry_backoff) * 2.0 ** min(attempt - 1, 64), self.retry_backoff_max)
        return random.uniform(0, delay) if self.retry_jitter else delay
