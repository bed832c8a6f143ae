"""Section 9 of the design, enforced; and that the enforcement would notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.architecture import layers
from tests.architecture.package import Package

Rule = Callable[[Package], Iterator[str]]

# One small package for each way to break a rule: the rule, the files, what the message must name.
BAD = {
    "a module of no block": (layers.every_module_has_a_block, {"stuff.py": ""}, "stuff.py"),
    "a row imports the worker": (
        layers.imports_point_upwards,
        {"models/task.py": "from django_taskq.worker import courier", "worker/courier.py": ""},
        "models/task.py:1 (rows) imports worker.courier",
    ),
    "relatively": (
        layers.imports_point_upwards,
        {"models/__init__.py": "from ..worker.courier import Courier", "worker/courier.py": "class Courier: ..."},
        "models/__init__.py:1 (rows) imports worker.courier",
    ),
    "in a function": (
        layers.imports_point_upwards,
        {"conf.py": "def f():\n    import django_taskq.client", "client.py": ""},
        "conf.py:2 (words) imports client",
    ),
    "the worker imports an edge": (
        layers.imports_point_upwards,
        {"worker/process.py": "import django_taskq.checks", "checks.py": ""},
        "(doing work) imports checks (edges)",
    ),
    "a public name": (
        layers.nothing_imports_the_package_itself,
        {"client.py": "from django_taskq import Task"},
        "client.py:1 imports Task",
    ),
    "two modules": (
        layers.no_cycles,
        {"client.py": "from . import result", "result.py": "import django_taskq.client"},
        "client, result",
    ),
    "a package and its module": (
        layers.no_cycles,
        {"models/__init__.py": "from .task import Row", "models/task.py": "from django_taskq.models import Other"},
        "models, models.task",
    ),
    "a hidden import": (
        layers.no_imports_in_functions,
        {"client.py": "async def f():\n    if 1:\n        from .result import TaskResult", "result.py": ""},
        "client.py:3 imports result inside f()",
    ),
    "models through a broker's package": (
        layers.asking_for_work_loads_no_models,
        {
            "client.py": "from django_taskq.brokers.base import Broker",
            "brokers/base.py": "",
            "brokers/__init__.py": "from django_taskq.models import TaskRecord",
            "models/__init__.py": "",
        },
        "client -> brokers.base -> brokers -> models",
    ),
}

GOOD = {
    "__init__.py": """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from .task import task
        def __getattr__(name):
            from . import task
        """,
    "apps.py": "def ready():\n    from . import checks",
    "conf.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .task import task",
    "task.py": "from django_taskq.conf import get_settings\nfrom .client import enqueue",
    "client.py": "from . import conf",
    "checks.py": "from django_taskq import task, conf\nfrom django_taskq import TaskResult",
    "models/__init__.py": "from .task import TaskRecord",
    "models/task.py": "from . import clock",
    "models/clock.py": "",
}


@pytest.mark.parametrize("rule", layers.RULES)
def test_the_package_keeps(rule: Rule, package: Package) -> None:
    violations = list(rule(package))
    assert not violations, "\n".join(violations)


@pytest.mark.parametrize(("rule", "files", "named"), BAD.values(), ids=BAD.keys())
def test_a_violation_is_seen(rule: Rule, files: dict[str, str], named: str, make_package: Callable) -> None:
    found = list(rule(make_package(files)))
    assert len(found) == 1
    assert named in found[0]


def test_every_rule_is_tried() -> None:
    assert {rule for rule, _, _ in BAD.values()} == set(layers.RULES)


@pytest.mark.parametrize("rule", layers.RULES)
def test_a_sound_package_passes(rule: Rule, make_package: Callable) -> None:
    assert list(rule(make_package(GOOD))) == []
