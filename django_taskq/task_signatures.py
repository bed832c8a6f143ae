"""The ways from a task to a signature; what ``Task`` inherits them from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from django_taskq.canvas import group
from django_taskq.compiling import place_of
from django_taskq.signatures import Signature

if TYPE_CHECKING:
    from django_taskq.options import TaskOptions

MAP, STARMAP = "django_taskq.map", "django_taskq.starmap"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


class TaskSignatures:
    """Signatures of one task: calls of it that are not sent yet."""

    if TYPE_CHECKING:
        name: str
        options: TaskOptions

        def check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None: ...

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """A call with these arguments. Behind another step its result comes before them."""
        return Signature(self.name, args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """A call with these arguments and no others: the result of the step before is left out."""
        return Signature(self.name, args, kwargs, immutable=True)

    def signature(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        **options: Any,
    ) -> Signature:
        """A call with options, those of :meth:`Task.using` and ``on_failure``. Raises as :meth:`Signature.set` does."""
        return Signature(self.name, args, kwargs, immutable=immutable, options=options)

    def map(self, items: Iterable[Any]) -> Signature:
        """One run that calls the task for each item; its value is the list of theirs. It is immutable.

        Raises :exc:`InvalidArguments` where the task takes no single argument.
        """
        found = list(items)
        if found:
            self.check_arguments((None,), {})
        return self._calling(MAP, found)

    def starmap(self, items: Iterable[Sequence[Any]]) -> Signature:
        """:meth:`map` with a sequence of arguments in each item."""
        found = [list(item) for item in items]
        for count in {len(item) for item in found}:
            self.check_arguments((None,) * count, {})
        return self._calling(STARMAP, found)

    def chunks(self, items: Iterable[Sequence[Any]], n: int, *, spread: float | timedelta | None = None) -> group:
        """A group of :meth:`starmap` runs of ``n`` items each; its value is a list of lists.

        With ``spread`` they start evenly over so many seconds. Raises ``ValueError`` unless ``n`` is at least 1.
        """
        if not _is_count(n):
            raise ValueError(f"{self.name}.chunks: n={n!r} is not usable: it takes a whole number of at least 1")
        rest = iter(items)
        portions = iter(lambda: list(islice(rest, n)), [])
        return group((self.starmap(portion) for portion in portions), spread=spread)

    def _calling(self, builtin: str, items: list[Any]) -> Signature:
        # Where the task itself would run, and as urgent.
        return Signature(builtin, (self.name, items), immutable=True, options=place_of(self))
