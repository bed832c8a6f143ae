"""Not as it says, on purpose: the check has to report both lines below."""

from django_taskq import task


@task
def count(text: str) -> int:
    return len(text)


count.enqueue(1)
count.enqueue("a")  # E: arg-type
