"""`seedbed sync`: what the store holds → another tracker."""

from enum import StrEnum
from typing import Annotated

import typer

from jobs.errors import MirrorError
from jobs.store import open_store
from orchestrator.cli.options import DEFAULT_STORE, AsJson, StoreFolder, StudyName
from orchestrator.cli.report import folder_beside
from orchestrator.cli.show import console, print_json, working
from orchestrator.library import Library
from orchestrator.mirrors.beside import PATIENCE_S, send
from orchestrator.mirrors.sent import forget_sent


class Tracker(StrEnum):
    """Where rows are sent."""

    WANDB = "wandb"
    TENSORBOARD = "tensorboard"


def command(
    tracker: Annotated[Tracker, typer.Argument(help="W&B, or event files for TensorBoard.")],
    study: StudyName = "",
    store: StoreFolder = DEFAULT_STORE,
    patience: Annotated[
        float, typer.Option("--patience", min=1.0, help="Seconds without an answer after which it is given up.")
    ] = PATIENCE_S,
    anew: Annotated[bool, typer.Option("--anew", help="Forget what was sent, and send all of it again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send the rows of a study that a tracker does not have yet; the same command again sends nothing.

    One run there for each run here, with the run's own id; group is the condition, config the resolved spec. W&B takes
    its key from WANDB_API_KEY or the netrc file, and its other settings from the environment: WANDB_PROJECT,
    WANDB_MODE=offline. While a study runs, `track: wandb` in its file does this by itself.

    [bold]Example:[/bold] seedbed sync wandb widths --store results
    """
    opened = open_store(store)
    name = Library(opened).only(study)
    folder = folder_beside(store, str(tracker), name)
    if anew:
        forget_sent(opened, str(tracker), name)
    with working(f"{name} → {tracker}", quiet=as_json) as watch:
        done = send(
            str(tracker),
            opened.url,
            name,
            folder,
            lambda now: watch(now.sent, now.runs),
            patience_s=patience,
        )
    if done.error:
        raise MirrorError(f"{done.error}; {done.sent} of {done.runs} runs were sent, and the same command goes on")
    if as_json:
        print_json(
            {"study": name, "tracker": str(tracker), "runs": done.sent, "rows": done.rows, "folder": str(folder)}
        )
        return
    told = f"{done.sent:,} runs had news: {done.rows:,} rows" if done.runs else "nothing is new"
    console.print(f"{name} → {tracker}: {told}; {folder}", highlight=False, markup=False, soft_wrap=True)
