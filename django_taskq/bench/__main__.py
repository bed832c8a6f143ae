"""``python -m django_taskq.bench PLAN RESULT``: the measuring process; PLAN is JSON, RESULT a file for the report."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import django

from django_taskq.bench.plan import Plan


def main(arguments: list[str]) -> None:
    """Measure and write the report."""
    plan = Plan.from_json(json.loads(arguments[0]))
    django.setup()
    # By name, because it loads models, and those want Django to be set up first.
    report = import_module("django_taskq.bench.driver").measure(plan)
    Path(arguments[1]).write_text(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1:])
