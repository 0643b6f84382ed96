"""What a set is asked, what a model of known interactions shows, and rows that know no pack."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from jobs.errors import StudyError
from jobs.measures import ShapleySpec
from jobs.seeds import Seeds, Streams
from jobs.study_file import parse_study
from jobs.tasks.addition import Addition
from jobs.tasks.dependencies import Dependencies
from jobs.tasks.parity import Parity
from jobs.tasks.task import IGNORE, Batch, Task
from tests.bitwise.drives import one_command, same_in_packs_and_after_a_kill
from workers.shapley import pairs_of
from workers.shapley_probe import Questions, asked_of, questions_of, shapley_measures

STREAMS = Streams(Seeds(1, 1, 1, 0))
MASKED = Dependencies(test_size=8, trees=60)
NEXT = Dependencies(objective="next", test_size=8, trees=60)


@dataclass
class Fake:
    """An engine whose log-probability of the answer is a function of the tokens."""

    said: Callable[[np.ndarray], np.ndarray]

    def evaluate(self, inputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        losses = np.where(targets != IGNORE, -self.said(inputs)[..., None], 0.0)
        return np.zeros_like(inputs), losses.astype(np.float32)


def asked(task: Task, name: str, **options: object) -> Questions:
    spec = ShapleySpec(set=name, **options)  # type: ignore[arg-type]
    return questions_of(spec, task, task.held_out(STREAMS)[name], STREAMS)


def measured(questions: Questions, said: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
    (values,) = asked_of(Fake(said), [questions], lambda _: None)  # type: ignore[arg-type]
    return {one.metric: one.value for one in shapley_measures("x", questions, values)}


def test_a_hidden_word_follows_from_the_other_words_of_its_sentence() -> None:
    batch = MASKED.held_out(STREAMS)["trees"]
    found = asked(MASKED, "trees", token="[hidden]")
    assert batch.trees is not None
    rows = np.arange(len(found.at))
    assert (found.inputs[rows, found.at] == MASKED.mask_token).all()
    assert (found.answers == batch.inputs[rows, found.at]).all()
    words = batch.trees.heads[: len(rows)] >= 0
    words[rows, found.at] = False
    assert ((found.feature >= 0) <= words).all()
    counts = words.sum(axis=1)
    assert (found.feature.max(axis=1) + 1 == np.minimum(counts, 16)).all()
    assert [len(order) for order in found.orders] == [0 if count <= 8 else 8 for count in counts]
    assert (found.others == MASKED.mask_token).all()


def test_the_next_word_follows_from_the_words_up_to_it() -> None:
    found = asked(NEXT, "trees", window=4)
    batch = NEXT.held_out(STREAMS)["trees"]
    for item, at in enumerate(found.at):
        places = np.flatnonzero(found.feature[item] >= 0)
        assert places.tolist() == list(range(max(0, at - 3), at + 1)), "the nearest four"
        assert found.answers[item] == batch.inputs[item, at + 1]
        assert found.inputs[item].tolist() == batch.inputs[item].tolist()
    assert len(set(found.at.tolist())) > 3


def test_answers_of_a_set_are_those_that_it_asks() -> None:
    task = Addition(digits=2, test_size=40)
    found, batch = asked(task, "heldout", items=30), task.held_out(STREAMS)["heldout"]
    assert (found.answers == batch.targets[np.arange(30), found.at]).all()
    assert (found.feature.max(axis=1) == found.at).all(), "all tokens up to the answer"
    signs = found.inputs == task.vocabulary.index("+")
    assert (found.others[signs] == found.inputs[signs]).all(), "where all items have one token it stays"
    assert (found.others != found.inputs)[found.feature >= 0].mean() > 0.4


def test_a_set_of_which_no_answer_follows_from_two_tokens_is_refused() -> None:
    batch = Batch(np.zeros((3, 2), np.int64), np.array([[1, IGNORE]] * 3))
    with pytest.raises(ValueError, match="no answer of 'heldout' follows from two tokens"):
        questions_of(ShapleySpec(), Parity(bits=4, subset=2), batch, STREAMS)


def test_what_adds_up_shows_no_interaction() -> None:
    found = measured(asked(MASKED, "trees"), lambda tokens: (0.125 * tokens).sum(axis=-1))
    for metric in ("x.shapley.1", "x.shapley.2.2", "x.shapley_error", "x.shapley_together", "x.shapley_share"):
        assert found[metric] == pytest.approx(0, abs=1e-5)
    assert abs(found["x.shapley_alone"]) > 1


def test_two_tokens_that_count_together_are_found_at_their_distance() -> None:
    # The answer asks whether both of a pair two places apart are what they were: with 6 bits all subsets are asked.
    task = Parity(bits=6, subset=2, test_size=64)
    questions = asked(task, "heldout", token="0")
    inputs = questions.inputs
    found = measured(questions, lambda tokens: 8.0 * (tokens[..., 1] * tokens[..., 3]))
    both = (inputs[:, 1] * inputs[:, 3]).mean()
    assert found["x.shapley_together"] == pytest.approx(8 * both)
    assert found["x.shapley_alone"] == pytest.approx(0)
    assert found["x.shapley_share"] == pytest.approx(1)
    pairs = range(1, 6)  # of 6 bits and the sign after them: five are two places apart
    assert {d: found[f"x.shapley.{d}"] for d in pairs} == pytest.approx(
        {d: 8 * np.sqrt(both / 5) if d == 2 else 0.0 for d in pairs}
    )
    assert found["x.shapley_error"] == 0


def test_exclusive_or_is_mostly_pairs() -> None:
    questions = asked(Parity(bits=4, subset=2, test_size=64), "heldout", token="0")
    ones = questions.inputs[:, :2].sum(axis=1)
    found = measured(questions, lambda tokens: (tokens[..., 0] ^ tokens[..., 1]).astype(float))
    # One bit of two: it is worth 1 alone. Both: each is worth 1, and together 2 less.
    assert found["x.shapley_alone"] == pytest.approx(ones.mean())
    assert found["x.shapley_together"] == pytest.approx(-2 * (ones == 2).mean())
    assert found["x.shapley_share"] == pytest.approx(4 * (ones == 2).sum() / (ones.sum() + 4 * (ones == 2).sum()))


def test_words_that_depend_on_each_other_are_closer_where_only_those_interact() -> None:
    questions = asked(MASKED, "trees", token="[hidden]", items=60, permutations=4)
    hidden, near = MASKED.mask_token, questions.edges == 1
    lines = {row.tobytes(): item for item, row in enumerate(questions.inputs)}
    assert len(lines) == 60

    def said(tokens: np.ndarray) -> np.ndarray:
        # Which item a sequence is of: the one whose words it has where none is hidden.
        fits = ((tokens[..., None, :] == questions.inputs) | (tokens[..., None, :] == hidden)).sum(-1)
        item = fits.argmax(axis=-1)
        there = (tokens != hidden).astype(float)
        return np.einsum("...p,...pq,...q->...", there, near[item].astype(float), there) / 2

    found = measured(questions, said)
    assert found["x.shapley.2.1"] == pytest.approx(1, abs=0.1)
    assert found["x.shapley.2.2"] == pytest.approx(0, abs=0.3)
    assert found["x.shapley_closeness"] > 0.7


@pytest.mark.parametrize("objective", ["masked", "next"])
def test_the_answer_stands_alike_beside_words_close_and_far_in_the_tree(objective: Literal["masked", "next"]) -> None:
    questions = asked(Dependencies(objective=objective, test_size=8, trees=200), "trees", items=200, window=6)

    def closeness(worth: Callable[[int, np.ndarray, np.ndarray], np.ndarray]) -> tuple[float, float]:
        values = []
        for item, subsets in enumerate(questions.subsets):
            places = np.flatnonzero(questions.feature[item] >= 0)
            first, second = pairs_of(len(places))
            both = (subsets[:, None] >> first & 1) * (subsets[:, None] >> second & 1)
            values.append(both @ worth(item, places[first], places[second]).astype(float))
        found = {one.metric: one.value for one in shapley_measures("x", questions, np.concatenate(values))}
        return found["x.shapley_closeness"], found["x.shapley_closeness_placed"]

    by_place, placed = closeness(lambda item, first, second: questions.at[item] - first == 3)
    assert abs(by_place) > 0.005
    assert placed == pytest.approx(0, abs=1e-6)
    by_tree, placed = closeness(lambda item, first, second: questions.edges[item, first, second] == 1)
    assert (by_tree, placed) == pytest.approx((1, 1), abs=1e-6)


def test_orders_make_a_size_less_certain_and_not_larger() -> None:
    sizes = {}
    for count in (2, 20):
        questions = asked(NEXT, "trees", token="[hidden]", items=30, permutations=count)
        found = measured(
            questions, lambda tokens: 3 * np.sin(tokens * np.arange(1, tokens.shape[-1] + 1)).sum(-1) ** 2 / 9
        )
        sizes[count] = found["x.shapley.1"], found["x.shapley_error"]
    assert sizes[2][0] == pytest.approx(sizes[20][0], rel=0.1)
    assert sizes[2][1] > 2 * sizes[20][1] > 0


STUDY = """\
study: together
task: {name: dependencies, objects: plain, test_size: 8, trees: 24}
model: {family: gpt, layers: 1, width: 8, heads: 2, attention: full}
optimizer: {learning_rate: 1e-2}
training: {steps: 8, batch_size: 8, masking: 0.3}
probes: {every: 4}
measure: [{shapley: {set: trees, items: 24, permutations: 2, token: "[hidden]"}}, {shapley: {items: 4}}]
checkpoints: {rolling: {every: 2}}
seeds: {design: paired, count: 3}
execution: {pack_width: 3}
"""


def test_rows_do_not_depend_on_the_pack_or_on_a_kill(tmp_path: Path) -> None:
    end = same_in_packs_and_after_a_kill(tmp_path, STUDY)
    rows = {(row["step"], row["metric"]) for row in end[0]}  # type: ignore[index]
    wanted = ["trees.shapley.1", "trees.shapley.2.2", "trees.shapley_closeness_placed", "heldout.shapley_share"]
    assert {(step, what) for step in (0, 4, 8) for what in wanted} <= rows
    sets = {row["value"] for row in end[0] if row["metric"] == "trees.shapley_set"}  # type: ignore[index]
    assert len(sets) == 1, "one set for all seeds and steps"


def test_a_set_that_there_is_not_ends_the_run_with_the_near_miss(tmp_path: Path) -> None:
    tables = one_command(tmp_path / "store", STUDY.replace("set: trees", "set: tress"))
    assert set(tables["runs"]["status"].to_pylist()) == {"failed"}
    assert "no held-out set 'tress'" in tables["runs"]["reason"][0].as_py()
    assert "did you mean 'trees'?" in tables["runs"]["reason"][0].as_py()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[{shapley", "[{shaply", r"measure.0.shaply: unknown key; did you mean 'shapley'\?"),
        ("items: 24", "itms: 40", r"measure.0.shapley.itms: unknown key; did you mean 'items'\?"),
        ("permutations: 2, token", "permutations: 1, token", "measure.0.shapley.permutations: input should be greater"),
        ("items: 4", "window: 63", "measure.1.shapley.window: input should be less than or equal to 62"),
        ('"[hidden]"', '"[hiden]"', r"is no token of dependencies; did you mean '\[hidden\]'\?"),
        ("items: 4", "set: trees", "of one set twice"),
        ("[{shapley", "[shaply, {shapley", r"under this name; there are weights, .*did you mean 'shapley'\?"),
    ],
)
def test_what_does_not_fit_is_refused(old: str, new: str, told: str) -> None:
    with pytest.raises(StudyError, match=told):
        parse_study(STUDY.replace(old, new), "together.yaml", Path())


def test_all_faults_are_told_at_once() -> None:
    wrong = STUDY.replace("items: 24", "itms: 40").replace("width: 8,", "widht: 8,").replace("items: 4", "window: 1")
    with pytest.raises(StudyError) as told:
        parse_study(wrong, "together.yaml", Path())
    assert all(key in str(told.value) for key in ("shapley.itms", "model.widht", "shapley.window"))


def test_the_name_alone_stands_for_the_defaults() -> None:
    measured = STUDY[STUDY.index("measure:") :].splitlines()[0]
    short, long = (
        parse_study(STUDY.replace(measured, f"measure: [{one}]"), "together.yaml", Path())
        for one in ("shapley", "{shapley: {set: heldout, items: 64, window: 16, permutations: 8, token: null}}")
    )
    assert [run.id for run in short.runs] == [run.id for run in long.runs]
