"""``@task`` on functions: what its calls take, and what their results give."""

from typing import Any, assert_type

from django_taskq import Task, TaskResult, task


@task
def bare(number: int, *, text: str = "") -> list[str]:
    return [text] * number


@task(queue_name="reports", priority=5, max_retries=None, autoretry_for=(OSError,), expires=60)
def with_options(number: int) -> str:
    return str(number)


@task()
def with_brackets() -> None: ...


assert_type(bare.enqueue(1), TaskResult[list[str]])
assert_type(bare.delay(1, text="a"), TaskResult[list[str]])
assert_type(with_options.enqueue(1), TaskResult[str])
assert_type(with_options.enqueue(number=1), TaskResult[str])
assert_type(with_brackets.enqueue(), TaskResult[None])

bare.enqueue("1")  # E: arg-type
bare.enqueue()  # E: Missing positional argument "number"
bare.enqueue(1, "a")  # E: Too many positional arguments
bare.enqueue(1, text=2)  # E: arg-type
bare.enqueue(1, txt="a")  # E: Unexpected keyword argument "txt"
bare.delay("1")  # E: arg-type
bare.delay()  # E: call-arg
with_options.enqueue("1")  # E: arg-type
with_options.delay(1, colour="red")  # E: Unexpected keyword argument "colour"
with_brackets.enqueue(1)  # E: Too many arguments

# Called, it is the function.
assert_type(bare(1), list[str])
assert_type(with_options(1), str)
bare("1")  # E: arg-type
with_options()  # E: call-arg


# task() as a function of functions.
def plain(number: int) -> float:
    return number / 2


assert_type(task(plain)(1), float)
assert_type(task(name="half")(plain)(1), float)
assert_type(task(plain).enqueue(1), TaskResult[float])
task(plain)("1")  # E: arg-type
task(name="half")(plain).enqueue("1")  # E: arg-type
task(1)  # E: call-overload
task(name="half")(1)  # E: call-overload


# Copies with other options are the same kind of task.
assert_type(bare.using(countdown=3).enqueue(1), TaskResult[list[str]])
assert_type(bare.using(countdown=3)(1), list[str])
bare.using(countdown=3).enqueue("1")  # E: arg-type
bare.using(countdown=3).using(priority=1).delay()  # E: call-arg
bare.using(3)  # E: Too many arguments

# Many at once, and Celery's apply_async: the arguments are not checked, the results are.
assert_type(bare.enqueue_many([((1,), {}), ((2,), {"text": "a"})]), list[TaskResult[list[str]]])
assert_type(with_options.apply_async((1,), countdown=3), TaskResult[str])
assert_type(bare.get_result("0190a5b4-0000-7000-8000-000000000000"), TaskResult[list[str]])
bare.enqueue_many([1, 2])  # E: list-item # E: list-item
with_options.apply_async(1)  # E: arg-type


# The first parameter is filled by the worker: callers do not give it.
@task(bind=True)
def bound(self: Task[[int], str], number: int) -> str:
    if number < 0:
        self.retry(countdown=3)
    elif number:
        return self.request.id
    raise self.retry(ValueError("nothing"))


@task(takes_context=True, priority=3)
def with_context(context: Any, number: int) -> bytes:
    return bytes(number)


assert_type(bound.enqueue(1), TaskResult[str])
assert_type(bound(1), str)
assert_type(with_context.delay(number=1), TaskResult[bytes])
bound.enqueue()  # E: Missing positional argument "number"
bound.enqueue("1")  # E: arg-type
with_context.enqueue(None, 1)  # E: Too many arguments # E: arg-type


@task(bind=True)  # E: arg-type
def bound_without_parameters() -> None: ...


# Whoever takes some task says what it is called with and gives.
def run_it(some: Task[[int], object]) -> TaskResult[object]:
    return some.enqueue(1)


run_it(with_options)
run_it(bound)
run_it(bare)  # text has a default
run_it(with_brackets)  # E: arg-type
