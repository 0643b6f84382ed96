"""Seeds by rule: what a rule decides, that decisions outlive the head, and that no interval is looked at twice."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import StudyError
from jobs.stop import MidpointStop, StopRule, WidthStop
from jobs.store import LocalStore, get_record
from jobs.study import Study
from jobs.study_file import parse_study
from orchestrator.adaptive import Decision, Look, as_record, decide, midpoint, of_record
from orchestrator.clusters.inline import InlineCluster
from orchestrator.declared import read_declared, register
from orchestrator.estimates.stopping import characteristics
from orchestrator.library import Library
from orchestrator.rounds import as_decided, read_decisions, train_rounds
from orchestrator.scheduler import drive
from orchestrator.state import State
from orchestrator.stop_rules import rule_id, stop_plan, width_rule

WIDTH = WidthStop(rule="width", half_width=0.2, every=4, most=40)
MIDPOINT = MidpointStop(rule="midpoint", factor=1.05, every=12, budget=200)
SCALES = (4.0, 8.0, 16.0, 32.0)


def looks(*cells: tuple[int, int, int]) -> tuple[Look, ...]:
    """Return looks at conditions c0, c1, … from (launched, known, successes)."""
    return tuple(Look(f"c{i}", SCALES[i], *cell) for i, cell in enumerate(cells))


def test_a_wide_interval_gets_the_next_batch_and_a_narrow_one_none() -> None:
    decision = decide(WIDTH, "s", 12, looks((12, 12, 6), (12, 12, 0), (40, 40, 20), (38, 38, 19)), 1)
    assert decision.counts == {"c0": 16, "c1": 12, "c2": 40, "c3": 38}
    assert not decision.is_last
    assert decide(WIDTH, "s", 12, looks((12, 12, 0)), 1).is_last


def test_runs_whose_outcome_is_lost_are_no_evidence_and_count_against_the_most() -> None:
    assert decide(WIDTH, "s", 12, looks((12, 4, 0)), 1).counts == {"c0": 16}
    assert decide(WIDTH, "s", 12, looks((40, 4, 0)), 1).counts == {"c0": 40}
    assert decide(WIDTH, "s", 12, looks((39, 20, 10)), 1).counts["c0"] in (39, 40)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5])
def test_what_the_policy_does_is_what_was_computed_before(p: float) -> None:
    """500 conditions under the real policy against the exact walk over (n, k)."""
    rng = np.random.Generator(np.random.PCG64(7))
    rule = width_rule(WIDTH, 12)
    exact = characteristics(rule, np.array([p]))
    seeds, covered = [], 0
    for _ in range(500):
        outcomes = rng.random(WIDTH.most) < p
        n = 12
        while True:
            k = int(outcomes[:n].sum())
            more = decide(WIDTH, "s", 12, looks((n, n, k)), 1).counts["c0"]
            if more == n:
                break
            n = more
        low, high = rule.interval(k, n)
        covered += low <= p <= high
        seeds.append(n)
    error = np.std(seeds) / np.sqrt(len(seeds))
    assert np.mean(seeds) == pytest.approx(exact.expected_n[0], abs=4 * error + 1e-9)
    assert covered / 500 == pytest.approx(exact.coverage[0], abs=4 * np.sqrt(0.05 * 0.95 / 500))


def test_seeds_go_where_the_midpoint_is_and_the_budget_ends_it() -> None:
    first = decide(MIDPOINT, "s", 12, looks((12, 12, 0), (12, 12, 1), (12, 12, 11), (12, 12, 12)), 1)
    given = {name: count - 12 for name, count in first.counts.items()}
    assert sum(given.values()) == 12
    assert given["c1"] + given["c2"] > given["c0"] + given["c3"]
    assert sum(decide(MIDPOINT, "s", 48, looks(*[(48, 48, 24)] * 4), 1).counts.values()) == 200
    assert decide(MIDPOINT, "s", 50, looks(*[(50, 50, 25)] * 4), 1).is_last


def test_a_midpoint_that_is_known_well_enough_gets_no_more() -> None:
    easy = MidpointStop(rule="midpoint", factor=3.0, every=12, budget=1000)
    known = looks((30, 30, 0), (30, 30, 8), (30, 30, 23), (30, 30, 30))
    estimate = midpoint(easy, 12, known)
    assert 10**estimate.value == pytest.approx(11.5, rel=0.1)
    assert decide(easy, "s", 12, known, 1).is_last
    assert not decide(MidpointStop(rule="midpoint", factor=1.05, every=12, budget=1000), "s", 12, known, 1).is_last


def test_p_may_fall_with_scale() -> None:
    fallen = decide(MIDPOINT, "s", 12, looks((12, 12, 12), (12, 12, 11), (12, 12, 1), (12, 12, 0)), 1).counts
    assert fallen["c1"] + fallen["c2"] > fallen["c0"] + fallen["c3"]


def test_a_decision_is_the_same_wherever_it_is_made_and_another_at_another_look() -> None:
    seen = looks((12, 12, 3), (12, 12, 6), (12, 12, 7), (12, 12, 9))
    assert decide(MIDPOINT, "s", 12, seen, 1) == decide(MIDPOINT, "s", 12, seen, 1)
    assert len({tuple(decide(MIDPOINT, "s", 12, seen, n).counts.values()) for n in range(1, 9)}) > 1
    again = of_record(as_record(decide(MIDPOINT, "s", 12, seen, 1), "s"))
    assert again == decide(MIDPOINT, "s", 12, seen, 1)


def test_the_plan_is_the_published_table() -> None:
    plan = stop_plan(WidthStop(rule="width", half_width=0.2, every=4, most=2000), 12)
    assert {p: round(expected) for p, (expected, _) in plan.seeds.items()} == {0.02: 12, 0.1: 14, 0.3: 20, 0.5: 23}
    assert plan.coverage == pytest.approx((0.931, 0.971), abs=1e-3)
    assert stop_plan(MIDPOINT, 12).coverage is None


STUDY = """\
study: ruled
task: {name: parity, bits: 5, subset: 2, test_size: 32}
model: {family: mlp, width: 8}
optimizer: {learning_rate: 3e-2}
training: {steps: 20, batch_size: 16}
probes: {every: 10}
grid: {model.width: [2, 8]}
seeds: {design: paired, count: 4}
execution: {pack_width: 8}
stop: {rule: width, half_width: 0.25, every: 4, most: 12}
"""


def made(text: str = STUDY, **changed: str) -> Study:
    lines = {line.partition(":")[0]: line for line in text.splitlines()}
    return parse_study("\n".join((lines | {k: f"{k}: {v}" for k, v in changed.items()}).values()), "r.yaml", Path())


def trained(store: LocalStore, study: Study, train: Callable[[Study], State] | None = None) -> list[Decision]:
    cluster = InlineCluster(cpus=1)
    heard: list[Decision] = []
    try:
        train_rounds(
            study,
            Library(store),
            "r.yaml",
            train or (lambda s: drive(s, store, cluster, calibrate=False)),
            heard.append,
        )
    finally:
        cluster.close()
    return heard


def test_batch_after_batch_until_enough_and_then_nothing_more(store: LocalStore) -> None:
    decisions = trained(store, made())
    assert read_decisions(store, "ruled") == decisions
    assert [d.number for d in decisions] == list(range(1, len(decisions) + 1))
    assert [d.is_last for d in decisions] == [False] * (len(decisions) - 1) + [True]
    declared = read_declared(store, "ruled")
    rule = width_rule(WidthStop(rule="width", half_width=0.25, every=4, most=12), 4)
    for condition in Library(store).summary("ruled").conditions:
        success = condition.success
        assert (success.method, success.level) == ("agresti-coull", 0.96)
        assert success.stopping_rule == rule.id == decisions[0].rule
        assert (success.low, success.high) == rule.interval(condition.successes, success.cohort.known)
        assert condition.launched == decisions[-1].counts[condition.condition.id]
        assert rule.stops(condition.successes, success.cohort.known)
    assert len(declared.runs) == sum(decisions[-1].counts.values())
    attempts = store.keys("attempts/")
    assert trained(store, made()) == []
    assert store.keys("attempts/") == attempts


def test_a_head_that_dies_after_a_decision_is_followed_by_one_that_keeps_to_it(
    store: LocalStore, tmp_path: Path
) -> None:
    calls = []

    def dies(study: Study) -> State:
        calls.append(len(study.runs))
        if len(calls) == 2:
            raise KeyboardInterrupt
        cluster = InlineCluster(cpus=1)
        try:
            return drive(study, store, cluster, calibrate=False)
        finally:
            cluster.close()

    with pytest.raises(KeyboardInterrupt):
        trained(store, made(), dies)
    assert len(read_decisions(store, "ruled")) == 1
    trained(store, made())
    from jobs.store import open_store

    calm = open_store(tmp_path / "calm", create=True)
    trained(calm, made())
    assert read_decisions(store, "ruled") == read_decisions(calm, "ruled")
    one, two = (Library(s).tables("ruled") for s in (store, calm))
    assert one["metrics"].equals(two["metrics"])
    assert get_record(store, "decisions/ruled.0001.json") == get_record(calm, "decisions/ruled.0001.json")


def test_seeds_that_another_rule_gave_are_refused(store: LocalStore) -> None:
    trained(store, made())
    for changed in (
        {"stop": "{rule: width, half_width: 0.3, every: 4, most: 12}"},
        {"seeds": "{design: paired, count: 5}"},
    ):
        with pytest.raises(StudyError, match="no interval holds for both"):
            as_decided(made(**changed), store, "r.yaml")
    fixed = parse_study(STUDY.partition("stop:")[0], "r.yaml", Path())
    with pytest.raises(StudyError, match="not by “a fixed number of seeds”"):
        as_decided(fixed, store, "r.yaml")


def test_ids_of_runs_do_not_depend_on_the_rule() -> None:
    fixed = parse_study(STUDY.partition("stop:")[0], "r.yaml", Path())
    assert [run.id for run in made().runs] == [run.id for run in fixed.runs]
    assert made().points == fixed.points


def test_the_rule_is_part_of_what_is_declared(store: LocalStore) -> None:
    declared = register(store, made(), "r.yaml")
    assert declared.stop is not None
    rule, first = declared.stop
    assert rule_id(rule, first) == rule_id(WidthStop(rule="width", half_width=0.25, every=4, most=12), 4)


FAULTY: list[tuple[dict[str, str], str]] = [
    ({"stop": "{rule: width, half_width: 0.5, most: 20}"}, r"stop\.half_width"),
    ({"stop": "{rule: width, half_width: 0.1, most: 3}"}, "3 seeds are fewer than the first batch of 4"),
    ({"stop": "{rule: widths, half_width: 0.1, most: 3}"}, "stop"),
    ({"stop": "{rule: midpoint, factor: 1.0, budget: 100}"}, r"stop\.factor"),
    ({"stop": "{rule: midpoint, factor: 1.2, budget: 7}"}, "7 runs are fewer than the first batch of 8"),
    ({"stop": "{rule: midpoint, factor: 1.2, budget: 99}", "grid": "{model.width: [8]}"}, "at least two positive"),
    ({"stop": "{rule: midpoint, factor: 1.2, budget: 99}", "grid": "{model.activation: [relu, tanh]}"}, "numbers"),
    ({"seeds": "{design: crossed, init: 2, data: 2}"}, "gives seeds one by one"),
]


@pytest.mark.parametrize(("changed", "told"), FAULTY)
def test_a_faulty_rule_is_told(changed: dict[str, str], told: str) -> None:
    with pytest.raises(StudyError, match=told):
        made(**changed)


def test_the_type_of_a_rule_is_closed() -> None:
    rules: list[StopRule] = [WIDTH, MIDPOINT]
    assert {rule.rule for rule in rules} == {"width", "midpoint"}
