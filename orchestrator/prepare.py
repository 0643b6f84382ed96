"""What a drive needs before its first pack: what is left to train, how long it takes, which packs, and which train on.

Everything is read from the store, so that a new head begins where the last one stood: a pack that beats is taken
over as it is, and its runs are not launched again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jobs.beats import newest_beats
from jobs.errors import ClusterError, Corrupt, NotFound
from jobs.identity import sha256
from jobs.layout import PackKeys
from jobs.measures import harness_in
from jobs.pack import SeedDigests, get_request
from jobs.process import is_surely_dead
from jobs.records import Status
from jobs.spec import PackedSpec, SingleSpec
from jobs.store import Store, get_record
from jobs.study import Study
from orchestrator.clusters import Cluster
from orchestrator.events import LivePack, RunState, StudyOpened
from orchestrator.machine import Machine, check_offer, needs_of
from orchestrator.packing import Pack, Timing, Todo, assumed_timings, cpus_of, most_threads, pack_runs
from orchestrator.policy import Budgets
from orchestrator.seed_audit import prove_study
from orchestrator.store_state import Standing, read_standings

_CALIBRATED_FROM = 20_000  # run-steps of a condition; below, measuring costs more than it saves
_CALIBRATION_S = 0.1  # for each pack width and number of threads


@dataclass(frozen=True, slots=True)
class Prepared:
    """The first event of a drive, and the proofs of seeds that go into the requests of its packs."""

    opening: StudyOpened
    proofs: Mapping[str, SeedDigests]


def prepare(study: Study, store: Store, cluster: Cluster, *, calibrate: bool) -> Prepared:
    """Return where a drive of the study begins.

    The seeds of all runs are proven first. Raises SeedError, SpecMismatch, ModelError where the tasks of a harness
    cannot be asked, and what store and cluster raise.
    """
    check_harnesses(study)
    execution, found = study.settings.execution, cluster.machine()
    machine = found.offered_to(execution)
    if found.cpus:
        check_offer(machine, execution)
    standings = read_standings(store, [run.id for run in study.runs])
    live = live_packs(study, store, standings)
    taken = {run_id for it in live for run_id in it.pack.run_ids}
    todo = [run for run in todo_of(study, standings) if run.run_id not in taken]
    if machine.cpus:
        _check_sizes(study, frozenset(run.condition_id for run in todo), machine)
    proofs = prove_study(study, store, cluster, frozenset(run.run_id for run in todo)) if todo else {}
    # A cluster that has no node yet is planned for as if it had one.
    planned = replace(machine, cpus=max(1, machine.cpus), packs_at_once=max(1, machine.packs_at_once))
    timings = _timings(study, store, cluster, planned, todo, calibrate=calibrate)
    packs = pack_runs(todo, timings, execution.pack_width, planned, needs_of(execution))
    runs = {run_id: _run_state(standing) for run_id, standing in standings.items()}
    room = cluster.room().offered_to(execution)
    return Prepared(
        StudyOpened(runs, packs, room, Budgets(execution.retries, execution.preemptions), tuple(live)), proofs
    )


def check_harnesses(study: Study) -> None:
    """Raise ModelError or QueryError where the lm-evaluation-harness could not ask what a study says it shall."""
    asked = {
        point.condition.model_dump_json(include={"model", "measure"}): point.condition
        for point in study.points
        if harness_in(point.condition.measure)
    }
    if asked:
        from workers.harness import check_harness  # imports torch, which takes seconds

        texts = {f"sha256:{sha256(text.encode())}": text.encode() for text in study.texts.values()}
        for condition in asked.values():
            check_harness(condition, texts.__getitem__)


def _check_sizes(study: Study, wanted: frozenset[str], machine: Machine) -> None:
    """Raise ClusterError where the processes of one run need more CPUs, or nodes, than there are."""
    nodes = study.settings.execution.nodes
    most = machine.most_cpus(nodes)
    for point in study.points:
        engine = point.condition.engine
        if point.id not in wanted or not isinstance(engine, SingleSpec):
            continue
        if 0 < len(machine.nodes) < nodes:
            raise ClusterError(f"{point.label}: a run takes {nodes} nodes; the cluster has {len(machine.nodes)}")
        if cpus_of(engine) > most:
            where = "on one node; the largest has" if nodes == 1 else f"on {nodes} nodes; the largest have"
            told = f"{engine.processes} processes × {engine.threads} threads = {cpus_of(engine)} CPUs {where} {most}"
            raise ClusterError(f"{point.label}: a run takes {told}")


def todo_of(study: Study, standings: Mapping[str, Standing]) -> list[Todo]:
    """Return the runs that are to be trained, in the order of the study."""
    found = []
    for run in study.runs:
        standing = standings[run.id]
        if not standing.is_done:
            left = run.point.condition.training.steps - max(standing.step, run.point.first_step)
            found.append(Todo(run.id, run.point.id, standing.step, left))
    return found


def live_packs(study: Study, store: Store, standings: Mapping[str, Standing]) -> list[LivePack]:
    """Return the packs that train on without a head: they have a beat, and no process that is surely dead.

    A pack counts for those of its runs that no later attempt holds. Whether it goes on beating is for the driver
    to see.
    """
    beats = newest_beats(store)
    conditions = {run.id: run.point.id for run in study.runs}
    members: dict[str, list[str]] = {}
    for standing in standings.values():
        if standing.status is Status.RUNNING and standing.pack_id in beats:
            members.setdefault(standing.pack_id, []).append(standing.run_id)
    found, needs = [], needs_of(study.settings.execution)
    for pack_id, run_ids in sorted(members.items()):
        try:
            request = get_request(store, pack_id)
            if is_surely_dead(get_record(store, PackKeys(pack_id).claim)):
                continue
        except (NotFound, Corrupt):
            continue
        engine = request.condition.engine
        of_all = engine.processes if isinstance(engine, SingleSpec) else 1
        taken = replace(needs, gpu_share=needs.gpu_share * of_all)
        pack = Pack(conditions[run_ids[0]], tuple(run_ids), request.threads, seconds=0.0, needs=taken)
        found.append(LivePack(pack, pack_id))
    return found


def _timings(
    study: Study, store: Store, cluster: Cluster, machine: Machine, todo: Sequence[Todo], *, calibrate: bool
) -> dict[str, Sequence[Timing]]:
    """Return the timings of each condition that is to be trained: measured where that pays, else assumed."""
    work: dict[str, list[int]] = {}
    for run in todo:
        work.setdefault(run.condition_id, []).append(run.steps_left)
    measured = calibrate and study.settings.execution.pack_width == "calibrated"
    threads = tuple(sorted({1, most_threads(machine.most_cpus())}))
    needs = needs_of(study.settings.execution)
    points = {point.id: point for point in study.points}
    found: dict[str, Sequence[Timing]] = {}
    for condition_id, steps in work.items():
        condition = points[condition_id].condition
        is_packed = isinstance(condition.engine, PackedSpec)
        if is_packed and measured and sum(steps) >= _CALIBRATED_FROM:
            found[condition_id] = cluster.calibrate(store.url, condition, len(steps), threads, _CALIBRATION_S, needs)
        else:
            found[condition_id] = assumed_timings(condition, machine, needs.nodes)
    return found


def _run_state(standing: Standing) -> RunState:
    if standing.is_done:
        return RunState(standing.status, standing.step, reason=standing.reason)
    return RunState(Status.WAITING, standing.step)
