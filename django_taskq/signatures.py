"""``Signature``: one call of a task with its arguments and options, not sent yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from django_taskq.compiling import NOTHING, Building, Flow, Scope, find_task
from django_taskq.composing import NO_EXTRAS, Canvas, expect
from django_taskq.plan import Input
from django_taskq.steps import LinkKind

if TYPE_CHECKING:
    from typing import Self

    from django_taskq.compiling import Compiling
    from django_taskq.result import TaskResult
    from django_taskq.task import Task


class Signature(Canvas):
    """A call that can be started, linked, and put into chains, groups and chords. ``immutable``: its arguments stay.

    Where it stands behind something, that one's result comes before its own arguments.
    """

    __slots__ = ("args", "immutable", "kwargs", "task")

    def __init__(
        self,
        task: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """``task`` is the task's name; it is looked up when the call is made."""
        super().__init__(options)
        self.task = task
        self.args = tuple(args)
        self.kwargs: Mapping[str, Any] = dict(kwargs) if kwargs else NOTHING
        self.immutable = immutable

    def __repr__(self) -> str:
        given = [*map(repr, self.args), *(f"{key}={value!r}" for key, value in self.kwargs.items())]
        return f"{self.task}({', '.join(given)})"

    if TYPE_CHECKING:
        # With callbacks, a name or an expiry it is a workflow, whose handle has get(), id and status as well.
        def enqueue(self, *args: Any, **kwargs: Any) -> TaskResult[Any]: ...  # type: ignore[override]
        async def aenqueue(self, *args: Any, **kwargs: Any) -> TaskResult[Any]: ...  # type: ignore[override]
        def delay(self, *args: Any, **kwargs: Any) -> TaskResult[Any]: ...  # type: ignore[override]
        def apply_async(  # type: ignore[override]
            self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
        ) -> TaskResult[Any]: ...

    @property
    def type(self) -> Task[Any, Any]:
        """The task. Raises :exc:`UnknownTask`."""
        return find_task(self.task)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the task's function here and now, with these arguments before its own."""
        call = self.clone(args, kwargs)
        return self.type(*call.args, **call.kwargs)

    def start(self) -> Any:
        """Enqueue a run of the task, or a workflow where there are callbacks."""
        if self._extras is not NO_EXTRAS:
            return super().start()
        options = {key: value for key, value in self.options.items() if key != "on_failure"}
        task = self.type.using(**options) if options else self.type
        return task.enqueue(*self.args, **self.kwargs)

    def preceded(self, literal: tuple[Any, ...]) -> Signature:
        """The same call with these arguments in front."""
        return self.changed(literal + self.args)

    def changed(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Signature:
        """The same call with these instead of its own; its callbacks stay behind. For plans: nothing is checked."""
        twin = Signature.__new__(Signature)
        twin._extras = NO_EXTRAS
        twin.task = self.task
        twin.args = args
        twin.kwargs = self.kwargs if kwargs is None else kwargs
        twin.options = self.options if options is None else options
        twin.immutable = self.immutable
        return twin

    def to_dict(self) -> dict[str, Any]:
        """Itself as a dict; see :meth:`Canvas.to_dict`."""
        return {**super().to_dict(), "task": self.task, "args": list(self.args), "kwargs": dict(self.kwargs)}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Signature:
        """The call alone."""
        task, args, kwargs = found["task"], found.get("args") or (), found.get("kwargs") or {}
        if not isinstance(task, str) or not isinstance(args, (list, tuple)) or not isinstance(kwargs, Mapping):
            raise TypeError("task is a text, args a list and kwargs a dict")
        return cls(task, args, kwargs, immutable=bool(found.get("immutable")))

    @property
    def is_simple(self) -> bool:
        """Whether it is one node and nothing else."""
        return self._extras is NO_EXTRAS

    def compile(self, building: Building, flow: Flow, scope: Scope) -> Flow:
        """Add its node, without callbacks: all there is to do for most of the many."""
        call = self
        if scope.options or scope.timing or scope.delay:
            call = self.changed(self.args, options=scope.completed(self.options))
        policy = self.options.get("on_failure")
        continues = scope.continues if policy is None else policy == "continue"
        node = building.add(call, flow, continues=continues)
        return Flow([Input(node, LinkKind.END if continues else LinkKind.SUCCESS, 0, 0, True)])

    def _compiling(self, building: Building, flow: Flow, scope: Scope) -> Compiling:
        return self.compile(building, flow, scope)
        yield  # a generator, like that of every canvas

    def _called(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Self:
        if self.immutable:
            args, kwargs = (), {}
        merged = {**self.kwargs, **kwargs} if kwargs else self.kwargs
        return type(self)(self.task, args + self.args, merged, immutable=self.immutable)

    def _facts(self) -> tuple[Any, ...]:
        return self.task, self.args, dict(self.kwargs), self.immutable, *super()._facts()


@overload
def signature(task: Canvas | Mapping[str, Any], *given: Any, **options: Any) -> Canvas: ...
@overload
def signature(task: str | Task[Any, Any], *given: Any, **options: Any) -> Signature: ...
def signature(
    task: Any,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    immutable: bool = False,
    **options: Any,
) -> Canvas:
    """A call of a task, given by its name or itself; or a copy of a signature, or of the dict that one travels as.

    Raises ``TypeError`` or ``ValueError`` for options that :meth:`Task.using` would not take.
    """
    if isinstance(task, (Canvas, Mapping)):
        return expect(task).clone(args, kwargs, **options)
    name = getattr(task, "name", task)
    if not isinstance(name, str):
        raise TypeError(f"signature() takes a task, its name, or a signature as a dict, and got {task!r}")
    return Signature(name, args, kwargs, immutable=immutable, options=options)
