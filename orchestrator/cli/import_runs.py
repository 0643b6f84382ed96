"""`seedbed import`: runs that were trained elsewhere become a study of the store."""

import re
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from jobs.errors import Fault, ImportRefused
from jobs.store import open_store
from orchestrator.cli.options import DEFAULT_STORE, AsJson, StoreFolder
from orchestrator.cli.show import console, print_json
from orchestrator.imports.mapping import MappingFile, read_mapping
from orchestrator.imports.runs import assemble
from orchestrator.imports.sources import measurements, read_table
from orchestrator.imports.stored import Source, store_import
from orchestrator.imports.tensorboard import event_files, read_events
from orchestrator.imports.wandb_files import offline_files, read_offline
from orchestrator.library import Library

app = typer.Typer(help="Import runs that were trained elsewhere.", no_args_is_help=True)
MapFile = Annotated[Path, typer.Option("--map", "-m", help="What the columns mean: a YAML file (docs/import.md).")]
StudyName = Annotated[str, typer.Option("--study", help="The name that the study gets in the store.")]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@app.command("table")
def table(
    files: Annotated[
        list[Path], typer.Argument(help="CSV, TSV, Parquet or JSON lines; several are pieces of one table.")
    ],
    map_: MapFile,
    study: StudyName,
    store: StoreFolder = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Import a table with a row per measurement (long), or per step with a column per metric (wide).

    Pieces of one run are put together, overlaps are compared, and different runs under one key are told apart; what
    does not fit is in the table `audit`. The same command again changes nothing.

    [bold]Example:[/bold] seedbed import table loss.csv --map map.yaml --study pythia --store results
    """
    store_table(read_table(files), read_mapping(map_), files, study, store, as_json)


Folder = Annotated[Path, typer.Argument(help="The folder; everything below it is read.")]


@app.command("tensorboard")
def tensorboard(
    folder: Folder, map_: MapFile, study: StudyName, store: StoreFolder = DEFAULT_STORE, as_json: AsJson = False
) -> None:
    """Import the scalars of TensorBoard's event files: columns run, file, step, metric, value, wall_time.

    A folder named like width=8/seed=3 gives the columns width and seed.

    [bold]Example:[/bold] seedbed import tensorboard logs --map map.yaml --study widths --store results
    """
    store_table(read_events(folder), read_mapping(map_), event_files(folder), study, store, as_json)


@app.command("wandb")
def wandb(
    folder: Folder, map_: MapFile, study: StudyName, store: StoreFolder = DEFAULT_STORE, as_json: AsJson = False
) -> None:
    """Import offline runs of W&B (*.wandb): columns run, file, step, metric, value, and config.NAME for each setting.

    [bold]Example:[/bold] seedbed import wandb wandb --map map.yaml --study widths --store results
    """
    store_table(read_offline(folder), read_mapping(map_), offline_files(folder), study, store, as_json)


def store_table(rows: pa.Table, mapping: MappingFile, files: list[Path], study: str, store: str, as_json: bool) -> None:
    """Put a table into the store as a study, and say what is in it; raises ImportRefused with every fault."""
    if not _NAME.fullmatch(study):
        raise ImportRefused((Fault("--study", 0, study, "a name is letters, digits, and . _ - between them"),))
    imported = assemble(measurements(rows, mapping), mapping.mapping)
    sources = [Source.of(path) for path in files]
    where = open_store(store, create=True)
    store_import(where, study, imported, mapping, sources)
    library = Library(where)
    library.collect(study)
    kinds: dict[str, int] = {}
    for finding in imported.findings:
        kinds[finding["finding"]] = kinds.get(finding["finding"], 0) + 1
    ended: dict[str, int] = {}
    for run in imported.runs:
        ended[str(run.status)] = ended.get(str(run.status), 0) + 1
    if as_json:
        print_json(
            {
                "study": study,
                "conditions": len(imported.conditions),
                "runs": len(imported.runs),
                "rows": imported.rows.num_rows,
                "status": dict(sorted(ended.items())),
                "findings": dict(sorted(kinds.items())),
            }
        )
        return
    told = ", ".join(f"{count:,} {status}" for status, count in sorted(ended.items()))
    console.print(
        f"{study}: {len(imported.runs):,} runs in {len(imported.conditions):,} conditions ({told}), "
        f"{imported.rows.num_rows:,} rows",
        highlight=False,
        markup=False,
    )
    for kind, count in sorted(kinds.items()):
        console.print(f"  {count:,} x {kind}, in the table `audit`", highlight=False, markup=False)
