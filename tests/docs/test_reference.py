"""The reference is whole, and names nothing that does not exist."""

from __future__ import annotations

import dataclasses
import inspect
import re
from argparse import SUPPRESS, ArgumentParser
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands, load_command_class
from django.utils.module_loading import import_string

from django_taskq import (
    Unique,
    Workflow,
    checks,
    conf,
    context,
    exceptions,
    group,
    options,
    signals,
    steps,
    unique_options,
    workflow_result,
)
from django_taskq.brokers.kombu.options import Options as KombuOptions
from django_taskq.brokers.redis import addresses
from django_taskq.control import set_limit
from django_taskq.management.verbs import VERBS
from django_taskq.result import TaskResult
from django_taskq.status import Status
from tests.docs import pages
from tests.docs.pages import DOCS, ROOT

DJANGO_OPTIONS = {
    action.dest for action in load_command_class("django.core", "check").create_parser("manage.py", "check")._actions
} - {"tags", "databases"}

# Words in capitals that pages put into back-ticks and that are no settings of ours.
OTHER_WORDS = {
    "INSTALLED_APPS", "DATABASES", "LOGGING", "DEBUG", "USE_TZ", "ATOMIC_REQUESTS", "SILENCED_SYSTEM_CHECKS", "TASKQ",
    "URL", "PREFIX", "OPTIONS", "CELERY_BEAT_SCHEDULE", "CELERY_TIMEZONE", "MATERIALIZED", "CASE", "UUID", "NAME",
    "ACTION", "VALUE", "TASK", "RUN", "CONN_MAX_AGE", "CONN_HEALTH_CHECKS",
}  # fmt: skip


def text(name: str) -> str:
    return pages.prose(DOCS / name)


@cache
def arguments(command: str, verb: str = "") -> dict[str, Any]:
    """The options and arguments of a command, as they are typed, without Django's own."""
    parser: ArgumentParser = load_command_class(get_commands()[command], command).create_parser("manage.py", command)
    if verb:
        (subparsers,) = [action for action in parser._actions if action.dest == "verb"]
        parser = subparsers.choices[verb]  # type: ignore[index]
    own = [action for action in parser._actions if action.dest not in DJANGO_OPTIONS and action.help != SUPPRESS]
    return {str((action.option_strings or [action.metavar])[-1]): action for action in own}


class TestSettings:
    page = DOCS / "settings.md"

    def test_all_are_there_and_no_others(self) -> None:
        assert sorted(pages.headings(self.page, 3)) == sorted(conf.setting_names())

    @pytest.mark.parametrize("name", conf.setting_names())
    def test_defaults_are_right(self, name: str) -> None:
        found = re.search(r"^Default: (?:`(.+)`|(.+))$", pages.section(self.page, name), re.MULTILINE)
        assert found, f"{name} has no line with its default"
        (field,) = [field for field in dataclasses.fields(conf.Settings) if field.name == name.lower()]
        if found[2]:
            assert field.default_factory is not dataclasses.MISSING, f"the default of {name} is a value: show it"
            return
        shown = eval(found[1], {"timedelta": __import__("datetime").timedelta})
        assert field.metadata["parse"](shown) == field.default

    @pytest.mark.parametrize(
        ("heading", "known"),
        [
            ("Options of Redis", [*addresses._PARSERS]),
            ("Options of RabbitMQ and kombu", [field.name for field in dataclasses.fields(KombuOptions)]),
        ],
    )
    def test_options_of_brokers(self, heading: str, known: list[str]) -> None:
        assert pages.names(pages.section(self.page, heading), "name") == known


class TestOptions:
    def test_all_options_of_tasks(self) -> None:
        assert pages.names(text("tasks.md"), "option") == options.option_names()

    def test_their_defaults(self) -> None:
        defaults = dataclasses.asdict(options.TaskOptions())
        shown = {row[0].strip("`"): row[1].strip("`") for row in pages.rows(text("tasks.md"), "option")}
        assert {name: eval(value) for name, value in shown.items()} == defaults

    def test_all_options_of_calls(self) -> None:
        known = [field.name for field in dataclasses.fields(options.CallOptions)]
        assert pages.names(text("calling.md"), "option") == known

    def test_the_context(self) -> None:
        own = {name for name in vars(context.TaskContext) if not name.startswith("_")}
        shown = {name.removesuffix("()") for name in pages.names(text("tasks.md"), "attribute")}
        assert shown == own - {"additions", "delivery", "headers", "locks", "task"}

    def test_the_result(self) -> None:
        own = {name for name in vars(TaskResult) if not name.startswith("_")}
        shown = {name.partition("(")[0] for name in pages.names(text("calling.md"), "member")}
        assert shown == own


class TestUniqueness:
    def test_all_policies(self) -> None:
        shown = pages.names(text("uniqueness.md"), "policy")
        policies = [f'on_duplicate="{policy}"' for policy in unique_options.POLICIES]
        assert [name.partition(",")[0] for name in shown] == [*policies, "debounce=30"]

    def test_all_there_is_to_say(self) -> None:
        named = {name for code in pages.inline_code(DOCS / "uniqueness.md") for name in re.findall(r"([a-z_]+)=", code)}
        assert {field.name for field in dataclasses.fields(Unique)} <= named


class TestWorkflows:
    @pytest.mark.parametrize(
        ("handle", "first"),
        [
            (workflow_result.WorkflowResult, "member of a workflow"),
            (workflow_result.GroupResult, "member of a group besides"),
        ],
    )
    def test_the_handles(self, handle: type, first: str) -> None:
        inherited = set(dir(handle.__base__))
        own = {name for name in vars(handle) if not name.startswith("_")} - inherited
        if handle is workflow_result.WorkflowResult:
            own |= {"id", "name", "size"}
        # Twins for coroutines are named in one sentence for all.
        own -= {f"a{name}" for name in own} | {"await_end"}
        shown = {name.partition("(")[0] for name in pages.names(text("workflows.md"), first)}
        assert shown == own

    def test_what_callbacks_get(self) -> None:
        page = text("workflows.md")
        for name in (*steps.StepError._fields, *steps.FailedStep._fields):
            assert f"`{name}`" in page

    def test_the_limit(self) -> None:
        assert f"{conf.Settings().max_workflow_size:,} unless" in text("workflows.md")


class TestChecks:
    def test_all_are_there_and_no_others(self) -> None:
        assert pages.headings(DOCS / "checks.md", 3) == list(checks.CHECKS)

    @pytest.mark.parametrize("number", list(checks.CHECKS))
    def test_each_is_explained(self, number: str) -> None:
        assert len(pages.section(DOCS / "checks.md", number).split()) > 5


class TestSignalsAndErrors:
    def test_all_signals(self) -> None:
        own = [name for name, value in vars(signals).items() if isinstance(value, signals.Signal)]
        assert sorted(pages.names(text("signals.md"), "signal")) == sorted(own)

    def test_their_arguments_are_those_of_the_module(self) -> None:
        said = " ".join((signals.__doc__ or "").split())
        for row in pages.rows(text("signals.md"), "signal"):
            if row[0] != "`task_failed`":  # there it says "the same"
                part = said.partition(f"{row[0].strip('`')} ")[2][:200]
                missing = [name for name in re.findall(r"`(\w+)`", row[1]) if f"``{name}``" not in part]
                assert missing == [], row[0]

    def test_all_errors_with_their_bases(self) -> None:
        own = {
            name: [base.__name__ for base in value.__bases__]
            for name, value in vars(exceptions).items()
            if isinstance(value, type) and issubclass(value, BaseException)
        }
        shown = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in pages.rows(text("errors.md"), "error")}
        assert shown == own


class TestCommands:
    page = DOCS / "commands.md"

    def test_all_verbs(self) -> None:
        shown = [heading for heading in pages.headings(self.page, 2) if heading.startswith("taskq ")]
        assert shown == [f"taskq {verb}" for verb in VERBS]

    @pytest.mark.parametrize("verb", list(VERBS))
    def test_all_options_of_a_verb(self, verb: str) -> None:
        shown = pages.names(pages.section(self.page, f"taskq {verb}"), "option")
        assert [name.strip("`") for name in shown if name.startswith("--") or name.isupper()]
        assert sorted(name for name in shown if name != "enqueue") == sorted(arguments("taskq", verb))

    def test_all_options_of_the_worker(self) -> None:
        assert pages.names(text("worker.md"), "option") == list(arguments("taskworker"))

    def test_the_parts_of_the_benchmark(self) -> None:
        plan = import_module("django_taskq.bench.plan")
        section = pages.section(self.page, "taskq bench")
        assert ", ".join(f"`{part}`" for part in plan.PARTS) in section


class TestNames:
    """Whatever any page names exists."""

    @pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
    def test_settings(self, page: Path) -> None:
        known = {*conf.setting_names(), *Status.names, *OTHER_WORDS}
        if page.name == "internals.md":
            known |= {row[1].strip("`") for row in pages.rows(pages.prose(page), "where")}
        named = {word for word in pages.inline_code(page) if re.fullmatch(r"[A-Z][A-Z_]{2,}", word)}
        named |= set(re.findall(r"TASKQ\[['\"](\w+)['\"]\]", page.read_text()))
        named |= set(re.findall(r"\(settings\.md#(\w+)\)", page.read_text()))
        upper = {name.upper() for name in named}
        assert upper - known == set()

    @pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
    def test_checks(self, page: Path) -> None:
        assert set(re.findall(r"\b[EW]0\d\d\b", page.read_text())) <= set(checks.CHECKS)

    @pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
    def test_command_line_options(self, page: Path) -> None:
        known = {name for verb in VERBS for name in arguments("taskq", verb)} | set(arguments("taskworker"))
        known |= {"--verbosity", "--settings"}
        named = {name for code in pages.inline_code(page) for name in re.findall(r"(?<!\S)--[a-z-]+", code)}
        assert named <= known

    @pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
    def test_options_of_tasks(self, page: Path) -> None:
        known = {*options.option_names(), "queue", "eta", "timeout"}
        known |= {field.name for field in dataclasses.fields(options.CallOptions)}
        known |= {
            name
            for made in (group, Workflow, Workflow.add, set_limit, context.TaskContext.lock)
            for name in inspect.signature(made).parameters
        }
        known |= {field.name for field in dataclasses.fields(Unique)}
        named = {name for code in pages.inline_code(page) for name in re.findall(r"(?<![\w-])([a-z_]+)=", code)}
        # Weights of queues, Celery's and Python's own.
        named -= {"mail", "default", "exc", "days", "hours", "execute", "flush_every", "flush_interval"}
        assert named <= known

    @pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
    def test_dotted_names(self, page: Path) -> None:
        for name in pages.inline_code(page):
            if not re.fullmatch(r"django_taskq(\.\w+)+", name):
                continue
            head = name.split(".")[1]
            verbs = "view|add|change|retry|run|schedule|cancel|delete|replay|discard|control|pause|set|resume"
            if re.fullmatch(rf"({verbs})_\w+", head):
                assert head in permission_names(), name
            else:
                find(name)

    def test_errors(self) -> None:
        for page in pages.PAGES:
            for name in pages.inline_code(page):
                if re.fullmatch(r"(Task|Result|Unknown|Lease|Worker|Poison|Payload|Cyclic|Invalid)[A-Za-z]+", name):
                    known = {*vars(exceptions), "TaskResult", "TaskRecord", "TaskAttempt", "TaskError"}
                    assert name in known, f"{page.name}: {name}"

    def test_files(self) -> None:
        for page in (DOCS / "internals.md", DOCS / "states.md"):
            for name in pages.inline_code(page):
                if re.fullmatch(r"[\w/]+(\.py|/)", name):
                    places = [ROOT / "django_taskq" / name, ROOT / "django_taskq/brokers/database" / name, ROOT / name]
                    assert any(place.exists() for place in places) or name == "tasks.py", f"{page.name}: {name}"

    def test_numbers_of_the_internals(self) -> None:
        shown = pages.rows(text("internals.md"), "where")
        assert shown
        for where, name, value, _ in shown:
            module = import_module("django_taskq." + where.strip("`").removesuffix(".py").replace("/", "."))
            assert getattr(module, name.strip("`")) == float(value), name

    def test_statuses(self) -> None:
        page = text("states.md")
        assert all(status in page for status in Status.names)

    def test_links_of_the_readme(self) -> None:
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
            assert (ROOT / target).is_file(), target

    def test_no_page_is_forgotten(self) -> None:
        toc = "\n".join(block.text for block in pages.blocks(DOCS / "index.md"))
        assert {page.stem for page in DOCS.glob("*.md")} - {"index"} == {
            line for line in toc.splitlines() if re.fullmatch(r"[a-z-]+", line)
        }


def permission_names() -> set[str]:
    from django_taskq.models import Command, Limit, Queue, TaskLimits, TaskRecord, Workflow

    models = (TaskRecord, Command, Limit, Queue, TaskLimits, Workflow)
    own = {name for model in models for name, _ in model._meta.permissions}
    own |= {"view_command", "view_limit", "view_queue", "view_tasklimits", "view_workflow"}
    return own | {f"{verb}_{model}" for verb in ("view", "delete") for model in ("taskrecord", "worker")}


def find(name: str) -> object:
    try:
        return import_module(name)
    except ImportError:
        return import_string(name)
