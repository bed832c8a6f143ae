"""The report as text."""

from __future__ import annotations

from typing import Any


def as_text(report: dict[str, Any]) -> str:
    """The settings, one line for each figure, and what history costs; then the same for each broker."""
    lines = [*_settings(report["settings"]), "", *_table(report["figures"], "bare store")]
    names = {"drain": "the drain", "raw": "the bare store's drain"}
    if report["losses"]:
        lines.append("")
    lines += [f"Beside history {names[key]} loses {100 * loss:.0f} %." for key, loss in report["losses"].items()]
    for found in report.get("brokers", ()):
        lines += ["", "", *_settings(found["settings"]), "", *_table(found["figures"], "beside it")]
    return "\n".join(lines)


def _table(figures: dict[str, dict[str, Any]], beside: str) -> list[str]:
    rows: list[tuple[str, ...]] = [("", "django_taskq", beside, "ratio", "unit", "min-max", "")]
    rows += [_line(figure) for figure in figures.values()]
    if any(row[6] for row in rows):
        rows[0] = (*rows[0][:6], "what stands beside it")
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(row[n].rjust(widths[n]) for n in (1, 2, 3))]
        lines.append("  ".join([*cells, *(row[n].ljust(widths[n]) for n in (4, 5, 6))]).rstrip())
    return lines


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
    numbers = _number(figure["value"]), _number(figure["raw"]), ratio
    return figure["title"], *numbers, figure["unit"], spread, figure["beside"]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
