"""Sphinx builds these pages from Markdown alone: no autodoc and no network, so the docs group is all it needs."""

import re
from pathlib import Path

_version_module = Path(__file__).resolve().parent.parent / "django_taskq" / "__init__.py"
_found = re.search(r'__version__ = "(.+?)"', _version_module.read_text())

project = "django_taskq"
author = "django_taskq contributors"
release = version = _found[1] if _found else ""

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
nitpicky = True

html_theme = "furo"
html_title = f"django_taskq {release}"
