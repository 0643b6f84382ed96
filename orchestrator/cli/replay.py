"""`seedbed replay`: the weights of any run at any step."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.errors import NotFound, QueryError
from jobs.layout import parse_attempt_key
from jobs.store import Store, open_store
from orchestrator.cli.options import DEFAULT_STORE, AsJson, StoreFolder
from orchestrator.cli.show import console, print_json


def command(
    run_at_step: Annotated[str, typer.Argument(metavar="RUN@STEP", help="A run, or the first digits of its id.")],
    store: StoreFolder = DEFAULT_STORE,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file of the weights; of a script's, a folder.")
    ] = None,
    start: Annotated[
        int | None, typer.Option("--from", min=-1, help="Train from a checkpoint at or before; -1: from the seeds.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a run from its nearest checkpoint to any step, and write the weights that were there.

    Changes nothing in the store. Where the store has a checkpoint at that step, the bytes must be equal: else exit
    code 1. Of a run that a script trained, the files of a checkpoint are laid out in a folder.

    [bold]Example:[/bold] seedbed replay r1-05ec@750 --store demo-store --out weights.safetensors
    """
    from workers.checkpoint import checkpoints_of, write_tensors  # torch takes seconds to import
    from workers.replay import replay
    from workers.replay_script import files_at
    from workers.stored import stored_run

    opened = open_store(store)
    run_id, step = _parsed(opened, run_at_step)
    stored = stored_run(opened, run_id)
    path = out or Path(f"{run_id}@{step}" + ("" if stored.is_script else ".safetensors"))
    if path.exists():
        raise QueryError(f"{path} exists already; name another file with --out")
    if stored.is_script:
        _say_files(run_id, step, files_at(opened, run_id, step, path).slice.sha256, path, as_json=as_json)
        return
    replayed = replay(opened, run_id, step, start)
    write_tensors(path, replayed.weights)
    there = checkpoints_of(opened, stored.attempts).get(step)
    equal = None if there is None else there.slice.sha256 == replayed.sha256
    fields = {
        "run_id": run_id,
        "step": step,
        "trained_from": replayed.started_at,
        "sha256": replayed.sha256,
        "equals_checkpoint": equal,
        "file": str(path),
    }
    if as_json:
        print_json(fields)
    else:
        origin = "the seeds" if replayed.started_at < 0 else f"step {replayed.started_at}"
        compared = {None: "no checkpoint there to compare with", True: "equal to the checkpoint there"}
        told = compared.get(equal, "NOT equal to the checkpoint there")
        console.print(
            f"{path}: {run_id} at step {step}, trained from {origin}; {told}", highlight=False, soft_wrap=True
        )
    if equal is False:
        raise typer.Exit(1)


def _say_files(run_id: str, step: int, sha256: str, folder: Path, *, as_json: bool) -> None:
    if as_json:
        print_json({"run_id": run_id, "step": step, "sha256": sha256, "folder": str(folder)})
    else:
        console.print(f"{folder}: the files of {run_id} at step {step}, as committed", highlight=False, soft_wrap=True)


def _parsed(store: Store, text: str) -> tuple[str, int]:
    prefix, at, step = text.partition("@")
    if not (prefix and at and step.isdigit()):
        raise QueryError(f"say RUN@STEP, such as r1-05ec@750, not {text!r}")
    found = {parsed[0] for key in store.keys(f"attempts/{prefix}") if (parsed := parse_attempt_key(key))}
    if not found:
        raise NotFound(prefix, "is no run of this store, or was never started")
    if len(found) > 1:
        raise QueryError(f"{prefix} begins the ids of {len(found)} runs; give more digits")
    return found.pop(), int(step)
