"""`seedbed verify`: is the store what it says it is?"""

from contextlib import suppress
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from jobs.errors import StoreError
from jobs.store import open_store
from orchestrator.cli.options import DEFAULT_STORE, AsJson, StoreFolder, StudyName
from orchestrator.cli.show import console, print_json, steady_progress
from orchestrator.library import Library
from orchestrator.verdicts import put_verdict
from orchestrator.verify import Verdict, parse_span, verify

_MOST_FINDINGS = 50


def command(
    study: StudyName = "",
    store: StoreFolder = DEFAULT_STORE,
    spans: Annotated[int, typer.Option(min=0, help="How many random spans to train again.")] = 3,
    span: Annotated[list[str] | None, typer.Option(help="RUN@START-END, a span to train again; repeatable.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which random spans.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check a study: files against hashes, chains of parents, schedules, seeds; and train some spans again.

    Changes nothing, and leaves its verdict in the store for the dashboard. Exit code 0: everything fits; 1: something
    does not, and is listed with run, step and file.

    [bold]Example:[/bold] seedbed verify demo --store demo-store --spans 5
    """
    chosen = [parse_span(text) for text in span or []]
    library = Library(open_store(store))
    declared = library.declared(library.only(study))
    with steady_progress(quiet=as_json) as progress:
        verdict = verify(library.store, declared, spans, seed, chosen, progress)
    with suppress(StoreError):  # a store that can only be read can be verified, too
        put_verdict(library.store, verdict)
    if as_json:
        print_json(verdict.as_dict())
    else:
        _show(verdict)
    if verdict.findings:
        raise typer.Exit(1)


def _show(verdict: Verdict) -> None:
    looked = f"{verdict.files:,} files, {verdict.checkpoints:,} checkpoints of {verdict.runs:,} runs"
    trained = ", ".join(f"{span.run_id}@{max(span.start, 0)}-{span.end}" for span in verdict.spans)
    console.print(
        f"{verdict.study}: {looked}; spans trained again: {trained or 'none'}", highlight=False, soft_wrap=True
    )
    if not verdict.findings:
        console.print("[green]Everything fits.[/]")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("finding", "run", "step", "file", "detail"):
        table.add_column(name, overflow="fold")
    for finding in verdict.findings[:_MOST_FINDINGS]:
        step = str(finding.step) if finding.step >= 0 else ""
        table.add_row(finding.kind, finding.run_id, step, escape(finding.key), escape(finding.detail))
    console.print(table)
    more = "; --json lists all" if len(verdict.findings) > _MOST_FINDINGS else ""
    console.print(f"[red]{len(verdict.findings)} findings[/]{more}")
