"""The task `text`: pure draws, nothing held out is trained on, and an identity that follows the text, not its place."""

from pathlib import Path

import numpy as np
import pytest

from jobs.errors import Corrupt, StudyError, TaskError
from jobs.seeds import Seeds, Streams
from jobs.store import open_store
from jobs.study import Study
from jobs.study_file import parse_study
from jobs.study_files import files_of, laid_out
from jobs.tasks import IGNORE
from jobs.tasks.text import Text
from jobs.text.corpus import find_corpus
from jobs.text.documents import find_sources
from jobs.text.stored import tell_address
from jobs.text.tokenizer import ByteTokenizer
from jobs.text.writer import Form, tokenize
from orchestrator.declared import register
from tests.corpora import small_corpus
from workers.stored import load_task

STUDY = """
study: words
task: {name: text, corpora: {plain: plain, loud: loud}, weights: {loud: 0.5}, context: 8, test_size: 3}
model: {family: gpt, layers: 1, width: 4, heads: 1}
optimizer: {learning_rate: 1e-3}
training: {steps: 4, batch_size: 6}
seeds: {design: paired, count: 2}
success: {metric: plain.token_accuracy, threshold: 0.5}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, change in (("plain", str.lower), ("loud", str.upper)):
        small_corpus(tmp_path, name, [change(f"What seed {index} saw, it will not forget.") for index in range(40)])
    return tmp_path


def streams(data: int = 1, evaluation: int = 0) -> Streams:
    return Streams(Seeds(0, data, 0, evaluation))


def task(folder: Path, **changed: object) -> Text:
    given = {"corpora": {"plain": str(folder / "plain")}, "context": 8, "test_size": 3} | changed
    return Text.model_validate(given)


def test_targets_are_the_next_tokens_and_a_batch_is_pure(folder: Path) -> None:
    one = task(folder)
    batch = one.batch(streams(), 5, 6)
    assert np.array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert np.array_equal(batch.inputs, task(folder).batch(streams(), 5, 6).inputs)
    assert not np.array_equal(batch.inputs, one.batch(streams(), 6, 6).inputs)
    assert not np.array_equal(batch.inputs, one.batch(streams(data=2), 5, 6).inputs)
    assert len(one.vocabulary) == 257


def test_any_split_of_the_steps_sees_the_same_samples(folder: Path) -> None:
    one = task(folder)
    fine = np.concatenate([one.batch(streams(), step, 2).inputs for step in range(6)])
    coarse = np.concatenate([one.batch(streams(), step, 6).inputs for step in range(2)])
    assert np.array_equal(fine, coarse)


def test_an_epoch_shows_all_but_what_is_held_out(folder: Path) -> None:
    one = task(folder)
    order = one.order("plain", streams())
    shown = order.at(np.arange(order.shown))
    assert sorted([*shown, *order.never_shown(3)]) == list(range(order.size))
    batch = one.held_out(streams())["plain"]
    assert batch.inputs.shape == (3, 8)
    assert np.array_equal(batch.inputs, task(folder).held_out(streams(data=7))["plain"].inputs)


def test_a_mixture_keeps_its_shares_and_counts_exposures(folder: Path) -> None:
    both = {name: str(folder / name) for name in ("plain", "loud")}
    mixed = task(folder, corpora=both, weights={"loud": {"piecewise": [[0, 0.5], [10, 0.0]]}})

    def is_loud(row: np.ndarray) -> bool:
        return (
            bytes(byte for byte in row.tolist() if byte < 256).decode()
            == bytes(byte for byte in row.tolist() if byte < 256).decode().upper()
        )

    batches = [mixed.batch(streams(), step, 6).inputs for step in range(20)]
    loud = [sum(is_loud(row) for row in batch) for batch in batches]
    assert loud[:10] == [2] * 10
    assert loud[10:] == [0] * 10
    taken = mixed.exposures("loud", streams(), np.arange(mixed.order("loud", streams()).size), 20, 6)
    assert taken.sum() == 20
    assert mixed.exposures("plain", streams(), np.arange(mixed.order("plain", streams()).size), 20, 6).sum() == 100


def test_apart_asks_for_no_first_token_of_another_document(folder: Path) -> None:
    joined, apart = task(folder).batch(streams(), 0, 64), task(folder, documents="apart").batch(streams(), 0, 64)
    at_end = joined.inputs == 256
    assert at_end.any()
    assert (apart.targets[at_end] == IGNORE).all()
    assert np.array_equal(apart.targets[~at_end], joined.targets[~at_end])


def test_tokens_are_counted_one_by_one(folder: Path) -> None:
    one = task(folder)
    batch = one.held_out(streams())["plain"]
    predicted = batch.targets.copy()
    predicted[0, :3] = 0
    (score,) = one.score("plain", batch, predicted)
    assert (score.metric, score.correct, score.total) == ("plain.token_accuracy", 21, 24)


def study(folder: Path, text: str = STUDY) -> Study:
    return parse_study(text, "words.yaml", folder)


def test_identity_follows_the_text_and_not_its_place(folder: Path) -> None:
    ids = [run.id for run in study(folder).runs]
    (folder / "plain").rename(folder / "moved")
    moved = study(folder, STUDY.replace("plain: plain", f"plain: {folder / 'moved'}"))
    assert [run.id for run in moved.runs] == ids
    swapped = study(folder, STUDY.replace("plain: plain, loud: loud", "plain: loud, loud: moved"))
    assert not set(ids) & {run.id for run in swapped.runs}


def test_a_stored_study_finds_its_corpora_without_its_folder(folder: Path, tmp_path: Path) -> None:
    one = study(folder)
    with laid_out(files_of(one), "words.yaml") as elsewhere:
        again = parse_study(STUDY, "words.yaml", elsewhere)
        assert [run.id for run in again.runs] == [run.id for run in one.runs]
        assert {place.url for place in again.corpora} == {place.url for place in one.corpora}
    store = open_store(tmp_path / "store", create=True)
    register(store, one, "words.yaml")
    loaded = load_task(store, one.points[0].condition.task)
    direct = task(folder, corpora={name: str(folder / name) for name in ("plain", "loud")}, weights={"loud": 0.5})
    assert np.array_equal(loaded.batch(streams(), 3, 6).inputs, direct.batch(streams(), 3, 6).inputs)


def test_another_corpus_at_the_told_place_is_refused(folder: Path, tmp_path: Path) -> None:
    one = study(folder)
    store = open_store(tmp_path / "store", create=True)
    register(store, one, "words.yaml")
    digests = {place.named: place.digest for place in one.corpora}
    tell_address(store, digests["plain"], str(folder / "loud"))
    with pytest.raises(Corrupt, match="is another corpus than the study was made for"):
        load_task(store, one.points[0].condition.task).batch(streams(), 0, 6)
    tell_address(store, digests["plain"], str(folder / "plain"))
    assert load_task(store, one.points[0].condition.task).batch(streams(), 0, 6).inputs.shape == (6, 8)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("plain: plain,", "plain: none,"), "there is no store here"),
        (("plain: plain,", "plain: plain.txt,"), "is a file: a corpus is a folder"),
        (("context: 8", "context: 800"), "not enough for a test_size of 3"),
        (("{loud: 0.5}", "{quiet: 0.5}"), "'quiet' is none of the corpora"),
    ],
)
def test_a_study_without_its_text_is_refused_whole(change: tuple[str, str], fault: str, folder: Path) -> None:
    with pytest.raises(StudyError, match=fault):
        study(folder, STUDY.replace(*change))


def test_corpora_of_two_tokenizers_are_not_mixed(folder: Path) -> None:
    class Odd(ByteTokenizer):
        name = "sha256:odd"

    store = open_store(folder / "odd", create=True)
    tokenize(store, find_sources([str(folder / "loud.txt")]), Odd(), Form())
    assert find_corpus("odd", folder).url == str(folder / "odd")
    with pytest.raises(TaskError, match="was tokenized otherwise than"):
        task(folder, corpora={"odd": "odd", "plain": "plain"}).pinned(folder)
