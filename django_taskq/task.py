"""``@task`` and ``Task``: a function with its options, and every way to call it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, cast, overload
from uuid import UUID

from asgiref.sync import sync_to_async

from django_taskq import (
    batch_calls,
    class_hooks,
    client,
    clock,
    conf,
    context,
    defining,
    open_resources,
    registry,
    routing,
    serializers,
    task_signatures,
)
from django_taskq.arguments import signature_of
from django_taskq.conf_routes import Route
from django_taskq.context import TaskContext
from django_taskq.exceptions import InvalidTask, SerializationError
from django_taskq.flow import Flow
from django_taskq.message import EXCHANGE, NO_HEADERS, Delivery, Message, Tracking, new_ids, with_routing_key
from django_taskq.options import PLAIN_CALL, TaskOptions
from django_taskq.result import OpenTransaction, TaskResult, open_transaction
from django_taskq.unique_keys import Holder
from django_taskq.uniqueness import Uniqueness

if TYPE_CHECKING:
    from typing import Literal, NoReturn

    from django_taskq import task_types
    from django_taskq.task_types import Coroutines, CoroutineTask

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")


class Task(class_hooks.TaskHooks, task_signatures.TaskSignatures, Generic[P, R]):
    """A task: call it to run it here, ``enqueue`` it to have a worker run it.

    Made by :func:`task`. A class form exists for tasks that share code: subclass ``Task``, give it a ``run`` method,
    and decorate the class; the name then stands for its one instance.
    """

    watcher: registry.Watcher | None = None

    def __init__(self, function: Callable[P, R], given: Mapping[str, Any], *, defined_by: Any = None) -> None:
        source = defined_by or function
        self.origin = f"{source.__module__}.{source.__qualname__}"
        self.options = TaskOptions.parse(str(given.get("name") or self.origin), given)
        self.name = self.options.name or self.origin
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        self.retry_policy = self.options.retry_policy()
        self.__doc__ = source.__doc__
        self.__wrapped__ = function
        self.call_options = PLAIN_CALL
        self._plain_tracking = self._tracking()
        self._signature = signature_of(function, self.options, self.name)
        self.flow = Flow.of(self.name, self.options, self._signature.signature)
        self.uniqueness = Uniqueness.of(self.name, self.options, self._signature.signature)
        self.needs = self._signature.injected
        self.hooks = class_hooks.overridden(type(self))
        if self.is_async and self.options.transactional:
            raise InvalidTask(f"{self.name}: transactional=True needs a sync function.")
        if self.is_async and self.options.batch_size is not None:
            raise InvalidTask(f"{self.name}: batch_size needs a sync function, as batches are called in threads.")
        if self.options.schedule is not None and not self._signature.takes(0):
            raise InvalidTask(
                f"{self.name}: a schedule calls it without arguments, and its signature is "
                f"{self._signature.signature}. Give the parameters defaults, or schedule it in TASKQ['SCHEDULE'] with "
                f"args."
            )

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __reduce__(self) -> Any:
        return registry.find, (self.name,)

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it here and now, as the plain function or a batch of one. Resources that it needs may be given."""
        if self.needs and not kwargs.keys() >= set(self.needs):
            return cast(R, open_resources.call(self, args, kwargs))
        if self.options.batch_size is not None:
            given = {name: value for name, value in kwargs.items() if name not in self.needs}
            self.check_arguments(args, given)
            return cast(R, batch_calls.call_here(self._own_context(args, given), {n: kwargs[n] for n in self.needs}))
        if self.options.takes_context and context.current_context() is None:
            return self._call_in_own_context(args, kwargs)
        return self.function(*self._leading(), *args, **kwargs)

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> R:
        """Run it as a worker does, with ``current_task`` already set; for tasks that are no coroutines."""
        if self.options.bind or self.options.takes_context:
            return cast(R, cast(Any, self.function)(*self._leading(), *args, **kwargs))
        return self.function(*args, **kwargs)

    def coroutine(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Coroutine[Any, Any, R]:
        """:meth:`call` for an async task: what is to be awaited."""
        return cast(Coroutine[Any, Any, R], cast(Any, self.function)(*self._leading(), *args, **kwargs))

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskResult[R]:
        """Have a worker run it.

        Raises :exc:`~django_taskq.exceptions.EnqueueError` subclasses when the arguments do not bind or serialise, or
        the queue is unknown; nothing is stored then. Inside ``transaction.atomic()`` of the database that holds the
        rows, the run exists once that commits.
        """
        message = self._message(args, kwargs)
        marker = open_transaction(conf.get_settings().database)
        return self._result(message, marker, client.enqueue((message,)))

    def enqueue_many(self, calls: Iterable[tuple[Sequence[Any], Mapping[str, Any]]]) -> list[TaskResult[R]]:
        """Enqueue ``(args, kwargs)`` pairs in one round trip, all or none; results in the order of the calls."""
        messages = self.messages(list(calls))
        marker = open_transaction(conf.get_settings().database)
        duplicates = client.enqueue(messages)
        return [self._result(message, marker, duplicates) for message in messages]

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskResult[R]:
        """Async :meth:`enqueue`."""
        return await sync_to_async(self.enqueue)(*args, **kwargs)

    async def aenqueue_many(self, calls: Iterable[tuple[Sequence[Any], Mapping[str, Any]]]) -> list[TaskResult[R]]:
        """Async :meth:`enqueue_many`."""
        return await sync_to_async(self.enqueue_many)(calls)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> TaskResult[R]:
        """Celery's spelling of :meth:`enqueue`."""
        return self.enqueue(*args, **kwargs)

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **call_options: Any
    ) -> TaskResult[R]:
        """Celery's spelling of ``using(...).enqueue(...)``, with its names ``queue`` and ``eta``."""
        for theirs, ours in (("queue", "queue_name"), ("eta", "run_after")):
            if theirs in call_options:
                call_options[ours] = call_options.pop(theirs)
        enqueue = cast(Callable[..., TaskResult[R]], self.using(**call_options).enqueue)
        return enqueue(*args, **(kwargs or {}))

    def using(self, **call_options: Any) -> Self:
        """A copy whose calls carry these options.

        ``queue_name``, ``priority``, ``run_after`` (aware datetime), ``countdown`` (seconds from now), ``expires``
        (seconds or datetime), ``time_limit``, ``soft_time_limit`` (seconds), ``memory_limit``, ``max_retries``,
        ``ignore_result``, ``task_id`` (a UUID of your own). Raises ``TypeError`` for an unknown option and
        ``ValueError`` for a value that is not usable.
        """
        twin = copy.copy(self)
        twin.call_options = self.call_options.changed(call_options)
        return twin

    def get_result(self, id: str | UUID) -> TaskResult[R]:
        """The handle of an earlier run, read from its row. Raises ``ResultNotFound``."""
        result: TaskResult[R] = TaskResult(id, self.name)
        result.refresh()
        return result

    def retry(self, exc: BaseException | None = None, **how: Any) -> NoReturn:
        """For ``bind=True`` tasks: :meth:`TaskContext.retry` of the run that is going on."""
        raise context.current_task.retry(exc, **how)

    def snooze(self, delay: float | timedelta) -> NoReturn:
        """For ``bind=True`` tasks: :meth:`TaskContext.snooze` of the run that is going on."""
        raise context.current_task.snooze(delay)

    def replace(self, canvas: Any) -> NoReturn:
        """For ``bind=True`` tasks: :meth:`TaskContext.replace` of the run that is going on."""
        raise context.current_task.replace(canvas)

    @property
    def request(self) -> TaskContext:
        """For ``bind=True`` tasks: the context of the run that is going on."""
        found = context.current_context()
        if found is None:
            raise RuntimeError(f"{self.name} is not running in a worker, so there is no request")
        return found

    def _leading(self) -> tuple[Any, ...]:
        if self.options.bind:
            return (self,)
        return (context.current_context(),) if self.options.takes_context else ()

    def _own_context(self, args: Any, kwargs: Any) -> TaskContext:
        delivery = Delivery(
            new_ids(1)[0], 0, self.name, self.options.queue_name, "", None, None, clock.time(), None, 1, 0, False
        )
        return TaskContext(self, delivery, NO_HEADERS, list(args), dict(kwargs))

    def _call_in_own_context(self, args: Any, kwargs: Any) -> R:
        token = context.activate(self._own_context(args, kwargs))
        try:
            return cast(R, cast(Any, self.function)(*self._leading(), *args, **kwargs))
        finally:
            context.deactivate(token)

    def _result(
        self, message: Message, marker: OpenTransaction | None, duplicates: Mapping[str, Holder]
    ) -> TaskResult[R]:
        holder = duplicates.get(message.id)
        if holder is not None:
            return TaskResult(holder.id, self.name, status=holder.status, open=marker, is_duplicate=True)
        status, kind = client.first_status(message), client.kind_of(message, marker)
        return TaskResult(message.id, self.name, status=status, open=marker, kind=kind)

    def _message(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Message:
        call, own = self.call_options, self.options
        if call is not PLAIN_CALL or own.expires is not None or conf.get_settings().routes:
            return self.messages([(args, kwargs)])[0]
        # The common case, worked out: what Task.enqueue costs is mostly this and the database's own work.
        id, payload, headers = new_ids(1)[0], self._payload(args, kwargs), client.ambient_headers()
        text = headers and headers.dumps()
        now, tracking = clock.now(), self._plain_tracking
        return Message(id, self.name, own.queue_name, own.priority, payload, text, now, None, None, tracking)

    def messages(self, calls: Sequence[tuple[Sequence[Any], Mapping[str, Any]]], front: int = 0) -> list[Message]:
        """The messages of these calls, not yet enqueued; ``front`` arguments will come before their own."""
        call, own = self.call_options, self.options
        now = clock.now()
        if call.task_id is not None and len(calls) != 1:
            raise ValueError("task_id names one run, so it does not go with enqueue_many")
        ids = [call.task_id] if call.task_id is not None else new_ids(len(calls))
        headers = self._headers()
        run_after = call.run_after if call.countdown is None else now + timedelta(seconds=call.countdown)
        expires = own.expires if call.expires is None else call.expires
        expires_at = now + timedelta(seconds=expires) if isinstance(expires, (int, float)) else expires
        messages = []
        for id, (args, kwargs) in zip(ids, calls, strict=True):
            route = self._route(args, kwargs)
            messages.append(
                Message(
                    id,
                    self.name,
                    route.queue_name or own.queue_name,
                    own.priority if route.priority is None else route.priority,
                    self._payload(args, kwargs, front),
                    headers if route.exchange is None else with_routing_key(headers, route.routing_key),
                    now,
                    run_after,
                    expires_at,
                    self._tracking(),
                    route.exchange,
                    route.routing_key or "",
                )
            )
        return messages

    def _route(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Route:
        """Where one call goes: as it says itself, else as the project routes it; what neither says is the task's."""
        call = self.call_options
        found = Route()
        if conf.get_settings().routes:
            found = routing.find(self.name, args, kwargs) or found
        exchange = call.exchange or (None if call.queue_name else found.exchange)
        return Route(
            f"{EXCHANGE}{exchange}" if exchange else call.queue_name or found.queue_name,
            found.priority if call.priority is None else call.priority,
            exchange,
            found.routing_key if call.routing_key is None else call.routing_key,
        )

    def _tracking(self) -> Tracking:
        if self.options.track_pending:
            return Tracking.ROW
        called = self.call_options.ignore_result
        ignored = self.options.ignore_result if called is None else called
        return Tracking.FAILURE if ignored else Tracking.END

    def _headers(self) -> str | None:
        call, ambient = self.call_options, client.ambient_headers() or NO_HEADERS
        return ambient._replace(
            time_limit=call.time_limit,
            soft_time_limit=call.soft_time_limit,
            memory_limit=call.memory_limit,
            max_retries=call.max_retries,
            ignore_result=call.ignore_result,
            rerun_of=call.rerun_of,
        ).dumps()

    def _payload(self, args: Sequence[Any], kwargs: Mapping[str, Any], front: int = 0) -> str:
        self.check_arguments((*(None,) * front, *args) if front else args, kwargs)
        try:
            return serializers.dumps([list(args), dict(kwargs) if kwargs else {}])
        except SerializationError as error:
            raise self._blame(args, kwargs, error) from error.__cause__

    def check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise :exc:`InvalidArguments` unless they bind to the task's signature."""
        if kwargs or not self._signature.takes(len(args)):
            self._signature.bind(self.name, args, kwargs)

    def _blame(self, args: Sequence[Any], kwargs: Mapping[str, Any], error: SerializationError) -> SerializationError:
        for name, value in self._signature.bind(self.name, args, kwargs).arguments.items():
            try:
                serializers.dumps(value)
            except SerializationError as cause:
                return SerializationError(f"{self.name}: argument {name!r}: {cause}")
        return error


@overload
def task(function: type[task_types.TaskClass[P, T]], /) -> Task[P, T]: ...
@overload
def task(function: Coroutines[P, T], /) -> CoroutineTask[P, T]: ...
@overload
def task(function: Callable[P, T], /) -> Task[P, T]: ...
@overload
def task(*, bind: Literal[True], **given: Any) -> task_types.FillingDecorator: ...
@overload
def task(*, takes_context: Literal[True], **given: Any) -> task_types.FillingDecorator: ...
@overload
def task(*, batch_size: int, **given: Any) -> task_types.BatchDecorator: ...
@overload
def task(function: None = None, /, **given: Any) -> task_types.Decorator: ...
def task(function: Any = None, /, **given: Any) -> Any:
    """Make a function, or a :class:`Task` subclass with a ``run`` method, a task.

    Options are the fields of :class:`~django_taskq.options.TaskOptions`; an unknown one raises
    :exc:`~django_taskq.exceptions.InvalidTask` at import, as does a second task of the same name.
    """

    def decorate(target: Any) -> Task[Any, Any]:
        made: Task[Any, Any] = defining.make(Task, target, given)
        registry.register(made)
        return made

    return decorate if function is None else decorate(function)
