"""`seedbed plan`: what a study would take; trains nothing."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from jobs.errors import ForeignStore
from jobs.spec import PackedSpec
from jobs.store import Store, is_url, open_store
from orchestrator.cli.options import DEFAULT_STORE, AsJson, Cpus, StoreFolder, StudyFile, find_study
from orchestrator.cli.show import console, cost_table, pack_hours_line, plan_table, print_json, stop_lines
from orchestrator.clusters.inline import available_cpus
from orchestrator.estimates.estimate import plain
from orchestrator.machine import Machine
from orchestrator.plan import plan
from orchestrator.power_plan import PowerPlan, Wanted, power_plan
from orchestrator.rounds import as_decided

_MOST_ROWS = 40


def command(
    study: StudyFile,
    store: StoreFolder = DEFAULT_STORE,
    cpus: Cpus = 0,
    power: Annotated[bool, typer.Option("--power", help="What its seeds can show, and what takes how many.")] = False,
    half_width: Annotated[float, typer.Option(help="With --power: of the interval of P(success).")] = 0.1,
    p: Annotated[float, typer.Option(help="With --power: the P at which it is to be so narrow.")] = 0.5,
    mode: Annotated[float, typer.Option(help="With --power: weight of a second mode that is to be seen.")] = 0.1,
    apart: Annotated[
        tuple[float, float], typer.Option(help="With --power: P of two conditions that are to be told apart.")
    ] = (0.3, 0.6),
    chance: Annotated[float, typer.Option(help="With --power: with which probability.")] = 0.8,
    as_json: AsJson = False,
) -> None:
    """Check a study and show what it would take; trains nothing.

    Conditions, runs, packs, parameters, FLOPs (6 x parameters x tokens), milestone checkpoints and their bytes, and
    which runs the store already holds; hours on known GPUs, and of Hugging Face models their memory, too.
    With --power: what the study's seeds can and cannot show.

    [bold]Example:[/bold] seedbed plan study.yaml --store results
    [bold]Example:[/bold] seedbed plan study.yaml --power --half-width 0.15 --apart 0.3 0.6
    """
    checked, file = find_study(study)
    if power:
        counts = Counter(run.point.id for run in checked.runs)
        _show_power(
            power_plan(checked.name, list(counts.values()), Wanted(half_width, p, mode, apart, chance)), as_json
        )
        return
    found = _opened(store)
    checked = as_decided(checked, found, file)
    count = cpus or available_cpus()
    result = plan(checked, found, Machine(count, packs_at_once=count, device="cpu"))
    if as_json:
        print_json(result.as_dict())
        return
    console.print(plan_table(result, _MOST_ROWS))
    costs = cost_table(result)
    if costs:
        console.print(costs)
    if line := pack_hours_line(result):
        console.print(line, highlight=False, soft_wrap=True)
    looks = [(one.polca_rows, one.runs) for one in result.conditions if one.polca_rows]
    if looks:
        most, total = max(rows for rows, _ in looks), sum(rows * runs for rows, runs in looks)
        console.print(f"A look back at one run makes at most {most:,} rows; all, {total:,}.", highlight=False)
    if result.stop:
        console.print(*stop_lines(result.stop), sep="\n", highlight=False, markup=False, soft_wrap=True)
    if any(isinstance(point.condition.engine, PackedSpec) for point in checked.points):
        console.print(f"Pack widths are assumed for {count} CPUs; `seedbed run` measures them first.", highlight=False)


def _show_power(found: PowerPlan, as_json: bool) -> None:
    if as_json:
        print_json(plain(found))
        return
    wanted = found.needed.wanted
    table = Table(
        title=f"{escape(found.study)}: seeds a condition", title_justify="left", box=None, padding=(0, 2, 0, 0)
    )
    for name in ("to show", "with chance", "seeds"):
        table.add_column(name, justify="left" if name == "to show" else "right")
    for text, seeds in (
        (f"P(success) to ± {wanted.half_width:g} (Wilson 95 %), if P = {wanted.p:g}", found.needed.for_half_width),
        (f"two runs of a second mode of weight {wanted.mode:g}", found.needed.for_mode),
        (f"P = {wanted.apart[0]:g} from P = {wanted.apart[1]:g} (Fisher, 5 %)", found.needed.to_tell_apart),
    ):
        table.add_row(text, f"{wanted.chance:g}", f"{seeds:,}")
    console.print(table)
    for shows in found.shows:
        conditions = found.declared[shows.seeds]
        console.print(
            f"Declared: {conditions} condition{'s' * (conditions > 1)} of {shows.seeds} seeds.", highlight=False
        )
        console.print(*shows.says(), sep="\n", highlight=False, markup=False, soft_wrap=True)


def _opened(store: str) -> Store | None:
    """Return the store, or None where there is none yet: a plan is made before the first run, too."""
    if not is_url(store) and not (Path(store).exists() and any(Path(store).iterdir())):
        return None
    try:
        return open_store(store)
    except ForeignStore as error:
        if store == DEFAULT_STORE or "no store here" in error.message:
            return None
        raise
