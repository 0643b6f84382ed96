"""`seedbed plan`: what a study would take; trains nothing."""

from pathlib import Path

from jobs.errors import ForeignStore
from jobs.store import Store, is_url, open_store
from orchestrator.cli.options import DEFAULT_STORE, AsJson, Cpus, StoreFolder, StudyFile, find_study
from orchestrator.cli.show import console, plan_table, print_json, stop_lines
from orchestrator.clusters.inline import available_cpus
from orchestrator.packing import Machine
from orchestrator.plan import plan
from orchestrator.rounds import as_decided

_MOST_ROWS = 40


def command(study: StudyFile, store: StoreFolder = DEFAULT_STORE, cpus: Cpus = 0, as_json: AsJson = False) -> None:
    """Check a study and show what it would take; trains nothing.

    Conditions, runs, packs, parameters, FLOPs (6 x parameters x tokens), milestone checkpoints and their bytes, and
    which runs the store already holds.

    [bold]Example:[/bold] seedbed plan study.yaml --store results
    """
    checked, file = find_study(study)
    found = _opened(store)
    checked = as_decided(checked, found, file)
    count = cpus or available_cpus()
    result = plan(checked, found, Machine(count, packs_at_once=count, device="cpu"))
    if as_json:
        print_json(result.as_dict())
        return
    table = plan_table(result)
    if table.row_count > _MOST_ROWS:
        table.rows = table.rows[:_MOST_ROWS]
        table.caption = f"the first {_MOST_ROWS} of {len(result.conditions):,} conditions; --json lists all"
    console.print(table)
    if result.stop:
        console.print(*stop_lines(result.stop), sep="\n", highlight=False, markup=False, soft_wrap=True)
    console.print(f"Pack widths are assumed for {count} CPUs; `seedbed run` measures them first.", highlight=False)


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
