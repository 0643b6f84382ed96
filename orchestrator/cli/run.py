"""`seedbed run`: train what the store does not hold yet, and show what it found."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from jobs.errors import ClusterError, LeaseLost
from jobs.layout import PackKeys
from jobs.measures import steps_in
from jobs.records import Status
from jobs.requests import StopWatch, stops
from jobs.store import Store, open_store
from jobs.study import Study
from jobs.study_file import read_study
from orchestrator.adaptive import Decision
from orchestrator.cli.options import DEFAULT_STORE, Address, AsJson, Cpus, Insecure, StoreFolder, StudyFile, find_study
from orchestrator.cli.report import folder_beside, report_folder
from orchestrator.cli.show import console, print_headlines, print_json, print_summary
from orchestrator.cli.watching import Show, Watching, say, showing
from orchestrator.clusters import Cluster
from orchestrator.declared import parents_missing, register
from orchestrator.estimates.estimate import plain
from orchestrator.library import Library
from orchestrator.mirrors.beside import Beside, Round
from orchestrator.progress import Watch
from orchestrator.rounds import as_decided, train_rounds
from orchestrator.scheduler import drive_under
from orchestrator.state import State
from orchestrator.store_state import read_standings
from orchestrator.summary import StudySummary
from orchestrator.tenure import tenure
from orchestrator.text import duration

_MOST_FAILURES = 5


class ClusterKind(StrEnum):
    """Where packs train."""

    RAY = "ray"
    INLINE = "inline"


def command(
    study: StudyFile,
    store: StoreFolder = DEFAULT_STORE,
    cluster: Annotated[ClusterKind, typer.Option(help="An embedded Ray, or this process.")] = ClusterKind.RAY,
    cpus: Cpus = 0,
    address: Address = "",
    insecure: Insecure = False,
    takeover: Annotated[
        bool, typer.Option("--takeover", help="Take the study from a driver that is stuck, without waiting for it.")
    ] = False,
    strict_environment: Annotated[
        bool, typer.Option("--strict-environment", help="Refuse to go on from checkpoints of another environment.")
    ] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no figures and no report.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train every run of a study that the store does not hold yet.

    The same command goes on after a crash or Ctrl-C, and trains nothing new when all is there. Failed runs are tried
    again. Where another process drives the study, this one watches, and goes on if that one dies. At the end: a table
    per condition, figures, and one HTML page.

    A study that begins where other runs were (`fork:`) trains those first, where the store has not got them.

    With --address the packs train on a running Ray, and this process drives them; `seedbed submit` leaves that to the
    cluster, too.

    [bold]Example:[/bold] seedbed run study.yaml --store results
    """
    checked, file = find_study(study)
    place = partial(find_cluster, cluster, cpus, address, insecure=insecure)
    opened = open_store(store, create=True)
    manner = Manner(stops(opened, checked.name), takeover=takeover, strict=strict_environment)
    _train_parents(checked, opened, place, strict=strict_environment, quiet=as_json)
    train(checked, file, store, place, manner, no_report=no_report, as_json=as_json)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a study is driven.

    stops_seen  how many requests to stop were there when this drive was asked for: newer ones are honoured
    takeover    whether to take it from a driver that is stuck
    strict      whether to refuse checkpoints of another environment
    """

    stops_seen: int
    takeover: bool = False
    strict: bool = False


def train(
    checked: Study,
    file: str,
    store: str,
    place: Callable[[], Cluster],
    manner: Manner,
    *,
    no_report: bool,
    as_json: bool,
) -> None:
    """Drive a study to its end and print what it found; exit code 1 where runs failed."""
    library = Library(open_store(store))
    register(library.store, as_decided(checked, library.store, file), file)
    began = time.monotonic()
    with Beside(
        checked.settings.track, library.store.url, checked.name, partial(_mirror_folder, store, checked)
    ) as mirrors:
        with showing(Watch(library, checked.name, time.monotonic), quiet=as_json) as show:
            state = _drive(checked, file, library, place, show, manner)
        tables = library.collect(checked.name)
        mirrored = mirrors.finish()
    summary = library.summary(checked.name)
    folder = None if no_report else report_folder(store, checked.name)
    from orchestrator.questions.headlines import headlines  # all estimates take a second to import

    question = library.question(checked.name)
    shown = headlines(question)
    if folder:
        from orchestrator.report import write_report  # matplotlib takes a second

        write_report(question, shown, folder)
    if as_json:
        page = str(folder / "report.html") if folder else None
        told = {"shows": plain(shown), "report": page, "mirrors": plain(mirrored)}
        print_json(summary.as_dict() | told)
    else:
        print_summary(summary)
        print_headlines(shown.modes, [headline.text for headline in shown])
        _say_failures(tables["attempts"], state, store)
        _say_mirrors(mirrored, checked.name, store)
        _say_end(summary, store, folder, time.monotonic() - began)
    if state.counts()[Status.FAILED]:
        raise typer.Exit(1)


def _train_parents(study: Study, store: Store, place: Callable[[], Cluster], *, strict: bool, quiet: bool) -> None:
    """Train the studies that this one begins from, the oldest first, as far as the store has nothing of their runs.

    What looks back at whole runs waits for their ends: each step without a checkpoint would be trained anew from 0.
    """
    rule = study.settings.fork
    if rule is None or not (parents_missing(store, study) or _looks_at_unfinished(study, store)):
        return
    file = study.folder / rule.study
    above = read_study(file)
    _train_parents(above, store, place, strict=strict, quiet=quiet)
    say(f"{study.name} begins where runs of {above.name} were, which the store has not whole: those first")
    library, manner = Library(store), Manner(stops(store, above.name), strict=strict)
    register(store, as_decided(above, store, str(file)), str(file))
    with showing(Watch(library, above.name, time.monotonic), quiet=quiet) as show:
        _drive(above, str(file), library, place, show, manner)
    library.collect(above.name)


def _looks_at_unfinished(study: Study, store: Store) -> bool:
    looks = {point.id for point in study.points if point.condition.polca or steps_in(point.condition.measure)}
    looked_at = {run.origin.run_id for run in study.runs if run.origin and run.point.id in looks}
    return any(not standing.is_done for standing in read_standings(store, sorted(looked_at)).values())


def _drive(
    study: Study, file: str, library: Library, cluster: Callable[[], Cluster], show: Show, manner: Manner
) -> State:
    """Drive the study as soon as nobody else does, and watch until then; returns the state at the end."""
    takeover = manner.takeover
    stop_requested = StopWatch(library.store, study.name, manner.stops_seen, time.monotonic)
    while True:
        watching = Watching(show)
        try:
            with (
                tenure(library.store, study.name, time.monotonic, watching=watching, takeover=takeover) as lease,
                closing(cluster()) as place,
            ):
                watching.end()

                def changed(state: State) -> None:
                    show(state.finished)

                def train_batch(batch: Study) -> State:
                    return drive_under(
                        lease,
                        batch,
                        library.store,
                        place,
                        changed,
                        strict=manner.strict,
                        stop_requested=stop_requested,
                    )

                return train_rounds(study, library, file, train_batch, _say_decision)
        except LeaseLost as error:
            say(f"{error}; this process watches")
            takeover = False


def _say_decision(decision: Decision) -> None:
    more = {look.condition_id: decision.counts[look.condition_id] - look.launched for look in decision.looks}
    runs = sum(more.values())
    if decision.is_last:
        say(f"look {decision.number}: enough seeds by the rule “{decision.rule}”")
    else:
        conditions = sum(1 for count in more.values() if count)
        say(f"look {decision.number}: {runs} more runs in {conditions} of {len(more)} conditions")


def find_cluster(kind: ClusterKind, cpus: int, address: str, *, insecure: bool) -> Cluster:
    """Return the cluster that the options name; raises ClusterError."""
    if kind is ClusterKind.INLINE:
        if address:
            raise ClusterError("--address names a running Ray, and --cluster inline this process: give one of them")
        from orchestrator.clusters.inline import InlineCluster

        return InlineCluster(cpus)
    from orchestrator.clusters.ray import RayCluster

    return RayCluster(cpus, address, insecure=insecure)


def _say_failures(attempts: pa.Table, state: State, store: str) -> None:
    """Print run, step, reason and log of the runs that failed."""
    packs = dict(zip(attempts["run_id"].to_pylist(), attempts["pack_id"].to_pylist(), strict=True))  # newest last
    failed = [(run_id, run) for run_id, run in state.runs.items() if run.status is Status.FAILED]
    for run_id, run in failed[:_MOST_FAILURES]:
        log = f"{store}/{PackKeys(packs[run_id]).log if run_id in packs else 'packs'}"
        console.print(
            f"failed: run {run_id}, step {run.step}: {run.reason}; log: {log}",
            style="red",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    if len(failed) > _MOST_FAILURES:
        console.print(f"… and {len(failed) - _MOST_FAILURES} more failed runs: seedbed query, table `attempts`")


def _mirror_folder(store: str, study: Study, mirror: str) -> Path:
    return folder_beside(store, mirror, study.name)


def _say_mirrors(mirrored: dict[str, Round], study: str, store: str) -> None:
    for mirror, last in mirrored.items():
        if last.error:
            later = f"seedbed sync {mirror} {study} --store {store}"
            told = f"{last.error}; the rows are in the store, and go there later by: {later}"
            console.print(told, style="yellow", highlight=False, markup=False, soft_wrap=True)


def _say_end(summary: StudySummary, store: str, folder: Path | None, seconds: float) -> None:
    if summary.findings:
        console.print(f"{summary.findings} findings in the table `audit`: look at them with seedbed query", style="red")
    console.print(f"Took {duration(seconds)}.", highlight=False)
    name = summary.name
    if folder:
        console.print(f"Report: {folder / 'report.html'} (figures beside it, PNG and SVG)", highlight=False)
    query = "SELECT condition, status, count(*) FROM runs GROUP BY ALL"
    console.print(
        "Next:",
        f"  seedbed status {name} --store {store}",
        f'  seedbed query --store {store} "{query}"',
        f'  python -c \'import seedbed; print(seedbed.open("{store}").runs("{name}").pandas())\'',
        "  raise `count` under `seeds:` in the study file and run again: only the new runs are trained",
        sep="\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
