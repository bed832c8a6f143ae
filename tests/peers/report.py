"""The figures as text: one table for each group, the quickest drain first, and every loss of ours marked and named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.peers.cases import GROUPS, Case
from tests.peers.records import Figures

MARK = "!"
SHORT = "~"
# Those of which more is better, and those of which less is.
RATES = {"drain": "drain/s", "enqueue": "enqueue/s"}
DELAYS = {"p50": "p50 ms", "p99": "p99 ms"}
METRICS = RATES | DELAYS

LEGEND = (
    "enqueue: one by one, from one process. drain: the queue was filled first, then the worker started with two\n"
    "processes of one slot each; from the start of the first body to the start of the last. p50, p99: from the call\n"
    "that enqueued to the body, one task each 50 ms, the worker idle. Rates are medians of the repeats (in brackets\n"
    "the range of the drain); the latencies of all repeats are one sample.\n"
    f"{SHORT}: drained within a second: what is fetched in one go weighs too much in it; measure with more --tasks.\n"
    f"x ours: the peer's value over that of our case with the same store (last column). {MARK}: the peer is better."
)


@dataclass(frozen=True)
class Measured:
    case: Case
    figures: Figures


def ratio(peer: float | None, ours: float | None) -> float | None:
    """The peer's value over ours; ``None`` where one of them was not measured."""
    return peer / ours if peer is not None and ours else None


def is_loss(metric: str, value: float | None) -> bool:
    """Whether this ratio says that the peer is better. As it is, not as it prints: 1.004 is a loss, however small."""
    return value is not None and (value > 1 if metric in RATES else value < 1)


def ratios(measured: Measured, everything: Mapping[str, Measured]) -> dict[str, float | None]:
    """By metric, of a peer to its rival; empty for ours and where the rival was not measured."""
    rival = everything.get(measured.case.rival)
    if rival is None:
        return {}
    return {metric: ratio(measured.figures.value(metric), rival.figures.value(metric)) for metric in METRICS}


def as_text(settings: Mapping[str, str], measured: Sequence[Measured]) -> str:
    """The whole report."""
    everything = {one.case.name: one for one in measured}
    width = max(map(len, settings), default=0)
    blocks = ["\n".join(f"{name.ljust(width)}  {value}" for name, value in settings.items()), LEGEND]
    for group in GROUPS:
        if members := [one for one in measured if one.case.group == group]:
            blocks.append(f"{group.upper()}\n\n{table(members, everything)}")
    return "\n\n".join([*blocks, losses(measured, everything), settings_of(measured)])


def table(members: Sequence[Measured], everything: Mapping[str, Measured]) -> str:
    """Quickest first; what could not be measured last, with its reason."""
    well = sorted(
        (one for one in members if not one.figures.problem), key=lambda one: -(one.figures.value("drain") or 0)
    )
    head = ["", "tasks"]
    for name in METRICS.values():
        head += [name, *(["(min-max)"] if name == METRICS["drain"] else []), "x ours"]
    rows = [[*head, "compared with"], *(_cells(one, everything) for one in well)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) + 1)]
    last = len(head)
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines += [f"{one.case.name}  {one.figures.problem}" for one in members if one.figures.problem]
    return "\n".join(lines)


def losses(measured: Sequence[Measured], everything: Mapping[str, Measured]) -> str:
    """Every comparison in which a peer is better, in words."""
    lines, compared = [], 0
    for one in measured:
        for metric, value in ratios(one, everything).items():
            compared += value is not None
            if is_loss(metric, value):
                theirs, ours = (each.figures.value(metric) for each in (one, everything[one.case.rival]))
                lines.append(
                    f"  {one.case.name}: {METRICS[metric]} {number(theirs)}; {one.case.rival}: {number(ours)}"
                    f" (x {share(value)})"
                )
    head = f"A PEER IS BETTER in {len(lines)} of {compared} comparisons{':' if lines else '.'}"
    return "\n".join([head, *lines])


def settings_of(measured: Sequence[Measured]) -> str:
    """What was set in each case."""
    width = max(len(one.case.name) for one in measured)
    lines = [f"  {one.case.name.ljust(width)}  {one.case.settings_text}" for one in measured]
    return "\n".join(["SETTINGS (of each case, two processes altogether)", *lines])


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def share(value: float | None) -> str:
    """A ratio, with as many digits as keep a small one from looking like none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _cells(one: Measured, everything: Mapping[str, Measured]) -> list[str]:
    figures, found = one.figures, ratios(one, everything)
    cells = [one.case.name, f"{figures.tasks:,}"]
    for metric in METRICS:
        value = figures.value(metric)
        if metric == "drain":
            is_short = figures.tasks < (value or 0)
            cells.append(f"{SHORT if is_short else ''}{number(value)}")
            cells.append(f"({number(min(figures.drains))}-{number(max(figures.drains))})")
        else:
            cells.append(number(value))
        compared = found.get(metric)
        mark = MARK if is_loss(metric, compared) else " "
        cells.append("" if one.case.is_ours else f"{share(compared)} {mark}")
    return [*cells, one.case.rival]
