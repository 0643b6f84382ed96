"""The lm-evaluation-harness as follow-up runs: it finds what the model says, whatever the pack and the kills."""

import json
import math
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

import seedbed
from jobs.errors import ModelError, QueryError
from jobs.store import open_store
from jobs.study_file import read_study
from jobs.tasks.task import Mean, Score
from orchestrator.library import Library
from orchestrator.machine import Machine
from orchestrator.plan import plan
from orchestrator.verify import verify
from tests.bitwise.drives import Killed, final, one_command
from tests.corpora import small_corpus
from workers import harness
from workers.harness import rows_of

pytest.importorskip("lm_eval")
CONTEXT, END = 40, 256
PARENTS = f"""\
study: parents
task: {{name: text, corpora: {{words: words}}, context: {CONTEXT}, test_size: 2}}
model: {{family: gpt, layers: 1, width: 8, heads: 2, norm: layernorm, positions: rotary}}
optimizer: {{learning_rate: 3e-2}}
training: {{steps: 6, batch_size: 8}}
seeds: {{design: paired, count: 3}}
success: {{metric: words.token_accuracy, threshold: 0.1}}
execution: {{pack_width: 3}}
"""
ASKED = (
    PARENTS.replace("study: parents", "study: asked").replace("count: 3", "count: 1")
    + """\
measure: [{harness: {tasks: [pick, say, roll, go_on], folder: questions, batch_size: 7}}]
fork: {study: parents.yaml, steps: [0, last], train: false}
"""
)
NEOX = "model: {huggingface: gpt_neox, layers: 1, width: 8, heads: 2}"
LINES = [f"one seed of {n} knows a word" for n in range(60)]
ITEMS = [{"q": line[:17], "right": line[18:24], "wrong": line[::-1][:6]} for line in LINES[:20]]
COMMON = "dataset_path: json\ndataset_kwargs: {data_files: {test: items.jsonl}}\ntest_split: test\n"
TASKS = {
    "pick": """\
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: "{{[right, wrong]}}"
doc_to_target: 0
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "say": """\
output_type: loglikelihood
doc_to_text: "{{q}}"
doc_to_target: " {{right}}"
metric_list: [{metric: perplexity}, {metric: acc}]
""",
    "roll": """\
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{q}}"
process_results: !function scoring.as_bytes
metric_list: [{metric: byte_perplexity, aggregation: weighted_perplexity, higher_is_better: false}]
""",
    "go_on": """\
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "{{right}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 5}
process_results: !function scoring.letters
metric_list: [{metric: letters, aggregation: mean, higher_is_better: true}]
""",
}
SCORING = """\
def as_bytes(item, results):
    return {"byte_perplexity": (results[0], len(item["q"].encode()))}

def letters(item, results):
    return {"letters": sum(letter in "aeknorst" for letter in results[0])}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a corpus, the parents' study and a folder of four tasks of twenty items."""
    small_corpus(tmp_path, "words", LINES)
    questions = tmp_path / "questions"
    questions.mkdir()
    for name, text in TASKS.items():
        (questions / f"{name}.yaml").write_text(f"task: {name}\n{COMMON}{text}")
    (questions / "items.jsonl").write_text("\n".join(map(json.dumps, ITEMS)) + "\n")
    (questions / "scoring.py").write_text(SCORING)
    (tmp_path / "parents.yaml").write_text(PARENTS)
    return tmp_path


def asked(folder: Path, text: str = ASKED, parents: str = PARENTS, store: str = "store") -> dict[str, pa.Table]:
    (folder / "parents.yaml").write_text(parents)
    one_command(folder / store, parents)
    return one_command(folder / store, text)


def by_run(tables: dict[str, pa.Table]) -> dict[str, dict[str, Any]]:
    """Return run → metric → row of what the harness found."""
    found: dict[str, dict[str, Any]] = {}
    for row in tables["metrics"].to_pylist():
        if row["metric"].startswith("harness."):
            found.setdefault(row["run_id"], {})[row["metric"]] = row
    return found


def log_p(module: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    """Return the logarithms of what follows each of the ids [position, vocabulary]."""
    with torch.no_grad():
        found = module(torch.tensor([ids]))
    return torch.log_softmax(getattr(found, "logits", found)[0].double(), dim=-1)


def said(module: torch.nn.Module, before: list[int], after: list[int]) -> tuple[float, bool]:
    """Return the log-likelihood of bytes after others, and whether each of them is the likeliest."""
    rows = log_p(module, [*before, *after][:-1])[-len(after) :]
    return float(rows.gather(1, torch.tensor(after)[:, None]).sum()), rows.argmax(1).tolist() == after


def by_hand(module: torch.nn.Module) -> dict[str, float]:
    """Return what the four tasks should find of a model."""
    right = normed = greedy = letters = 0
    own, rolled = [], 0.0
    for item in ITEMS:
        before = list(item["q"].encode())
        ways = [said(module, before, list(f" {item[which]}".encode())) for which in ("right", "wrong")]
        right += ways[0][0] > ways[1][0]
        normed += ways[0][0] / len(item["right"]) > ways[1][0] / len(item["wrong"])
        own.append(ways[0][0])
        greedy += ways[0][1]
        rolled += said(module, [END], before)[0]
        answer: list[int] = []
        while len(answer) < 5 and (not answer or answer[-1] not in (END, ord("\n"))):
            answer.append(int(log_p(module, [*before, *answer])[-1].argmax()))
        letters += sum(chr(byte) in "aeknorst" for byte in answer if byte < END)
    count = len(ITEMS)
    return {
        "harness.pick.acc": right / count,
        "harness.pick.acc_norm": normed / count,
        "harness.say.perplexity": math.exp(-sum(own) / count),
        "harness.say.acc": greedy / count,
        "harness.roll.byte_perplexity": math.exp(-rolled / sum(len(item["q"]) for item in ITEMS)),
        "harness.go_on.letters": letters / count,
    }


@pytest.mark.parametrize("model", ["gpt", "gpt_neox of transformers"])
def test_what_is_found_is_what_the_model_says(folder: Path, model: str) -> None:
    texts = [ASKED, PARENTS]
    if model != "gpt":
        pytest.importorskip("accelerate")
        own = next(line for line in PARENTS.splitlines() if line.startswith("model:"))
        texts = [text.replace(own, NEOX) for text in texts]
    tables = asked(folder, *texts)
    assert {run["status"] for run in tables["runs"].to_pylist()} == {"finished"}
    found, store = by_run(tables), seedbed.open(folder / "store")
    assert len(found) == 6
    for run_id, rows in found.items():
        step = rows["harness.pick.acc"]["step"]
        hand = by_hand(store.run(run_id).module(step))
        assert set(rows) == set(hand)
        for metric, value in hand.items():
            assert rows[metric]["value"] == pytest.approx(value, rel=1e-5), (metric, step)
            assert rows[metric]["step"] == step
        for metric in ("harness.pick.acc", "harness.say.acc"):
            assert (rows[metric]["correct"], rows[metric]["total"]) == (round(20 * hand[metric]), 20)
        assert rows["harness.say.perplexity"]["total"] is None
    assert len({rows["harness.pick.acc"]["value"] for rows in found.values()}) > 1
    assert len({rows["harness.say.perplexity"]["value"] for rows in found.values()}) == 6


def test_rows_are_the_same_in_any_pack_and_after_a_kill(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = ASKED.replace("folder: questions", "folder: questions, fewshot: 1, limit: 6")
    ends = [
        final(asked(folder, text.replace("width: 3}", f"width: {width}}}"), store=f"store-{width}")) for width in (3, 1)
    ]
    ask, calls = harness.Harness.measures, []

    def measures(self: harness.Harness, *given: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return ask(self, *given)

    monkeypatch.setattr(harness.Harness, "measures", measures)
    with suppress(Killed):
        asked(folder, text.replace("width: 3}", "width: 3, retries: 0}"), store="killed")
    ends.append(final(asked(folder, text, store="killed")))
    assert len(calls) == 2 + 6, "the pack that was killed asked anew, and no other"
    assert ends[0] == ends[1] == ends[2]
    library = Library(open_store(folder / "store-3"))
    assert verify(library.store, library.declared("asked"), spans=6).findings == []
    rows, plain = by_run(Library(open_store(folder / "store-3")).collect("asked")), by_run(asked(folder))
    shown, bare = ({run["harness.say.perplexity"]["value"] for run in one.values()} for one in (rows, plain))
    assert not shown & bare, "an example before each question changes what is said"


def test_a_function_that_fails_fails_its_run_and_says_why(folder: Path) -> None:
    (folder / "questions" / "scoring.py").write_text(SCORING.replace("results[0])", "results[7])"))
    tables = asked(folder)
    for run in tables["runs"].to_pylist():
        assert run["status"] == "failed"
        assert "IndexError" in run["reason"]


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("pick.yaml", "metric: acc_norm", "metric: acc_nrom", "acc_nrom is no metric of lm-eval, and none is fetched"),
        ("pick.yaml", "{{q}}", "{{q", "TemplateSyntaxError"),
        ("scoring.py", "def as_bytes", "import evaluate\nevaluate.load('f1')\n\ndef as_bytes", "would fetch code"),
        ("scoring.py", "def as_bytes", "def bytes_of", "no function 'as_bytes'"),
    ],
)
def test_a_task_that_cannot_be_asked_is_told_before_anything_trains(
    folder: Path, file: str, old: str, new: str, told: str
) -> None:
    path = folder / "questions" / file
    path.write_text(path.read_text().replace(old, new))
    (folder / "asked.yaml").write_text(ASKED)
    with pytest.raises(ModelError, match=told):
        plan(read_study(folder / "asked.yaml"), None, Machine(1, 1, "cpu"))


def test_without_the_package_or_with_a_model_that_is_none_of_transformers_the_plan_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "asked.yaml").write_text(ASKED.replace("[pick, say", "[pick, sya"))
    with pytest.raises(ModelError, match="has a task sya; did you mean 'say'"):
        plan(read_study(folder / "asked.yaml"), None, Machine(1, 1, "cpu"))
    (folder / "parents.yaml").write_text(PARENTS.replace("positions: rotary", "activation: swiglu"))
    (folder / "asked.yaml").write_text(ASKED.replace("positions: rotary", "activation: swiglu"))
    with pytest.raises(QueryError, match="no model of transformers is norm layernorm"):
        plan(read_study(folder / "asked.yaml"), None, Machine(1, 1, "cpu"))
    (folder / "parents.yaml").write_text(PARENTS)
    (folder / "asked.yaml").write_text(ASKED)
    monkeypatch.setitem(sys.modules, "lm_eval.evaluator", None)
    with pytest.raises(ModelError, match=r"needs lm_eval, .* pip install 'seedbed\[harness\]'"):
        plan(read_study(folder / "asked.yaml"), None, Machine(1, 1, "cpu"))


def test_the_example_of_the_documentation_can_be_asked(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "docs" / "examples" / "harness"
    shutil.copytree(example, tmp_path / "harness")
    small_corpus(tmp_path / "harness", "docs", LINES * 40)
    (tmp_path / "harness" / "corpora").mkdir()
    (tmp_path / "harness" / "docs").rename(tmp_path / "harness" / "corpora" / "docs")
    told = plan(read_study(tmp_path / "harness" / "asked.yaml"), None, Machine(1, 1, "cpu"))
    assert [condition.runs for condition in told.conditions] == [4, 4, 4]


@pytest.mark.slow
def test_a_task_of_the_harness_s_own_is_asked_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    texts = datasets.Dataset.from_list([{"text": line} for line in LINES[:10]])
    wanted = []

    def load_dataset(path: str, **_: Any) -> Any:
        wanted.append(path)
        return datasets.DatasetDict(test=texts)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    tables = asked(folder, ASKED.replace("[pick, say, roll, go_on], folder: questions", "[lambada_openai], limit: 4"))
    found = by_run(tables)
    assert set(wanted) == {"EleutherAI/lambada_openai"}
    assert len(found) == 6
    assert all(rows["harness.lambada_openai.acc"]["total"] == 4 for rows in found.values())


def test_rows_are_what_the_harness_returns() -> None:
    items = [
        {"filter": how, "acc": right, "half": 0.5 * right, "count": right}
        for how in ("none", "strict")
        for right in (1, 0, 1)
    ]
    third = {"acc,none": 2 / 3, "acc_stderr,none": "N/A", "half,none": 1 / 3, "alias": "t", "sample_len": 3}
    results = {"t": third | {"acc,strict": 2 / 3, "count,none": 2.0}, "group": {"acc,none": 0.6, "alias": "group"}}
    assert list(rows_of({"results": results, "samples": {"t": items}})) == [
        Mean("harness.group.acc", 0.6),
        Score("harness.t.acc", 2, 3),
        Score("harness.t.acc.strict", 2, 3),
        Mean("harness.t.count", 2.0),
        Mean("harness.t.half", 1 / 3),
    ]
