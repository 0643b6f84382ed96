"""`seedbed export hf`: runs as models that others load."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.errors import QueryError
from jobs.store import open_store
from orchestrator.cli.options import DEFAULT_STORE, AsJson, StoreFolder, StudyName
from orchestrator.cli.show import console, print_json, working
from orchestrator.library import Library

app = typer.Typer(help="Write what a store holds in the forms that a field shares.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Let `hf` be a verb below this one, also while it is the only one."""


@app.command("hf")
def hf(
    study: StudyName = "",
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where the folders go; what is there stays.")] = Path(
        "export"
    ),
    store: StoreFolder = DEFAULT_STORE,
    step: Annotated[
        list[int] | None,
        typer.Option("--step", min=0, help="A step; repeatable. Else milestones and the last one."),
    ] = None,
    git: Annotated[bool, typer.Option("--git", help="Also a git repository a run, with a branch a step.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write each run of a study as a Hugging Face model, <study>-<condition>-seed<N>, one revision a step.

    Every step is loaded again by transformers, and its logits are compared with the run's own, before it has its name.
    The same command goes on where it was interrupted, and writes over nothing that is not the same.

    [bold]Example:[/bold] seedbed export hf widths --to models --store results
    """
    from workers.models.huggingface import library as library_of  # torch takes seconds

    # Where DeepSpeed is installed transformers imports it, and it prints which accelerator it has chosen.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    library_of("transformers", "export").utils.logging.disable_progress_bar()  # of each file; ours is one for all
    library = Library(open_store(store))
    name = library.only(study)
    if library.declared(name).imported:
        raise QueryError(f"{name} was imported: its runs have no weights in this store")
    with working(f"{name} → {to}", quiet=as_json) as watch:
        told = list(_written(library, name, to, step or (), watch, git=git))
    if not told:
        raise QueryError(f"{name} has no checkpoint yet: nothing was written")
    if as_json:
        print_json({"study": name, "runs": told})
        return
    new, count = sum(run["new"] for run in told), sum(len(run["steps"]) for run in told)
    largest = max(run["largest_difference"] for run in told)
    text = f"{to}: {len(told):,} runs, {count:,} revisions ({new:,} new)"
    console.print(
        f"{text}; logits differ from the runs' own by at most {largest:.1e}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _written(
    library: Library, study: str, to: Path, wanted: Sequence[int], watch: Callable[[int, int], None], *, git: bool
) -> Iterator[dict[str, Any]]:
    """Write run by run what is asked for, with its card and branches, and yield what to say of it."""
    from jobs.claims import attempts_of
    from orchestrator.export.branches import write_branches
    from orchestrator.export.card import card_text, write_card
    from orchestrator.export.hub import export_runs
    from orchestrator.export.names import run_names

    declared, estimates = library.declared(study), library.estimates(study)
    names = run_names(study, declared.runs)
    for run, steps in export_runs(library.store, declared.runs, names, to, wanted, watch):
        folder = to / names[run.id]
        spec = attempts_of(library.store, run.id)[-1].spec
        write_card(card_text(declared, run, names[run.id], spec, steps, estimates), folder)
        if git:
            write_branches(folder, steps)
        yield {
            "run_id": run.id,
            "folder": str(folder),
            "steps": [one.step for one in steps],
            "new": sum(one.is_new for one in steps),
            "largest_difference": max(one.largest for one in steps),
        }
