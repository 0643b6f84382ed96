"""Tasks: pure draws, exact meaning on cases worked out by hand, and numbers that never drift."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from jobs import tasks
from jobs.errors import TaskError
from jobs.seeds import Seeds, Streams
from jobs.tasks import IGNORE, Batch, Task
from jobs.tasks.addition import Addition
from jobs.tasks.counting import Counting
from jobs.tasks.modular_addition import ModularAddition
from jobs.tasks.parity import Parity

ROOT = Path(__file__).parents[2]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "parity": ("parity", {"bits": 12, "subset": 3}),
    "reverse": ("addition", {"digits": 3}),
    "plain": ("addition", {"digits": 3, "order": "plain"}),
    "counting": ("counting", {"numbers": 50, "train_span": 10, "test_span": 16}),
    "modular": ("modular_addition", {"modulus": 23}),
    "own": ("docs/examples/copy_task.py:Copy", {}),
    "items": ("parity_items", {"bits": 12, "subset": 3}),
    "planted": ("planted", {"span": 100, "exposures": [0, 2, 5]}),
    "combinations": ("combinations", {"seen": 4}),
    "experts": ("experts", {"noise": 1.0}),
    "question": ("question_formation", {"lines": 500, "types": 50, "test_size": 100}),
    "tense": ("tense_reinflection", {"lines": 500, "center_embedded": 0.8, "test_size": 100}),
}
# What a task tells beside what a model got right: what others would, or which wrong rule it follows.
BESIDE = ("heldout.best_expert", "heldout.plurality", "heldout.transcends", "gen.line")
# What each task draws for seeds (1, 2, 3, 4) at steps 0 and 7, and as held-out sets. A change here means that a
# run's id no longer names what it named: raise the task's `version`.
DIGESTS = {
    "parity": "8bf4b8f4308559b2",
    "reverse": "d1e00a75f3f89000",
    "plain": "240cb1406e1db07c",
    "counting": "7ea1fc039a9a9a87",
    "modular": "3df4836e574527d8",
    "own": "9d5addaa0216eb12",
    "items": "8bf4b8f4308559b2",
    "planted": "92d49a13ffc381ad",
    "combinations": "36e6a2b56be86803",
    "experts": "97d3ceb8abe9d51a",
    "question": "a235bbd161054f1f",
    "tense": "dfbc582a9dd75140",
}


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(case: str) -> Task:
    name, parameters = CASES[case]
    return tasks.build(name, parameters, ROOT)


def streams(**changed: int) -> Streams:
    return Streams(Seeds(**({"init": 1, "data": 2, "dropout": 3, "evaluation": 4} | changed)))


def same(first: Batch, second: Batch) -> bool:
    return bool(np.array_equal(first.inputs, second.inputs) and np.array_equal(first.targets, second.targets))


def test_a_batch_is_a_pure_function_of_the_data_seed_and_the_step(case: str) -> None:
    task = make(case)
    forward = [task.batch(streams(), step, 16) for step in range(4)]
    again = [make(case).batch(streams(init=9, dropout=9), step, 16) for step in reversed(range(4))]
    assert all(same(a, b) for a, b in zip(forward, reversed(again), strict=True))
    assert not same(forward[0], forward[1])
    assert not same(forward[0], task.batch(streams(data=9), 0, 16))


def test_held_out_sets_depend_on_the_evaluation_seed_alone(case: str) -> None:
    task = make(case)
    first, second = task.held_out(streams()), task.held_out(streams(init=9, data=9, dropout=9))
    assert "heldout" in first
    assert first.keys() == second.keys()
    assert all(same(first[name], second[name]) for name in first)
    assert not same(first["heldout"], task.held_out(streams(evaluation=9))["heldout"])


def test_batches_keep_the_contract(case: str) -> None:
    task = make(case)
    for batch in (task.batch(streams(), 0, 16), *task.held_out(streams()).values()):
        assert batch.inputs.dtype == batch.targets.dtype == np.int64
        assert batch.inputs.shape == batch.targets.shape
        assert batch.inputs.shape[1] <= task.length
        assert batch.inputs.min() >= 0
        assert batch.inputs.max() < len(task.vocabulary)
        asked = batch.targets != IGNORE
        assert asked.any(axis=1).all()
        assert batch.targets[asked].min() >= 0
        assert batch.targets.max() < len(task.vocabulary)
        assert len(set(task.vocabulary)) == len(task.vocabulary)


def test_perfect_and_wrong_predictions_score_all_and_nothing(case: str) -> None:
    task = make(case)
    for name, batch in task.held_out(streams()).items():
        perfect = {s.metric: s for s in task.score(name, batch, batch.targets) if s.metric not in BESIDE}
        assert all(s.correct == s.total for s in perfect.values())
        assert perfect["gen.tree" if name == "gen" else f"{name}.accuracy"].total == len(batch.inputs)
        wrong = [s for s in task.score(name, batch, np.full_like(batch.targets, -1)) if s.metric not in BESIDE]
        assert all(s.correct == 0 for s in wrong)
        assert {s.metric: s.total for s in wrong} == {m: s.total for m, s in perfect.items()}


def test_what_a_task_draws_never_drifts(case: str) -> None:
    task = make(case)
    digest = hashlib.sha256()
    for batch in (task.batch(streams(), 0, 16), task.batch(streams(), 7, 16), *task.held_out(streams()).values()):
        digest.update(batch.inputs.tobytes() + batch.targets.tobytes())
    assert digest.hexdigest()[:16] == DIGESTS[case]


def test_parity_by_hand() -> None:
    batch = Parity(bits=5, subset=2).batch(streams(), 0, 200)
    assert (batch.inputs[:, -1] == 2).all()
    assert (batch.targets[:, :-1] == IGNORE).all()
    assert np.array_equal(batch.targets[:, -1], batch.inputs[:, 0] ^ batch.inputs[:, 1])
    assert 60 < batch.targets[:, -1].sum() < 140


@pytest.mark.parametrize("order", ["reverse", "plain"])
def test_addition_by_hand(order: str) -> None:
    task = Addition.model_validate({"digits": 3, "order": order})
    batch = task.batch(streams(), 0, 200)

    def number(digits: np.ndarray) -> np.ndarray:
        places = digits if order == "reverse" else digits[:, ::-1]
        return (places * 10 ** np.arange(places.shape[1])).sum(axis=1)

    first, second = number(batch.inputs[:, :3]), number(batch.inputs[:, 4:7])
    assert np.array_equal(number(batch.targets[:, -4:]), first + second)
    assert np.array_equal(batch.inputs[:, 8:], batch.targets[:, 7:-1])
    assert (batch.inputs[:, 3] == 10).all()
    assert (batch.inputs[:, 7] == 11).all()
    expected = [[(a % 10**j) + (b % 10**j) >= 10**j for j in range(4)] for a, b in zip(first, second, strict=True)]
    assert np.array_equal(task.carries(batch), np.array(expected))
    totals = {s.metric: s.total for s in task.score("heldout", batch, batch.targets)}
    assert totals["heldout.place_0.carry"] == 0
    assert totals["heldout.place_1.carry"] == int(np.array(expected)[:, 1].sum())
    assert totals["heldout.place_1.carry"] + totals["heldout.place_1.no_carry"] == 200


def test_counting_by_hand() -> None:
    task = Counting(numbers=20, train_span=4, test_span=6)
    sets = task.held_out(streams())
    for name, spans in (("heldout", {1, 2, 3, 4}), ("longer", {5, 6})):
        seen = set()
        for inputs, targets in zip(sets[name].inputs, sets[name].targets, strict=True):
            first, last = inputs[0], inputs[1]
            span = last - first + 1
            seen.add(int(span))
            words = [task.vocabulary[t] for t in targets[targets != IGNORE]]
            assert words == [*(str(n) for n in range(first, last + 1)), "end"]
            assert inputs[3 : 3 + span].tolist() == list(range(first, last + 1))
        assert seen == spans
    metrics = {s.metric for s in task.score("longer", sets["longer"], sets["longer"].targets)}
    assert {"longer.span_5.accuracy", "longer.span_6.accuracy"} < metrics
    one_off = np.where(sets["longer"].targets == 21, 0, sets["longer"].targets)
    assert task.score("longer", sets["longer"], one_off)[0].correct == 0, "the end is part of the answer"


def test_modular_addition_never_trains_on_what_it_holds_out() -> None:
    task = ModularAddition(modulus=13, train_fraction=0.4)
    trained = {tuple(row[:2]) for step in range(100) for row in task.batch(streams(), step, 64).inputs.tolist()}
    sets = task.held_out(streams())
    held_out = {tuple(row[:2]) for row in sets["heldout"].inputs.tolist()}
    assert len(trained) == round(0.4 * 169)
    assert not trained & held_out
    assert len(trained | held_out) == 169
    assert trained == {tuple(row[:2]) for row in sets["train"].inputs.tolist()}
    for batch in sets.values():
        assert np.array_equal(batch.targets[:, 2], batch.inputs[:, :2].sum(axis=1) % 13)


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("parity", {"bits": 3, "subset": 4}, "more than the 3 bits"),
        ("parity", {"bits": 3}, "subset"),
        ("addition", {"digits": 0}, "digits"),
        ("addition", {"digits": 2, "order": "sideways"}, "order"),
        ("counting", {"numbers": 9, "train_span": 5, "test_span": 5}, "train_span 5 < test_span 5"),
        ("counting", {"numbers": 9, "train_span": 5, "test_span": 10}, "≤ numbers 9"),
        ("modular_addition", {"modulus": 2, "train_fraction": 0.01}, "leaves one side empty"),
        ("modular_addition", {"modulus": 5, "fraction": 0.5}, "fraction"),
    ],
)
def test_impossible_parameters_are_refused(name: str, parameters: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        tasks.build(name, parameters, ROOT)
    assert told in str(caught.value)


def test_the_documented_task_is_the_example_and_is_short() -> None:
    text = (ROOT / "docs" / "examples" / "copy_task.py").read_text()
    assert f"```python\n{text}```" in (ROOT / "docs" / "tasks.md").read_text()
    body = text[text.index("class Copy") :].splitlines()
    assert len(body) <= 30


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "examples" / "copy_task.py").read_text()
    (tmp_path / "mine.py").write_text(text)
    first = tasks.build("mine.py:Copy", {"letters": 2}, tmp_path)
    assert tasks.code("mine.py:Copy", tmp_path) == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    assert tasks.source("mine.py:Copy", tmp_path) == tmp_path / "mine.py"
    (tmp_path / "mine.py").write_text(text.replace("abcdefgh", "ABCDEFGH"))
    second = tasks.build("mine.py:Copy", {"letters": 2}, tmp_path)
    assert (first.vocabulary[0], second.vocabulary[0]) == ("a", "A")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("party", "", "did you mean 'parity'"),
        ("zzz", "", "built in are addition"),
        ("absent.py:Copy", "", "cannot be read"),
        ("mine.py:Kopy", "from jobs.tasks import Task\nclass Copy: pass\n", "did you mean 'Copy'"),
        ("mine.py:Copy", "class Copy: pass\n", "not a class derived from Task"),
        ("mine.py:Copy", "from jobs.tasks import Task\nclass Copy(Task):\n    pass\n", "not a class derived from Task"),
        ("mine.py:Copy", "x = 1\n1 / 0\n", "mine.py:2: ZeroDivisionError"),
        ("mine.py:Copy", "x = 1\nclass:\n", "mine.py:2: SyntaxError"),
    ],
)
def test_a_task_that_cannot_be_found_is_a_clear_error(tmp_path: Path, name: str, text: str, told: str) -> None:
    if text:
        (tmp_path / "mine.py").write_text(text)
    with pytest.raises(TaskError) as caught:
        tasks.find(name, tmp_path)
    assert told in str(caught.value)
