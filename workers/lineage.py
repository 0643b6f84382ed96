"""The chain of parents of every checkpoint, back to its own step 0; and what a run must have when it has ended."""

from collections.abc import Iterator, Mapping, Sequence

from jobs.errors import Corrupt, NotFound, SeedbedError
from jobs.findings import Finding
from jobs.measures import steps_in
from jobs.schedule import steps_of
from jobs.store import Store
from workers.checkpoint import Link, Saved, checkpoints_of, read_slice
from workers.engines import MODEL
from workers.seed_proof import weights_digest
from workers.stored import StoredRun, stored_run


def planned_milestones(stored: StoredRun) -> list[int]:
    """Return the steps at which a run that has ended must have a checkpoint of its own, ascending."""
    condition, origin = stored.condition, stored.origin
    steps = steps_of(condition.milestones, condition.training.steps)
    if origin is None:
        return list(steps)
    own = {step for step in steps if step > origin.step}
    # A fork's first state is its parent's, by reference, unless something in it was changed.
    return sorted(own | ({origin.step} if origin.is_saved_anew else set()))


def planned_probes(stored: StoredRun) -> list[int]:
    """Return the steps at which a run that has ended must have rows, ascending."""
    steps = steps_of(stored.condition.probes, stored.condition.training.steps)
    polca = stored.condition.polca
    looked_at = set(polca.looked_at(stored.first_step)) if polca else set()
    for look in steps_in(stored.condition.measure):
        looked_at |= set(look.looked_at(stored.first_step))
    return sorted({stored.first_step, *(step for step in steps if step >= stored.first_step), *looked_at})


def chain(
    store: Store, stored: StoredRun, one: Saved, saved: Mapping[int, Saved], planned: Sequence[int]
) -> Iterator[Finding]:
    """Yield where the parents of a checkpoint do not lead to the milestone before it, or to the fork's parent."""
    run_id, step, key, origin = stored.run_id, one.step, one.manifest.key, stored.origin
    parents = one.slice.parents
    if step == 0 and origin is None:
        if parents:
            detail = f"step 0 has a parent: step {parents[0].step} of {parents[0].run_id}"
            yield Finding("chain", run_id, 0, key, detail)
        return
    if not parents:
        orphan = Finding("chain", run_id, step, key, "has no parent, so nothing leads back to step 0")
        # A script saves when it wants to, and what it saves first stems from the seeds.
        yield from () if stored.is_script else (orphan,)
        return
    bound = step
    for link in parents:
        if origin is not None and link.run_id in origin.parents and link.step == origin.step:
            yield from _origin_link(store, run_id, step, key, link)
            if link is parents[-1]:
                return
            continue
        if link.run_id != run_id:
            yield Finding("chain", run_id, step, key, f"its parent is step {link.step} of another run, {link.run_id}")
            return
        if link.step >= bound:
            yield Finding("chain", run_id, step, key, f"its parent at step {link.step} is not before it")
        bound = link.step
        there = saved.get(link.step)
        if there is not None and there.slice.sha256 != link.sha256:
            detail = f"its parent at step {link.step} is {link.sha256[:12]}…, but there is {there.slice.sha256[:12]}…"
            yield Finding("chain", run_id, step, key, detail)
        elif there is None and link.step in planned:
            yield Finding("chain", run_id, step, key, f"its parent at step {link.step} is not there")
    if parents[-1].step not in planned and parents[-1].step != 0 and not stored.is_script:
        yield Finding("chain", run_id, step, key, f"its chain ends at step {parents[-1].step}, which is no milestone")


def _origin_link(store: Store, run_id: str, step: int, key: str, link: Link) -> Iterator[Finding]:
    try:
        there = checkpoints_of(store, stored_run(store, link.run_id).attempts).get(link.step)
    except SeedbedError as error:
        yield Finding("chain", run_id, step, key, f"its parent run {link.run_id} cannot be read: {error}")
        return
    if there is not None and there.slice.sha256 != link.sha256:
        yield Finding("chain", run_id, step, key, f"is not a child of what run {link.run_id} has at step {link.step}")


def beginning(store: Store, stored: StoredRun, saved: Mapping[int, Saved], init: str) -> Iterator[Finding]:
    """Yield where step 0 is not what the run's own init seed makes: `init`, the digest in its proof of seeds."""
    if stored.origin is not None or 0 not in saved:
        return
    try:
        state = read_slice(store, saved[0])
    except (Corrupt, NotFound) as error:
        yield Finding("corrupt", stored.run_id, 0, saved[0].manifest.key, error.message)
        return
    weights = {n.removeprefix(MODEL): t[0].numpy() for n, t in state.items() if n.startswith(MODEL)}
    if init and init != weights_digest(weights):
        yield Finding("chain", stored.run_id, 0, saved[0].manifest.key, "step 0 is not what the run's init seed makes")
