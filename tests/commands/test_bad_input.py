"""What people get wrong: each error names the thing and the mend, and each exit code says what kind of error it is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from django.core.management import execute_from_command_line
from django.core.management.base import CommandError

from django_taskq.exceptions import InvalidTask, UnknownQueue
from django_taskq.models import TaskRecord
from django_taskq.task import task
from tests.commands.conftest import Output, Project
from tests.testapp.tasks import add

ERROR, USAGE, UNREACHABLE = 1, 2, 3


@pytest.fixture
def manage(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``manage.py`` in this process, for what it refuses: the exit code, and what is on stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            execute_from_command_line(["manage.py", *arguments])
        return ended.value.code, *capsys.readouterr()  # type: ignore[return-value]

    return run


def test_unknown_option_of_a_task() -> None:
    with pytest.raises(InvalidTask, match=r"@task has no option 'que_name'\. Did you mean \"queue_name\"\?"):
        task(name="x", que_name="mail")(lambda: None)


def test_unknown_queue() -> None:
    with pytest.raises(UnknownQueue, match=r"no queue is named 'defualt'\. Did you mean \"default\"\?"):
        add.using(queue_name="defualt").enqueue(1, 2)


def test_naive_eta() -> None:
    with pytest.raises(ValueError, match=r"run_after=.* is not usable: it takes an aware datetime, as USE_TZ is on"):
        add.apply_async((1, 2), eta=datetime(2030, 1, 1))  # noqa: DTZ001 - that is the point


def test_priority_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"priority=101 is not usable: it takes a whole number from -100 to 100"):
        add.using(priority=101)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--processes", "0"], "argument --processes: '0' is not usable: it takes a whole number of at least 1"),
        (["--threads", "two"], "argument --threads: 'two' is not usable: it takes a whole number of at least 1"),
        (["--max-tasks", "-1"], "argument --max-tasks: '-1' is not usable: it takes a whole number of at least 1"),
        (["--grace", "-1"], "argument --grace: '-1' is not usable: it takes a number of seconds of at least 0"),
        (["--grace", "nan"], "argument --grace: 'nan' is not usable: it takes a number of seconds of at least 0"),
        (["--queues", "defualt"], "argument --queues: no queue is named 'defualt'. Did you mean \"default\"?"),
        (["--queues", ","], "argument --queues: --queues names no queue"),
        (["--queues", "default=0"], "argument --queues: the weight of queue 'default' is '0'; it takes a whole number"),
        (["--slots", "defualt=2"], "argument --slots: no queue is named 'defualt'. Did you mean \"default\"?"),
        (["--slots", "default"], "argument --slots: it takes parts such as mail=2 or default+bulk=6, which 'default'"),
        (["--slots", "default=2", "--queues", "default"], "argument --slots: not together with --queues"),
        (["--slots", "default=2", "--processes", "2"], "argument --slots: not together with --processes"),
        (["--slots", "default=2", "--autoscale", "1,2"], "argument --slots: not together with --autoscale"),
        (["--autoscale", "2"], "argument --autoscale: it takes the fewest and the most processes, such as 2,8"),
        (["--autoscale", "1,2", "--processes", "2"], "argument --autoscale: not together with --processes"),
        (["--autoscale", "1,2", "--max-tasks", "9"], "argument --autoscale: not together with --max-tasks"),
        (["--max-load", "bulk=cpu:80"], "argument --max-load: no queue is named 'bulk'."),
        (["--max-load", "default=80"], "argument --max-load: it takes limits such as cpu:80 or memory:90"),
        (["--proceses", "1"], "unrecognized arguments: --proceses 1"),
    ],
)
def test_wrong_use_of_taskworker(manage: Callable[..., Any], arguments: list[str], error: str) -> None:
    code, out, err = manage("taskworker", *arguments)
    assert (code, out) == (USAGE, "")
    assert error in err


def test_wrong_use_as_the_shell_sees_it(project: Project) -> None:
    done = project.manage("taskworker", "--queues", "defualt")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "argument --queues: no queue is named 'defualt'. Did you mean \"default\"?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["taskworker"], ["taskq", "status"]])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"THREDS": 2}, "TASKQ['THREDS'] is not a setting. Remove it or correct its name. Did you mean"),
        ({"THREADS": 0}, "TASKQ['THREADS'] = 0 is not usable. It takes a whole number of at least 1."),
        ({"BROKER_URL": "smtp://a:hunter2@b/"}, "TASKQ['BROKER_URL'] is not usable. It takes a URL whose"),
        ({"DATABASE": "defualt"}, "TASKQ['DATABASE'] names the unknown alias 'defualt'."),
    ],
)
def test_wrong_settings(
    manage: Callable[..., Any], settings: Any, command: list[str], value: dict[str, Any], error: str
) -> None:
    settings.TASKQ = value
    code, out, err = manage(*command)
    assert (code, out) == (USAGE, "")
    assert f"CommandError: {error}" in err
    assert "hunter2" not in err


@pytest.mark.parametrize("command", [["taskworker"], ["taskq", "status"]])
def test_wrong_settings_as_the_shell_sees_them(project: Project, command: list[str]) -> None:
    project.settings("TASKQ = {'BROKER_URL': 'smtp://a:hunter2@b/'}")
    done = project.manage(*command)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "CommandError: TASKQ['BROKER_URL'] is not usable. It takes a URL whose" in done.stderr
    assert "hunter2" not in done.stderr


def test_taskworker_before_migrate(project: Project) -> None:
    done = project.manage("taskworker", "--burst")
    assert (done.returncode, done.stdout) == (ERROR, "")
    assert "the tables of django_taskq on the database 'default' are not up to date (0001_initial" in done.stderr
    assert done.stderr.splitlines()[-1].strip() == "python manage.py migrate"


def test_taskworker_before_migrate_of_another_database(project: Project) -> None:
    project.settings(
        "DATABASES['rows'] = {**DATABASES['default'], 'NAME': 'rows.sqlite3'}\nTASKQ = {'DATABASE': 'rows'}\n"
        "DATABASE_ROUTERS = ['django_taskq.router.TaskqRouter']"
    )
    done = project.manage("taskworker", "--burst")
    assert done.returncode == ERROR
    assert done.stderr.splitlines()[-1].strip() == "python manage.py migrate --database=rows"
    assert project.manage("migrate", "--database=rows").returncode == 0
    done = project.manage("taskworker", "--burst", "--processes", "1")
    assert done.returncode == 0, done.stderr


def test_taskq_before_migrate(project: Project) -> None:
    done = project.manage("taskq", "status")
    assert (done.returncode, done.stdout) == (ERROR, "")
    assert done.stderr.splitlines()[-1].strip() == "python manage.py migrate"


UNREACHABLE_DATABASE = """
DATABASES["default"] = {
    "ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": "1", "NAME": "shop", "USER": "ann",
    "PASSWORD": "hunter2%40", "OPTIONS": {"options": "-c search_path=hunter2%40"},
}
"""


@pytest.mark.parametrize("command", [["taskworker"], ["taskq", "status"]])
def test_unreachable_database(project: Project, command: list[str]) -> None:
    project.settings(UNREACHABLE_DATABASE)
    done = project.manage(*command, setup="import django_taskq.management.storage as s; s.TRIES_SECONDS = 0.3")
    assert (done.returncode, done.stdout) == (UNREACHABLE, "")
    assert "the database 'default' (postgresql://ann:***@127.0.0.1:1/shop) cannot be reached: " in done.stderr
    assert "refused" in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_task_module_that_fails_to_import(project: Project) -> None:
    project.write("shop/tasks.py", "import shop.nowhere\n")
    done = project.manage("taskworker", "--burst")
    assert done.returncode == ERROR
    assert "The task module shop.tasks could not be imported: ModuleNotFoundError: No module named 'shop.nowhere'" in (
        done.stderr
    )
    assert "ready" not in done.stdout


CONFIGURED_BY_HAND = """
import django
from django.conf import settings
from django.core.management import call_command
settings.configure(
    INSTALLED_APPS=["django_taskq"], DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "x"}}
)
django.setup()
call_command("taskworker")
"""


@pytest.mark.parametrize("module", ["", "settings"])
def test_settings_without_a_module(project: Project, module: str) -> None:
    done = project.python(CONFIGURED_BY_HAND, DJANGO_SETTINGS_MODULE=module)
    assert done.returncode == ERROR  # of Python, for an exception nobody caught
    assert "CommandError: the settings were made with settings.configure()" in done.stderr
    assert "name it in DJANGO_SETTINGS_MODULE or with --settings" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["stauts"],
            "no verb is named 'stauts'. Did you mean \"status\"? Verbs: status, health, queues,",
        ),
        ([], "the following arguments are required: VERB"),
        (["cancel"], "the following arguments are required: ID"),
        (["show", "12"], "CommandError: '12' is not the id of a run"),
    ],
)
def test_wrong_use_of_taskq(manage: Callable[..., Any], arguments: list[str], error: str) -> None:
    code, out, err = manage("taskq", *arguments)
    assert (code, out) == (USAGE, "")
    assert error in err


ADD, ID = "tests.testapp.tasks.add", "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["run", "length_of"], "no task is named 'length_of'. Did you mean \"tests.testapp.tasks.length_of\"?"),
        (["run", "tests.testapp.tasks.ad"], f'Did you mean "{ADD}"?'),
        (["run", ADD, "--args", "1"], "argument --args: '1' is not usable: it takes an array, such as '[2, 3]'"),
        (["run", ADD, "--args", "["], "argument --args: '[' is not JSON"),
        (["run", ADD, "--kwargs", "[]"], "argument --kwargs: '[]' is not usable: it takes an object"),
        (["run", ADD, "--args", "[1]"], "missing a required argument: 'y'"),
        (
            ["run", ADD, "--args", "[1, 2]", "--queue", "defualt"],
            "no queue is named 'defualt'. Did you mean \"default\"?",
        ),
        (["run", ADD, "--args", "[1, 2]", "--queue", "a b"], "no queue is named 'a b'."),
        (["settings", "--task", "tests.testapp.tasks.ad"], f'Did you mean "{ADD}"?'),
        (["retry"], "give either ids or --failed"),
        (["retry", "--failed", ID], "give either ids or --failed"),
        (["retry", "--task", "x", ID], "argument --task: it goes with --failed"),
        (["retry", "--failed", "--task", "tests.testapp.tasks.ad"], f'Did you mean "{ADD}"?'),
        (["cancel", "x\ny"], "'x\\ny' is not the id of a run"),
        (["show", ID], f"no run has the id {ID}: it was rolled back, pruned, or never enqueued."),
        (["retry", ID], f"no run has the id {ID}"),
        (["cancel", ID], f"no run has the id {ID}"),
    ],
)
def test_wrong_use_of_a_verb(call: Callable[..., Output], arguments: list[str], error: str) -> None:
    with pytest.raises(CommandError) as caught:
        call(*arguments)
    assert error in str(caught.value)
    assert caught.value.returncode == USAGE
    assert not TaskRecord.objects.exists()
