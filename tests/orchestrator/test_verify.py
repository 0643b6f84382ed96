"""`verify` finds what was planted, says where, and finds nothing else; replay gives the weights that were there.

Whoever plants here is careful: every file has a manifest that fits it, so that hashes alone tell nothing.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from safetensors.torch import load_file

from jobs.errors import NotFound, QueryError
from jobs.layout import PackKeys
from jobs.local_files import hash_file
from jobs.parquet import read_table, write_table
from jobs.records import METRICS
from jobs.store import LocalStore, committed, manifest_key, open_store, put_record, read_manifest
from orchestrator.declared import read_declared
from orchestrator.library import Library
from orchestrator.verify import Span, parse_span, verify
from tests.bitwise.drives import one_command
from workers.checkpoint import slice_digest, write_tensors
from workers.replay import replay

STUDY = """\
study: watched
task: {name: parity, bits: 6, subset: 2, test_size: 16}
model: {family: gpt, layers: 1, width: 8, heads: 2}
optimizer: {learning_rate: 3e-3}
training: {steps: 9, batch_size: 8}
probes: {every: 3}
checkpoints: {milestones: [4, 6], rolling: {every: 4}}
seeds: {design: paired, count: 2}
execution: {pack_width: 1}
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    one_command(tmp_path / "store", STUDY)
    return open_store(tmp_path / "store")


@pytest.fixture
def packs(store: LocalStore) -> list[tuple[str, str]]:
    """Return (run, pack) of both runs, in the order of the study."""
    attempts = Library(store).tables("watched")["attempts"].to_pylist()
    by_run = {row["run_id"]: row["pack_id"] for row in attempts}
    return [(run.id, by_run[run.id]) for run in read_declared(store, "watched").runs]


def exchange(store: LocalStore, key: str, write: Callable[[Path], None], extra: dict[str, Any]) -> None:
    """Put another file, with a manifest that fits it, in the place of a committed one."""
    store.delete(manifest_key(key))
    store.delete(key)
    with store.scratch(".planted") as staged:
        write(staged)
        sha256, size_bytes = hash_file(staged, sync=True)
        store.put_file(key, staged)
    put_record(store, manifest_key(key), {"key": key, "size_bytes": size_bytes, "sha256": sha256, "extra": extra})


def plant_weights(store: LocalStore, pack: str, step: int, state: dict[str, Any]) -> str:
    """Put other weights in the place of a pack's only run; returns their digest."""
    key = PackKeys(pack).checkpoint(step)
    extra = read_manifest(store, key).extra
    digest = slice_digest(state, 0)
    runs = [{**extra["runs"][0], "sha256": digest}]
    exchange(store, key, lambda path: write_tensors(path, state), {**extra, "runs": runs})
    return digest


def weights(store: LocalStore, pack: str, step: int) -> dict[str, Any]:
    return load_file(store.local(PackKeys(pack).checkpoint(step)))


def findings(store: LocalStore, spans: int = 0, **named: Any) -> list[tuple[str, str, int]]:
    verdict = verify(store, read_declared(store, "watched"), spans, **named)
    return [(finding.kind, finding.run_id, finding.step) for finding in verdict.findings]


def test_a_sound_study_has_no_finding_and_any_span_comes_out_equal(store: LocalStore) -> None:
    before = {key: store.get(key) for key in store.keys("")}
    declared = read_declared(store, "watched")
    verdict = verify(store, declared, spans=100)
    assert verdict.findings == []
    assert (verdict.runs, verdict.checkpoints, len(verdict.spans)) == (2, 8, 8)
    assert verdict.files > 20
    assert {key: store.get(key) for key in store.keys("")} == before, "nothing is changed"


def test_which_spans_are_drawn_is_the_seeds_choice(store: LocalStore) -> None:
    declared = read_declared(store, "watched")
    drawn = [verify(store, declared, spans=3, seed=seed).spans for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_swapped_checkpoints_of_two_runs(store: LocalStore, packs: list[tuple[str, str]]) -> None:
    (one, first), (two, second) = packs
    mine, theirs = weights(store, first, 4), weights(store, second, 4)
    plant_weights(store, first, 4, theirs)
    plant_weights(store, second, 4, mine)
    assert sorted(findings(store)) == sorted([("chain", one, 6), ("chain", two, 6)])


def test_a_chain_that_starts_from_another_runs_step_0(store: LocalStore, packs: list[tuple[str, str]]) -> None:
    (one, first), (_, second) = packs
    digest = plant_weights(store, first, 0, weights(store, second, 0))
    assert findings(store) == [("chain", one, 0), ("chain", one, 4)], "the next one names the old step 0 as its parent"
    key = PackKeys(first).checkpoint(4)
    extra = read_manifest(store, key).extra
    link = {**extra["runs"][0]["parents"][-1], "sha256": digest}
    state = weights(store, first, 4)
    exchange(
        store,
        key,
        lambda path: write_tensors(path, state),
        {**extra, "runs": [{**extra["runs"][0], "parents": [link]}]},
    )
    assert findings(store) == [("chain", one, 0)], "the links fit now; the run's init seed does not"


def test_a_missing_milestone(store: LocalStore, packs: list[tuple[str, str]]) -> None:
    (one, first), _ = packs
    key = PackKeys(first).checkpoint(4)
    store.delete(manifest_key(key))
    store.delete(key)
    assert findings(store) == [("chain", one, 6), ("missing", one, 4)]


def test_a_file_that_is_gone_and_its_manifest_is_not(store: LocalStore, packs: list[tuple[str, str]]) -> None:
    key = PackKeys(packs[0][1]).checkpoint(4)
    store.delete(key)
    found = verify(store, read_declared(store, "watched"), 0).findings
    assert ("missing", key) in [(finding.kind, finding.key) for finding in found]


def test_a_row_changed_after_the_fact(store: LocalStore, packs: list[tuple[str, str]]) -> None:
    (one, first), _ = packs
    key = next(k for k in committed(store, PackKeys(first).shards) if 9 in steps_in(store, k))
    table = read_table(store.local(key), METRICS)
    is_row = pc.and_(pc.equal(table["metric"], "heldout.loss"), pc.equal(table["step"], 9))
    values = pc.if_else(is_row, pc.add(table["value"], 1e-12), table["value"])
    place = METRICS.get_field_index("value")
    changed = table.set_column(place, METRICS.field("value"), values)
    exchange(store, key, lambda path: write_table(changed, path), read_manifest(store, key).extra)
    assert findings(store) == [], "no hash tells of it"
    assert findings(store, chosen=[Span(one, 6, 9)]) == [("span", one, 9)]


def steps_in(store: LocalStore, key: str) -> list[int]:
    return list(read_table(store.local(key), METRICS)["step"].to_pylist())


def test_rows_that_are_missing_extra_or_twice(store: LocalStore, packs: list[tuple[str, str]]) -> None:
    (one, first), _ = packs
    key = next(k for k in committed(store, PackKeys(first).shards) if 9 in steps_in(store, k))
    table = read_table(store.local(key), METRICS)
    last, rest = table.filter(pc.field("step") == 9), table.filter(pc.field("step") != 9)
    moved = last.set_column(
        METRICS.get_field_index("step"), METRICS.field("step"), pa.array([8] * len(last), pa.int64())
    )
    for planted, expected in (
        (rest, [("missing", one, 9)]),
        (pa.concat_tables([table, moved]), [("extra", one, 8)]),
        (pa.concat_tables([table, last.slice(0, 1)]), [("duplicate", one, 9)]),
    ):
        extra = read_manifest(store, key).extra | {"rows": planted.num_rows}
        exchange(store, key, lambda path, rows=planted: write_table(rows, path), extra)  # type: ignore[misc]
        assert findings(store) == expected


def test_a_checkpoint_at_a_step_that_is_in_no_schedule(store: LocalStore, packs: list[tuple[str, str]]) -> None:
    (one, first), _ = packs
    state = weights(store, first, 4)
    extra = read_manifest(store, PackKeys(first).checkpoint(4)).extra
    exchange(store, PackKeys(first).checkpoint(5), lambda path: write_tensors(path, state), {**extra, "step": 5})
    assert ("extra", one, 5) in findings(store)


def test_a_span_of_a_run_or_step_that_there_is_not_is_a_finding_and_bad_words_are_refused(store: LocalStore) -> None:
    assert findings(store, chosen=[Span("r1-unknown", 0, 4)]) == [("span", "r1-unknown", 4)]
    run = read_declared(store, "watched").runs[0].id
    assert findings(store, chosen=[Span(run, 0, 99)]) == [("span", run, 99)]
    assert parse_span(f"{run}@4-6") == Span(run, 4, 6)
    for text in ("", run, f"{run}@4", f"{run}@6-4", f"{run}@a-b", "@1-2"):
        with pytest.raises(QueryError, match="RUN@START-END"):
            parse_span(text)


@pytest.mark.parametrize("step", range(10))
def test_every_step_is_a_checkpoint(store: LocalStore, packs: list[tuple[str, str]], step: int) -> None:
    one, first = packs[0]
    near, seeds = replay(store, one, step), replay(store, one, step, start=-1)
    assert near.sha256 == seeds.sha256
    assert near.started_at == max(s for s in (0, 4, 6, 9) if s <= step)
    assert seeds.started_at == -1
    if step in (0, 4, 6, 9):
        assert near.sha256 == read_manifest(store, PackKeys(first).checkpoint(step)).extra["runs"][0]["sha256"]


def test_a_step_beyond_the_end_and_an_unknown_run_are_refused(store: LocalStore, packs: list[tuple[str, str]]) -> None:
    with pytest.raises(NotFound, match="it has 0 to 9"):
        replay(store, packs[0][0], 10)
    with pytest.raises(NotFound, match="never started"):
        replay(store, "r1-nothing", 1)


def test_a_damaged_checkpoint_is_left_out_by_replay(store: LocalStore, packs: list[tuple[str, str]]) -> None:
    one, first = packs[0]
    before = replay(store, one, 5).sha256
    path = store.local(PackKeys(first).checkpoint(4))
    path.write_bytes(path.read_bytes()[:-1])
    again = replay(store, one, 5)
    assert (again.sha256, again.started_at) == (before, 0)


def test_a_finding_is_plain_data(store: LocalStore) -> None:
    verdict = verify(store, read_declared(store, "watched"), 1)
    assert verdict.as_dict()["spans"] == [dataclasses.asdict(verdict.spans[0])]
