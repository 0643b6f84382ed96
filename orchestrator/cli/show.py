"""How the command line shows things: tables, numbers, messages."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from jobs.records import Status
from orchestrator.costs import UTILISATION
from orchestrator.estimates.estimate import FIXED
from orchestrator.plan import StudyPlan
from orchestrator.progress import Snapshot
from orchestrator.stop_rules import StopPlan
from orchestrator.summary import ConditionSummary, StudySummary
from orchestrator.text import INTERVALS, duration, interval, onset_text, probability, size

_WIDE = 127
_LABEL = 36  # a longer label of a condition goes on in the next line
# Where nobody looks (a file, a log) lines are wide, so that tables keep their columns.
console = Console() if sys.stdout.isatty() else Console(width=132)
errors = Console(stderr=True)


@contextmanager
def steady_progress(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yield what shows (what is done, how many of it, out of how many) as a bar, on a terminal alone."""
    if quiet or not sys.stdout.isatty():
        yield lambda *_: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done + 1, total=total)

        yield show


@contextmanager
def working(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Yield what is told (parts that are begun, how many there are); until then time alone is shown."""
    if quiet or not sys.stdout.isatty():
        yield lambda *_: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(escape(what), total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total if total > 1 else None)


def complain(message: str) -> None:
    """Print an error message."""
    errors.print(f"[bold red]seedbed:[/] {escape(message)}", highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print `value` as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_summary(summary: StudySummary) -> None:
    """Print the table of a study, a row per condition; on a narrow terminal in two parts."""
    rule = summary.rule
    title = f"{escape(summary.name)}: success is {escape(rule.metric)} ≥ {rule.threshold:g} at the last step; "
    first = summary.conditions[0].success
    title += "95 % intervals" if first.stopping_rule == FIXED else f"{first.stopping_rule}; intervals hold after it"
    column = f"{INTERVALS[first.method]}\n{first.level:.0%}"
    rows = [(escape(condition.condition.label), *_cells(condition)) for condition in summary.conditions]
    columns = ["launched", "finished", "diverged", "failed", "P(success)", column, "Jeffreys\n95%"]
    columns += ["mean if\nsuccess", "mean\nif not", "median\nonset"]
    if console.width >= _WIDE:
        console.print(_table(title, columns, rows))
    else:
        console.print(_table(title, columns[:5], [row[:6] for row in rows]))
        console.print(_table("", columns[5:], [(row[0], *row[6:]) for row in rows]))
    for condition in summary.conditions:
        if condition.success.cohort.warning:
            told = f"{condition.condition.label}: {condition.success.cohort.warning}"
            console.print(told, style="yellow", highlight=False, markup=False)


def print_headlines(modes: Mapping[str, tuple[str, str]], sentences: Sequence[str]) -> None:
    """Print what a study shows, in sentences; modes: condition → verdicts on the score and on the training loss."""
    for label, (score, loss) in modes.items():
        console.print(f"{label}: {score}; training loss: {loss}", highlight=False, markup=False, soft_wrap=True)
    for sentence in sentences:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("condition", overflow="fold", max_width=_LABEL)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True, vertical="bottom")
    for row in rows:
        table.add_row(*row)
    return table


def _cells(condition: ConditionSummary) -> list[str]:
    known = condition.success.cohort.finished + condition.success.cohort.diverged
    return [
        str(condition.launched),
        *(str(condition.counts[status]) for status in (Status.FINISHED, Status.DIVERGED, Status.FAILED)),
        f"{condition.successes}/{known} = {probability(condition.success.value)}" if known else "–",
        interval((condition.success.low, condition.success.high)),
        interval(condition.jeffreys),
        _mean(condition.mean_of_successes),
        _mean(condition.mean_of_failures),
        onset_text(condition.onset),
    ]


def _mean(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def progress_table(snapshot: Snapshot) -> Table:
    """Return how far a study is: totals, and a row per condition."""
    table = Table(title=escape(progress_line(snapshot)), title_justify="left", box=None, padding=(0, 2))
    for name in ("condition", "ended", "running", "waiting", "step", "P(success) so far"):
        table.add_column(name, justify="left" if name == "condition" else "right")
    for condition in snapshot.summary.conditions:
        counts: Mapping[str, int] = {str(status): number for status, number in condition.counts.items()}
        ended = counts["finished"] + counts["diverged"] + counts["failed"]
        above, measured = condition.latest
        steps = condition.curves.steps
        table.add_row(
            escape(condition.condition.label),
            f"{ended}/{condition.launched}",
            str(counts["running"]),
            str(counts["waiting"]),
            f"{steps[-1]:,}" if len(steps) else "–",
            f"{above}/{measured} = {probability(above / measured)}" if measured else "–",
        )
    return table


def progress_line(snapshot: Snapshot) -> str:
    """Return how far a study is, in one line."""
    share = snapshot.done / snapshot.run_steps if snapshot.run_steps else 1.0
    left = "–" if snapshot.seconds_left is None else duration(snapshot.seconds_left)
    return (
        f"{snapshot.summary.name}: {snapshot.ended}/{snapshot.launched} runs done, {share:.0%} of all steps, "
        f"{snapshot.steps_per_second:,.0f} run-steps/s, {left} left"
    )


def plan_table(plan: StudyPlan, most: int) -> Table:
    """Return what a study would take: a row per condition, `most` of them, and the sums over all."""
    title = f"{escape(plan.study)}: what it would take; nothing was trained"
    table = Table(title=title, title_justify="left", show_footer=True, box=None, padding=(0, 2, 0, 0))
    columns = {
        "condition": "in all",
        "runs": f"{plan.total('runs'):,}",
        "held": f"{plan.total('held'):,}",
        "packs": f"{plan.total('packs'):,}",
        "parameters": "",
        "tokens": f"{plan.total('tokens'):.3g}",
        "FLOPs": f"{plan.total('flops'):.3g}",
        "checkpoints": f"{plan.total('checkpoints'):,}",
        "bytes": size(plan.total("checkpoint_bytes")),
    }
    for name, footer in columns.items():
        table.add_column(name, footer, justify="left" if name == "condition" else "right", no_wrap=True)
    if len(plan.conditions) > most:
        table.caption = f"the first {most} of {len(plan.conditions):,} conditions; --json lists all"
    for row in plan.conditions[:most]:
        table.add_row(
            escape(row.condition),
            f"{row.runs:,}",
            f"{row.held:,}",
            f"{row.packs:,}",
            f"{row.parameters:,}",
            f"{row.tokens:.3g}",
            f"{row.flops:.3g}",
            f"{row.checkpoints:,}",
            size(row.checkpoint_bytes),
        )
    return table


def cost_table(plan: StudyPlan) -> Table | None:
    """Return what whole models take of a GPU, a row per condition; None where the study has none."""
    rows = [(row.condition, row.cost) for row in plan.conditions if row.cost]
    if not rows:
        return None
    title = f"On a GPU, by formula: memory of each process, device-hours at {rows[0][1].utilisation:.0%} of the peak"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    names = ("condition", "state", "activations", "in all")  # the parts of the state are in the JSON
    for name in (*names, *(hours.device for hours in rows[0][1].hours)):
        table.add_column(name, justify="left" if name == "condition" else "right", no_wrap=True)
    for condition, cost in rows:
        memory = cost.memory
        parts = (memory.total - memory.activations, memory.activations, memory.total)
        times = (f"{hours.hours:.2g}" if hours.fits else "too small" for hours in cost.hours)
        table.add_row(escape(condition), *map(size, parts), *times)
    return table


def pack_hours_line(plan: StudyPlan) -> str:
    """Return what seed-batched models take of a GPU, in words; empty where the study has none that is left to train."""
    found = plan.hours()
    if not any(hours.hours for hours in found):
        return ""
    told = ", ".join(f"{one.device} {f'{one.hours:.2g} h' if one.fits else 'too small'}" for one in found)
    return f"On a GPU, by formula, at {UTILISATION:.0%} of its float32 peak, which narrow models do not reach: {told}."


def stop_lines(stop: StopPlan) -> list[str]:
    """Return in words what a stop rule will take, and what its interval covers."""
    lines = [f"The runs above are the seeds so far. The rule: {stop.rule}."]
    if stop.seeds:
        cells = [
            f"{expected:.0f} if P = {probability(p)} (with 95 % at most {n})" for p, (expected, n) in stop.seeds.items()
        ]
        lines.append(f"Expected seeds a condition: {'; '.join(cells)}.")
    if stop.coverage:
        least, mean = stop.coverage
        lines.append(f"Its interval covers {least:.1%} of the time at the worst P and {mean:.1%} on average, exactly.")
    else:
        lines.append(f"Its coverage is simulated and not exact (make calibration); {stop.note}.")
    return lines
