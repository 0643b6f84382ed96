"""Many histories of the whole control plane, and proof that they find bugs: each of these was planted and is caught.

`make sim` runs ten thousand; here is a tenth of them. A failure prints its seed: `python -m tests.sim SEED`.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from jobs import claims
from jobs.beats import newest_beats
from jobs.claims import Attempt
from jobs.errors import Superseded
from jobs.lease import Lease
from jobs.pack import get_request
from jobs.store import Store
from jobs.study import Study
from orchestrator import driver, prepare, state
from orchestrator.events import LivePack, RunState
from orchestrator.packing import Pack
from orchestrator.policy import Blame
from orchestrator.store_state import Standing
from tests.sim import worker
from tests.sim.__main__ import histories
from tests.sim.world import FAULTS, World
from workers.progress import Progress

BLOCKS, BLOCK = 10, 100
MOST_SEEDS = 300  # within which a planted bug must be found


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Faults are logged by the thousand."""
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_history_breaks_what_was_promised(block: int) -> None:
    events, injected, failures = histories(range(block * BLOCK, (block + 1) * BLOCK))
    assert failures == []
    assert events > 100 * BLOCK
    assert set(injected) == set(FAULTS), "every fault has struck"


def test_a_seed_is_a_whole_history() -> None:
    def story(seed: int) -> tuple[int, float, Counter[str], dict[str, bytes]]:
        made = World(seed)
        made.run()
        return made.events, made.now, made.injected, made.store.objects

    assert story(7) == story(7)
    assert story(7) != story(8)


def first_failure() -> str:
    """Return what the first history that fails says; empty where none does."""
    for start in range(0, MOST_SEEDS, 20):
        _, _, failures = histories(range(start, start + 20))
        if failures:
            return failures[0]
    return ""


def everything_counts(step: int, attempt: int, attempts: list[Attempt]) -> bool:
    return True


def claims_whatever_is_free(store: Store, run_id: str, pack_id: str, *rest: Any, after: int) -> Attempt:
    while True:
        try:
            return claims.claim(store, run_id, pack_id, *rest, after=after)
        except Superseded:
            after += 1


def charged_twice(run: RunState, found: Blame) -> RunState:
    return replace(run, crashes=run.crashes + 2) if found is Blame.CRASH else run


def preemption_is_a_crash(run: RunState, found: Blame) -> RunState:
    return replace(run, crashes=run.crashes + 1)


def adopts_whatever_beats(study: Study, store: Store, standings: Mapping[str, Standing]) -> list[LivePack]:
    found = []
    for pack_id in sorted(newest_beats(store)):
        request = get_request(store, pack_id)
        run_ids = tuple(run.run_id for run in request.runs if not standings[run.run_id].is_done)
        if run_ids:
            condition = next(run.point.id for run in study.runs if run.id == run_ids[0])
            found.append(LivePack(Pack(condition, run_ids, request.threads, seconds=0.0), pack_id))
    return found


def no_check(*_: object) -> None:
    return None


PLANTED: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "rows of superseded attempts count": (
        lambda patch: patch.setattr(claims, "counts", everything_counts),
        "a row counts twice",
    ),
    "a retry is counted twice": (lambda patch: patch.setattr(state, "_charged", charged_twice), "given up after"),
    "a preemption is charged as a crash": (
        lambda patch: patch.setattr(state, "_charged", preemption_is_a_crash),
        "given up after|more often than its budget",
    ),
    "the lease is ignored": (lambda patch: patch.setattr(Lease, "check", no_check), "launched"),
    "a loss without news is never found": (
        lambda patch: patch.setattr(driver, "PACK_SILENT_S", float("inf")),
        "did not end",
    ),
    "a pack that stands still is never found": (
        lambda patch: patch.setattr(Progress, "stalled", lambda _: ""),
        "did not end",
    ),
    "packs are adopted with runs that a later attempt holds": (
        lambda patch: patch.setattr(prepare, "live_packs", adopts_whatever_beats),
        "",
    ),
    "a late pack claims whatever number is free": (
        lambda patch: (
            patch.setattr(worker, "claim", claims_whatever_is_free),
            patch.setattr(worker, "check_still_wanted", no_check),
        )[0],
        "",
    ),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, words = PLANTED[bug]
    plant(monkeypatch)
    found = first_failure()
    assert found.startswith("seed "), f"{MOST_SEEDS} histories did not find that {bug}"
    assert re.search(words, found)
    monkeypatch.undo()
    World(int(found.split()[1].rstrip(":"))).run()
