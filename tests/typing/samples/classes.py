"""Class tasks. See ``not_typed.py`` for ``@task`` on a class, which mypy does not follow."""

from typing import assert_type

from django_taskq import Task, TaskResult, task


class Greeting(Task[[str], str]):
    greeting = "Hello"

    def run(self, name: str, *, again: bool = False) -> str:
        if again:
            self.retry(countdown=3)
        return f"{self.greeting} {name} from {self.request.id}"


greet = task(Greeting)

assert_type(greet.enqueue("Anna"), TaskResult[str])
assert_type(greet.delay("Anna", again=True).get(), str)
assert_type(greet("Anna"), str)
assert_type(greet.using(countdown=3).enqueue("Anna"), TaskResult[str])
greet.enqueue(1)  # E: arg-type
greet.enqueue()  # E: call-arg
greet.enqueue("Anna", agian=True)  # E: did you mean "again"?


class Bare(Task):  # E: type-arg
    def run(self) -> None: ...
