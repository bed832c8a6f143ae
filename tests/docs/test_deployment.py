"""The units and manifests that pages show can be parsed, and fit the real command line and what a worker does."""

from __future__ import annotations

import json
import re
import shlex
from configparser import ConfigParser
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, get_commands, load_command_class

from django_taskq import checks
from django_taskq.worker import requests, supervisor
from django_taskq.worker.health.station import PROBES
from tests.docs import pages
from tests.docs.pages import DOCS

PAGE = DOCS / "deployment.md"
# Seconds that a worker may take besides its grace period: to kill what is left, give it back and sign off.
MARGIN = 10
DIRECTIVES = {
    "Unit": {"Description", "Wants", "After"},
    "Service": {
        "Type", "User", "WorkingDirectory", "EnvironmentFile", "ExecStart", "ExecReload", "KillMode", "KillSignal",
        "TimeoutStopSec", "SuccessExitStatus", "Restart", "RestartSec", "RestartPreventExitStatus", "MemoryHigh",
        "MemoryMax", "OOMPolicy", "NoNewPrivileges", "PrivateTmp", "ProtectSystem", "ReadWritePaths",
    },
    "Install": {"WantedBy"},
}  # fmt: skip
SIZES = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def block(language: str, first: str = "") -> str:
    (found,) = [b.text for b in pages.blocks(PAGE) if b.language == language and b.text.startswith(first)]
    return found


def parse(words: list[str]) -> Any:
    """What ``manage.py`` makes of a command line; ``CommandError`` or ``SystemExit`` where it refuses it."""
    _, script, name, *arguments = words
    assert script == "manage.py"
    return load_command_class(get_commands()[name], name).create_parser("manage.py", name).parse_args(arguments)


def unit() -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(block("ini"))
    return parser


def test_the_unit_for_systemd() -> None:
    parsed = unit()
    assert {section: set(parsed[section]) - DIRECTIVES[section] for section in parsed.sections()} == {
        section: set() for section in DIRECTIVES
    }
    service = parsed["Service"]
    options = parse(shlex.split(service["ExecStart"]))
    assert int(service["TimeoutStopSec"]) >= options.grace + MARGIN
    assert int(service["SuccessExitStatus"]) == supervisor.CUT_EXIT
    assert int(service["RestartPreventExitStatus"]) == CommandError("").returncode + 1 == 2
    assert service["KillSignal"] in requests.HEARD
    assert service["ExecReload"].split()[1:] == ["-HUP", "$MAINPID"]
    assert "SIGHUP" in requests.HEARD


def test_the_image() -> None:
    lines = dict(line.split(" ", 1) for line in block("dockerfile").splitlines() if line and not line.startswith("#"))
    parse(json.loads(lines["CMD"]))
    assert lines["STOPSIGNAL"] in requests.HEARD


def test_the_service_of_compose() -> None:
    (service,) = yaml.safe_load(block("yaml", "# compose"))["services"].values()
    options = parse(service["command"])
    assert int(service["stop_grace_period"].removesuffix("s")) >= options.grace + MARGIN
    assert service["stop_signal"] in requests.HEARD
    assert service["init"] is True
    kind, command = service["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    assert str(options.health_file) in command


def deployment() -> tuple[dict[str, Any], dict[str, Any]]:
    """The Deployment's pod, and its container."""
    made, _budget = yaml.safe_load_all(block("yaml", "# worker"))
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert made["spec"]["selector"]["matchLabels"] == labels == _budget["spec"]["selector"]["matchLabels"]
    pod = made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def test_the_deployment_of_kubernetes() -> None:
    pod, container = deployment()
    options = parse([*container["command"], *container["args"]])
    assert pod["terminationGracePeriodSeconds"] >= options.grace + MARGIN
    assert "lifecycle" not in container
    (port,) = container["ports"]
    assert port["containerPort"] == options.health_port
    assert options.health_host == "0.0.0.0"
    for probe in ("startup", "liveness", "readiness"):
        asked = container[f"{probe}Probe"]["httpGet"]
        assert asked["port"] == port["name"]
        assert asked["path"].lstrip("/") in PROBES
    # It is unhealthy within 30 s, which is within the time that its processes get to start.
    assert container["livenessProbe"]["periodSeconds"] * container["livenessProbe"]["failureThreshold"] <= 30
    # Processes are replaced before the kernel kills them.
    amount, unit = re.fullmatch(r"(\d+)(\w+)", container["resources"]["limits"]["memory"]).groups()  # type: ignore[union-attr]
    assert options.processes * options.max_memory_per_child < int(amount) * SIZES[unit]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("page", ["deployment", "stopping", "tuning", "troubleshooting"])
def test_commands_in_the_text(page: str) -> None:
    """A verb without its arguments is a mention; with options it has to be right."""
    path, verbs = DOCS / f"{page}.md", set(get_verbs())
    for code in pages.inline_code(path):
        words = (
            shlex.split(code.replace("...", "")) if code.startswith(("python manage.py ", "taskw", "taskq ")) else []
        )
        if words[:1] == ["taskq"]:
            assert words[1] in verbs, code
        elif words[:1] == ["taskworker"] and len(words) > 1:
            parse(["python", "manage.py", *words])
        elif words[:1] == ["python"] and words[2] in get_commands():
            parse(words)


def get_verbs() -> list[str]:
    from django_taskq.management.verbs import VERBS

    return list(VERBS)


def test_signals_and_exit_codes() -> None:
    """What the page says of them is what the supervisor hears and returns."""
    page = pages.prose(DOCS / "stopping.md")
    said = {name for row in pages.rows(page, "signal to the supervisor") for name in re.findall(r"SIG\w+", row[0])}
    assert said == set(requests.HEARD)
    codes = {int(row[0]) for row in pages.rows(page, "exit code")}
    assert {supervisor.CLEAN_EXIT, supervisor.FAILED_EXIT, supervisor.CUT_EXIT} < codes
    assert codes == {int(row[0]) for row in pages.rows(pages.prose(DOCS / "worker.md"), "exit code")} or not pages.rows(
        pages.prose(DOCS / "worker.md"), "exit code"
    )


def test_the_connections_of_a_supervisor() -> None:
    found = re.search(r"The supervisor needs (\d+), one more", pages.prose(DOCS / "tuning.md"))
    assert found
    assert int(found[1]) == checks.SUPERVISOR_CONNECTIONS
