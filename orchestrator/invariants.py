"""What must hold of every state after every event: for tests and simulations, not for the drive itself."""

from collections import Counter

from orchestrator.state import InvalidTransition, State


def check_invariants(state: State) -> None:
    """Raise InvalidTransition where the state breaks what `state.py` promises."""
    places = Counter(run for pack in state.waiting for run in pack.run_ids)
    live = state.live_packs()
    places.update(run for it in live for run in it.pack.run_ids)
    for run_id, run in state.runs.items():
        places[run_id] += run.status.is_terminal
    problems = [f"run {run_id} is in {count} places" for run_id, count in sorted(places.items()) if count != 1]
    problems += [f"run {run_id} is unknown" for run_id in sorted(places) if run_id not in state.runs]
    if state.counts() != Counter(run.status for run in state.runs.values()):
        problems.append("the counts are not those of the runs")
    if Counter(dict(state.shapes)) != Counter(it.pack.shape for it in live):
        problems.append("the shapes are not those of the live packs")
    if {it.pack_id: it.pack.key for it in live if it.pack_id} != dict(state.keys):
        problems.append("the ids are not those of the live packs")
    over = [run_id for run_id, run in state.runs.items() if run.crashes > state.budgets.crashes + 1]
    problems += [f"run {run_id} crashed more often than its budget allows" for run_id in sorted(over)]
    over = [run_id for run_id, run in state.runs.items() if run.preemptions > state.budgets.preemptions + 1]
    problems += [f"run {run_id} was preempted more often than its budget allows" for run_id in sorted(over)]
    if state.finished and not state.error and (state.live or (state.waiting and not state.stopping)):
        problems.append("finished with packs left")
    if problems:
        raise InvalidTransition("invariants", "; ".join(problems[:5]), state.story)
