"""What was submitted: a study as a record in the store, complete without the file it came from.

A changed study is a new revision under the next number; older ones stay. Everything that reads a study after
its submission (collector, query, report) reads this and needs neither the YAML nor a user's own task.
"""

import re
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from jobs.errors import Fault, NotFound, StudyError
from jobs.identity import canonical_json, sha256
from jobs.layout import file_key, parse_attempt_key, study_key, task_key
from jobs.numbered import newest, put_next
from jobs.origin import Origin
from jobs.seeds import Seeds
from jobs.stop import StopRule
from jobs.store import Store, get_record, put_same
from jobs.study import Study, SuccessRule
from jobs.study_files import files_of
from jobs.text.stored import tell_place

_STUDY = re.compile(r"^studies/(?P<name>.+)\.\d{4,}\.json$")


@dataclass(frozen=True, slots=True)
class DeclaredCondition:
    """A condition: its id, its label, its factors with their values, and the steps its runs are to train."""

    id: str
    label: str
    factors: dict[str, Any]
    planned_steps: int


@dataclass(frozen=True, slots=True)
class DeclaredRun:
    """A run: its id, its condition, its seeds, and for a fork where it begins."""

    id: str
    condition: DeclaredCondition
    seeds: Seeds
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Declared:
    """A study as the store has it.

    scale  the factor on the x axis; empty where none is
    tasks  the `code` of each user's own task
    imported  the digest of an import, for runs that were trained elsewhere; else empty
    stop   the rule that gives the seeds, and how many each condition had before it looked; None: a fixed number
    files  path → text of every file that the study names, by paths relative to its own
    families  of runs on lines between forked runs: end of a line → the run it was forked from; else empty
    """

    name: str
    revision: int
    file: str
    text: str
    question: str
    paper: str
    scale: str
    success: SuccessRule
    conditions: tuple[DeclaredCondition, ...]
    runs: tuple[DeclaredRun, ...]
    tasks: tuple[str, ...] = ()
    imported: str = ""
    stop: tuple[StopRule, int] | None = None
    files: dict[str, str] = field(default_factory=dict)
    families: dict[str, str] = field(default_factory=dict)


def register(store: Store, study: Study, file: str) -> Declared:
    """Put what was submitted into the store, if it differs from the newest revision; returns what is there now.

    The source of a user's own task goes along, so that a worker anywhere finds it. Raises StudyError where a fork's
    parents were never started in this store; then nothing is written.
    """
    missing = parents_missing(store, study)
    if missing and (rule := study.settings.fork):
        told = f"{len(missing)} parents were never started in this store: first seedbed run {rule.study}"
        raise StudyError((Fault(file, 0, "fork.study", f"{told} --store {store.url}"),))
    for code, source in study.task_sources.items():
        put_same(store, task_key(code), source.encode())
    for text in study.texts.values():
        put_same(store, file_key(f"sha256:{sha256(text.encode())}"), text.encode())
    for place in study.corpora:
        tell_place(store, place)
    return _put_body(store, _body(study, file))


def register_imported(store: Store, body: dict[str, Any]) -> Declared:
    """Put the study of an import into the store, if it differs from the newest revision; returns what is there now."""
    return _put_body(store, body)


def _put_body(store: Store, body: dict[str, Any]) -> Declared:
    key = partial(study_key, body["study"])
    revision = newest(store, key)
    if revision == 0 or get_record(store, key(revision)) != body:
        revision = put_next(store, key, lambda _: body, revision)
    return _declared(body, revision)


def parents_missing(store: Store, study: Study) -> set[str]:
    """Return the runs that others of the study begin from and that were never started in the store."""
    if study.settings.fork is None:
        return set()
    started = {parsed[0] for key in store.keys("attempts/") if (parsed := parse_attempt_key(key))}
    return {parent for run in study.runs if run.origin for parent in run.origin.parents} - started


def declare(study: Study, file: str) -> Declared:
    """Return the study as `register` would, without writing anything."""
    return _declared(_body(study, file), 0)


def read_declared(store: Store, name: str) -> Declared:
    """Return the newest revision of the study called `name`; raises NotFound, Corrupt."""
    key = partial(study_key, name)
    revision = newest(store, key)
    if revision == 0:
        known = studies(store)
        raise NotFound(name, f"is no study of this store; it holds {', '.join(known) if known else 'none yet'}")
    return _declared(get_record(store, key(revision)), revision)


def studies(store: Store) -> list[str]:
    """Return the names of the studies in the store, sorted."""
    return sorted({match["name"] for key in store.keys("studies/") if (match := _STUDY.match(key))})


def _body(study: Study, file: str) -> dict[str, Any]:
    places = {point.id: index for index, point in enumerate(study.points)}
    stop = study.settings.stop
    ruled = {"stop": {"rule": stop.model_dump(mode="json"), "first": study.first_batch}} if stop else {}
    families = _families(study)
    return (
        ruled
        | ({"families": families} if families else {})
        | {
            "study": study.name,
            "file": file,
            "text": study.text,
            "question": study.settings.question,
            "paper": study.settings.paper,
            "scale": study.scale,
            "success": study.settings.success.model_dump(mode="json"),
            "tasks": sorted(study.task_sources),
            "files": files_of(study),
            "conditions": [
                {
                    "id": point.id,
                    "label": point.label,
                    "factors": [[name, value] for name, value in point.factors],
                    "planned_steps": point.condition.training.steps,
                }
                for point in study.points
            ],
            "runs": [
                [run.id, places[run.point.id], *run.seeds.as_dict().values()]
                + ([run.origin.spec()] if run.origin else [])
                for run in study.runs
            ],
        }
    )


def _families(study: Study) -> dict[str, str]:
    """Return of each forked run at the end of a line the run that it was forked from."""
    ends = (parent for point in study.points if point.fork and point.fork.rule.line for parent in point.fork.parents)
    return {end.id: end.origin.run_id for end in ends if end.origin}


def _declared(body: dict[str, Any], revision: int) -> Declared:
    conditions = tuple(
        DeclaredCondition(c["id"], c["label"], {name: value for name, value in c["factors"]}, c["planned_steps"])  # noqa: C416
        for c in body["conditions"]
    )
    return Declared(
        name=body["study"],
        revision=revision,
        file=body["file"],
        text=body["text"],
        question=body["question"],
        paper=body["paper"],
        scale=body["scale"],
        success=SuccessRule.model_validate(body["success"]),
        conditions=conditions,
        runs=tuple(DeclaredRun(run[0], conditions[run[1]], Seeds(*run[2:6]), _origin(run[6:])) for run in body["runs"]),
        imported=body.get("imported", ""),
        tasks=tuple(body.get("tasks", ())),
        stop=_stop(body.get("stop")),
        files=dict(body.get("files", {})),  # records from before files went along have none
        families=dict(body.get("families", {})),
    )


def _stop(body: dict[str, Any] | None) -> tuple[StopRule, int] | None:
    if body is None:
        return None
    rule: StopRule = TypeAdapter(StopRule).validate_python(body["rule"])
    return rule, int(body["first"])


def _origin(rest: list[dict[str, Any]]) -> Origin | None:
    return Origin.model_validate_json(canonical_json(rest[0])) if rest else None
