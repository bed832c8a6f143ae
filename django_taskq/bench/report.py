"""The report as text."""

from __future__ import annotations

from typing import Any


def as_text(report: dict[str, Any]) -> str:
    """The settings, one line for each figure, and what history costs."""
    lines = [*_settings(report["settings"]), ""]
    table: list[tuple[str, ...]] = [("", "django_taskq", "bare store", "ratio", "unit", "min-max")]
    table += [_line(figure) for figure in report["figures"].values()]
    widths = [max(len(row[column]) for row in table) for column in range(6)]
    for row in table:
        cells = [row[0].ljust(widths[0]), *(row[n].rjust(widths[n]) for n in (1, 2, 3)), row[4].ljust(widths[4])]
        lines.append("  ".join([*cells, row[5]]).rstrip())
    names = {"drain": "the drain", "raw": "the bare store's drain"}
    if report["losses"]:
        lines.append("")
    lines += [f"Beside history {names[key]} loses {100 * loss:.0f} %." for key, loss in report["losses"].items()]
    return "\n".join(lines)


def _settings(settings: dict[str, Any]) -> list[str]:
    width = max(len(name) for name in settings)
    lines = []
    for name, value in settings.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}={inner}" for key, inner in value.items())
        lines.append(f"{name.ljust(width)}  {f'{value:,}' if isinstance(value, int) else value}")
    return lines


def _line(figure: dict[str, Any]) -> tuple[str, ...]:
    ratio = "" if figure["ratio"] is None else f"{figure['ratio']:.2f}"
    spread = f"{_number(min(figure['all']))}-{_number(max(figure['all']))}" if len(figure["all"]) > 1 else ""
    return figure["title"], _number(figure["value"]), _number(figure["raw"]), ratio, figure["unit"], spread


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
