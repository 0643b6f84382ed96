"""`seedbed list`: the studies of a store and who drives them, in seconds whatever they hold."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from jobs.lease import holder, sight
from jobs.records import Status
from jobs.store import Store, open_store
from orchestrator.cli.options import DEFAULT_STORE, AsJson, StoreFolder
from orchestrator.cli.show import console, print_json
from orchestrator.declared import read_declared, studies
from orchestrator.imports.stored import statuses
from orchestrator.store_state import read_standings


def command(store: StoreFolder = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """List the studies of a store: runs by status, and which process has each of them.

    Needs no cluster and reads no metrics. A driver that was killed is named until another takes over.

    [bold]Example:[/bold] seedbed list --store s3://bucket/studies
    """
    opened = open_store(store)
    rows = [_row(opened, name) for name in studies(opened)]
    if as_json:
        print_json(rows)
        return
    if not rows:
        console.print("The store holds no study yet: seedbed run STUDY --store …")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("study", "runs", *map(str, Status), "driver"):
        table.add_column(name, justify="left" if name in ("study", "driver") else "right")
    for row in rows:
        driver = row["driver"]
        place = f"{driver['host']}:{driver['pid']}" if driver else ""
        counts = (str(row["status"][str(status)]) for status in Status)
        table.add_row(escape(row["study"]), str(row["runs"]), *counts, escape(place))
    console.print(table)


def _row(store: Store, name: str) -> dict[str, Any]:
    declared = read_declared(store, name)
    if declared.imported:
        found = statuses(store, declared)
    else:
        found = [one.status for one in read_standings(store, [run.id for run in declared.runs]).values()]
    seen = sight(store, name)
    driver = {} if seen.released else holder(store, name, seen.epoch)
    return {
        "study": name,
        "revision": declared.revision,
        "file": declared.file,
        "runs": len(declared.runs),
        "status": {str(status): found.count(status) for status in Status},
        "driver": {"host": str(driver.get("host", "")), "pid": driver.get("pid"), "epoch": seen.epoch}
        if driver
        else None,
    }
