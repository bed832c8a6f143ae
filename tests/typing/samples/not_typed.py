"""What the types do not see, and why. None of these lines is an error; the day one is, it moves to another sample."""

from typing import Any, assert_type

from django_taskq import Task, current_task, task


@task
def count(text: str) -> int:
    return len(text)


# A pair of a tuple and a dict cannot be checked against a ParamSpec; nor can apply_async's.
count.enqueue_many([((1, 2, 3), {"colour": "red"})])
count.apply_async((1,), {"colour": "red"})

# The names and values of options are checked when the module is imported, or at the call.
task(prioritty="high")(count.function)
count.using(prioritty="high")
count.apply_async(("a",), prioritty="high")

# A schedule calls its task without arguments: @task refuses this one at import, since its parameter has no default.
task(name="scheduled", schedule="0 3 * * *")(count.function)

# It stands for whatever runs, by __getattr__.
assert_type(current_task.attempt, Any)
assert_type(current_task.atempt, Any)
assert_type(current_task.retry("not an error"), Any)
if current_task:
    pass


# mypy ignores what a decorator makes of a class (python/mypy#3135), so this name stays the class, and these are errors
# that should not be. Type checkers that do follow it see Task[[str], str].
@task
class Greeting(Task[[str], str]):
    def run(self, name: str) -> str:
        return f"Hello {name}"


Greeting.enqueue("Anna")  # E: arg-type # E: call-arg
