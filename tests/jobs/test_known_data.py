"""Tasks whose data are made to be known: planted strings, combinations, a panel of experts; counted and by hand."""

from collections import Counter

import numpy as np
import pytest

from jobs.seeds import Seeds, Streams
from jobs.tasks import IGNORE, Batch
from jobs.tasks.combinations import Combinations
from jobs.tasks.experts import Experts
from jobs.tasks.parity import Parity, ParityItems
from jobs.tasks.planted import Planted

STREAMS = Streams(Seeds(1, 2, 3, 4))


def rates(scores: list) -> dict[str, float]:
    return {score.metric: score.correct / score.total for score in scores}


def test_every_planted_string_is_shown_exactly_as_often_as_declared() -> None:
    task = Planted(symbols=16, prompt=4, exposures=(0, 1, 2, 5, 10), strings=6, span=50)
    planted = [tuple(row) for row in task.planted(STREAMS).tolist()]
    assert len(set(planted)) == len(planted) == 30
    seen: Counter[tuple[int, ...]] = Counter()
    for step in range(80):
        batch = task.batch(STREAMS, step, 8)
        whole = np.concatenate([batch.inputs, batch.targets[:, -1:]], axis=1)
        shown = [tuple(row) for row in whole.tolist() if tuple(row) in set(planted)]
        assert step < 50 or not shown, "no exposure lies past the span"
        seen.update(shown)
    assert [seen[row] for row in planted] == task.times().tolist()
    assert task.times().tolist() == [0] * 6 + [1] * 6 + [2] * 6 + [5] * 6 + [10] * 6


def test_the_order_of_exposures_is_the_data_seeds_and_the_strings_are_the_evaluation_seeds() -> None:
    task = Planted(symbols=16, prompt=4, exposures=(1, 5), strings=4, span=20)
    other = Streams(Seeds(1, 9, 3, 4))
    assert np.array_equal(task.planted(STREAMS), task.planted(other))
    assert not np.array_equal(task.planted(STREAMS), task.planted(Streams(Seeds(1, 2, 3, 9))))
    assert any(not np.array_equal(task.batch(STREAMS, s, 8).inputs, task.batch(other, s, 8).inputs) for s in range(20))


def test_the_language_has_four_successors_of_a_word() -> None:
    task = Planted(symbols=32, prompt=8, exposures=(0,), strings=1, span=1)
    after: dict[int, set[int]] = {}
    for step in range(40):
        batch = task.batch(STREAMS, step, 64)
        for word, following in zip(batch.inputs.ravel(), batch.targets.ravel(), strict=True):
            after.setdefault(int(word), set()).add(int(following))
    assert {len(words) for words in after.values()} == {4}


def test_a_string_is_extracted_only_if_every_word_of_its_second_half_is_there() -> None:
    task = Planted(symbols=64, prompt=8, exposures=(0, 5), strings=10, span=200)
    batch = task.held_out(STREAMS)["seen_5"]
    asked = batch.targets != IGNORE
    assert (asked.sum(axis=1) == 8).all()
    assert asked[:, -8:].all()
    assert batch.targets[:, 7:].tolist() == task.planted(STREAMS)[10:, 8:].tolist()
    assert rates(task.score("seen_5", batch, batch.targets))["seen_5.accuracy"] == 1, "a memoriser"
    all_but_one = batch.targets.copy()
    all_but_one[:, -1] = (all_but_one[:, -1] + 1) % 64
    found = rates(task.score("seen_5", batch, all_but_one))
    assert (found["seen_5.accuracy"], found["seen_5.token_accuracy"]) == (0, 7 / 8)
    guesses = np.random.default_rng(0).integers(0, 64, size=batch.targets.shape)
    assert rates(task.score("seen_5", batch, guesses))["seen_5.accuracy"] == 0, "a guesser"


def test_more_exposures_than_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="larger sample"):
        Planted(exposures=(50,), strings=4, span=2).batch(STREAMS, 0, 8)
    with pytest.raises(ValueError, match="twice"):
        Planted(exposures=(5, 5), span=100)


def combinations_of(task: Combinations, batch: Batch) -> list[list[tuple[int, int]]]:
    things = batch.inputs[:, : 2 * task.objects].reshape(len(batch.inputs), task.objects, 2)
    return [[(int(a), int(b) - task.values) for a, b in scene] for scene in things]


@pytest.mark.parametrize("seen", [1, 3, 5])
def test_a_combination_that_is_held_out_is_never_trained(seen: int) -> None:
    task = Combinations(values=8, seen=seen, unseen=3, objects=3, test_size=400)
    trained = {
        pair for step in range(60) for scene in combinations_of(task, task.batch(STREAMS, step, 64)) for pair in scene
    }
    assert len(trained) == 8 * seen
    assert set(Counter(colour for _, colour in trained).values()) == {seen}, "all colours are equally frequent"
    sets = task.held_out(STREAMS)
    for name, expected in (("heldout", 0), ("unseen", 1)):
        for scene, inputs, targets in zip(
            combinations_of(task, sets[name]), sets[name].inputs, sets[name].targets, strict=True
        ):
            asked = dict(scene)[int(inputs[-1])]
            assert targets[-1] == asked + 8
            assert sum(pair not in trained for pair in scene) == expected
            assert ((int(inputs[-1]), asked) in trained) == (name == "heldout")
            assert len({shape for shape, _ in scene}) == 3
    other = Combinations(values=8, seen=1, unseen=3, objects=3, test_size=400).held_out(STREAMS)["unseen"]
    answers = {
        (int(i[-1]), int(t[-1])) for b in (sets["unseen"], other) for i, t in zip(b.inputs, b.targets, strict=True)
    }
    assert len(answers) == 24, "what is held out is the same, however much is seen"


def test_combinations_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not both hold"):
        Combinations(values=8, seen=6, unseen=3)


def test_experts_without_noise_know_the_truth_and_nobody_beats_them() -> None:
    task = Experts(noise=0.0, test_size=200)
    batch = task.held_out(STREAMS)["heldout"]
    found = rates(task.score("heldout", batch, batch.targets))
    assert found == {
        "heldout.accuracy": 1,
        "heldout.best_expert": 1,
        "heldout.plurality": 1,
        "heldout.transcends": 0,
    }


def test_the_best_expert_and_the_plurality_by_hand() -> None:
    task = Experts(noise=1.0, experts=5, test_size=500)
    batch = task.held_out(STREAMS)["heldout"]
    answers, truth = task.answers(batch.inputs), batch.targets[:, -1]
    assert answers.shape == (5, 500)
    assert answers.min() >= 3
    by_hand = [Counter(sorted(column.tolist())).most_common(1)[0][0] for column in answers.T]
    found = rates(task.score("heldout", batch, batch.targets))
    assert found["heldout.best_expert"] == max(float((one == truth).mean()) for one in answers)
    assert found["heldout.plurality"] == np.mean(np.array(by_hand) == truth)
    assert found["heldout.plurality"] > found["heldout.best_expert"] > 1 / 10, "errors that differ cancel"
    assert found["heldout.transcends"] == 1
    as_the_best = batch.targets.copy()
    as_the_best[:, -1] = max(answers, key=lambda one: int((one == truth).sum()))
    assert rates(task.score("heldout", batch, as_the_best))["heldout.transcends"] == 0, "equal is not better"


def test_answers_of_training_are_those_of_the_panel_and_each_expert_gives_its_share() -> None:
    task = Experts(noise=1.0, experts=3)
    batch = task.batch(STREAMS, 0, 3000)
    answers, said = task.answers(batch.inputs), batch.targets[:, -1]
    assert (answers == said).any(axis=0).all()
    alone = [(answers[e] == said) & ((answers == said).sum(axis=0) == 1) for e in range(3)]
    differ = np.array([len(set(column)) == 3 for column in answers.T.tolist()])
    shares = [float((one & differ).sum() / differ.sum()) for one in alone]
    assert sum(shares) == pytest.approx(1)
    assert min(shares) > 0.25


def test_another_panel_is_another_truth() -> None:
    first, second = Experts(noise=1.0), Experts(noise=1.0, panel=1)
    batch = first.held_out(STREAMS)["heldout"]
    assert np.array_equal(batch.inputs, second.held_out(STREAMS)["heldout"].inputs)
    assert (first.truth(batch.inputs) != second.truth(batch.inputs)).mean() > 0.5


def test_single_strings_of_parity_are_the_same_strings() -> None:
    whole, items = Parity(bits=8, subset=3, test_size=20), ParityItems(bits=8, subset=3, test_size=20)
    batch = items.held_out(STREAMS)["heldout"]
    assert np.array_equal(batch.inputs, whole.held_out(STREAMS)["heldout"].inputs)
    predicted = batch.targets.copy()
    predicted[3, -1] ^= 1
    found = {score.metric: (score.correct, score.total) for score in items.score("heldout", batch, predicted)}
    assert found["heldout.accuracy"] == (19, 20)
    assert [found[f"heldout.item.{n:04}"] for n in range(20)] == [(int(n != 3), 1) for n in range(20)]
