"""The commands that pages show exist, with these options."""

from __future__ import annotations

import shlex
import tomllib
from typing import Any

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import CommandError

from tests.docs import pages
from tests.docs.pages import ROOT, Block

CONSOLE = [(block, command) for block in pages.all_blocks("console") for command in block.commands()]


def parse(command: str) -> Any:
    """What ``python manage.py ...`` makes of its arguments; an error where it would refuse them."""
    words = shlex.split(command)
    assert words[:2] == ["python", "manage.py"], command
    name, arguments = words[2], words[3:]
    found = load_command_class(get_commands()[name], name)
    return found.create_parser("manage.py", name).parse_args(arguments)


@pytest.mark.parametrize(("block", "command"), CONSOLE, ids=[f"{b.page.stem}: {c}" for b, c in CONSOLE])
def test_a_command_exists(block: Block, command: str) -> None:
    program = shlex.split(command)[0]
    if program == "python":
        parse(command)
    elif program == "make":
        targets = [line.partition(":")[0] for line in (ROOT / "Makefile").read_text().splitlines()]
        assert shlex.split(command)[1] in targets
    elif program == "pip":
        name = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
        assert command == f"pip install {name}", "the obvious name is somebody else's package"
    else:
        assert command == "django-admin startproject shop .", f"{block.where}: nobody knows {command}"


def test_a_wrong_option_is_seen() -> None:
    with pytest.raises((CommandError, SystemExit)):
        parse("python manage.py taskworker --quues mail")
    with pytest.raises((CommandError, SystemExit)):
        parse("python manage.py taskq prune --all")


def test_nobody_is_sent_to_the_wrong_package() -> None:
    for page in pages.PAGES:
        assert "install django-taskq" not in page.read_text(), page
