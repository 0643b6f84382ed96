"""`seedbed extend`: more seeds or more grid values for a study; what is finished stays as it is."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from jobs.errors import Fault, StudyError
from jobs.study import Study
from jobs.study_edit import extended
from jobs.study_file import parse_study
from orchestrator.cli import run as run_verb
from orchestrator.cli.options import DEFAULT_STORE, AsJson, Cpus, StoreFolder, StudyFile, find_study, is_shipped
from orchestrator.cli.run import ClusterKind
from orchestrator.cli.show import console


def command(
    study: StudyFile,
    seeds: Annotated[
        list[str] | None, typer.Option(help="How many more: +8, or for a crossed design init=+4 and data=+4.")
    ] = None,
    grid: Annotated[list[str] | None, typer.Option(help="More values of a factor: model.width=64,128.")] = None,
    store: StoreFolder = DEFAULT_STORE,
    dry: Annotated[bool, typer.Option("--dry", help="Show the changed study and write nothing.")] = False,
    no_run: Annotated[bool, typer.Option("--no-run", help="Change the study file, and train nothing.")] = False,
    cluster: Annotated[ClusterKind, typer.Option(help="An embedded Ray, or this process.")] = ClusterKind.RAY,
    cpus: Cpus = 0,
    as_json: AsJson = False,
) -> None:
    """Add seeds or grid values to a study file, and train only what is new.

    Ids of existing runs do not change, so nothing that is finished is touched. The seeds of all runs, old and new,
    are proven again before the first step.

    [bold]Example:[/bold] seedbed extend study.yaml --seeds +8 --store results
    """
    checked, file = find_study(study)
    counts, values = _counts(seeds or [], file), _values(grid or [], file)
    if is_shipped(file):
        raise StudyError((Fault(file, 0, "", "is a study that comes with Seedbed: copy it, and extend the copy"),))
    if not counts and not values:
        raise StudyError((Fault(file, 0, "", "say what to add: --seeds +8, or --grid model.width=64"),))
    text = extended(checked.text, file, counts, values)
    larger = parse_study(text, file, Path(file).parent)
    _check_superset(checked, larger, file)
    added = len(larger.runs) - len(checked.runs)
    if not as_json:
        console.print(f"{file}: {len(checked.runs)} runs and {added} more", highlight=False, markup=False)
    if dry:
        console.print(text, highlight=False, markup=False)
        return
    Path(file).write_text(text, encoding="utf-8")
    if not no_run:
        run_verb.command(study=file, store=store, cluster=cluster, cpus=cpus, as_json=as_json)


def _counts(given: list[str], file: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in given:
        match = re.fullmatch(r"(?:(count|init|data)=)?\+(\d+)", text)
        if match is None or int(match[2]) < 1:
            raise StudyError((Fault(file, 0, "seeds", f"more seeds are +8, init=+4 or data=+4, not {text!r}"),))
        found[match[1] or "count"] = int(match[2])
    return found


def _values(given: list[str], file: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for text in given:
        factor, sign, values = text.partition("=")
        if not (factor and sign and values):
            raise StudyError((Fault(file, 0, "grid", f"more values are model.width=64,128, not {text!r}"),))
        found.setdefault(factor, []).extend(yaml.safe_load(value) for value in values.split(","))
    return found


def _check_superset(old: Study, new: Study, file: str) -> None:
    lost = {run.id for run in old.runs} - {run.id for run in new.runs}
    if lost:
        raise StudyError((Fault(file, 0, "", f"{len(lost)} runs would have other ids: this is no extension"),))
