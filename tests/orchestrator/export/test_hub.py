"""`seedbed export hf`: folders that transformers loads, equal to the runs, resumable, never over anything else."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import seedbed
from jobs.errors import QueryError
from orchestrator.declared import DeclaredCondition, DeclaredRun
from orchestrator.export.names import run_names
from tests.cli import invoke

transformers = pytest.importorskip("transformers")
STUDY = """
study: verse
question: what do they say?
task: {name: text, corpora: {verse: corpora/verse}, context: 12, test_size: 4}
model: {family: gpt, layers: 2, width: 8, heads: 2, norm: layernorm, positions: rotary}
optimizer: {learning_rate: 1e-2}
training: {steps: 6, batch_size: 4}
probes: {every: 3}
checkpoints: {milestones: [2]}
grid: {model.width: [8, 16]}
seeds: {design: paired, count: 2}
success: {metric: verse.token_accuracy, threshold: 0.0, sustained: 1}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a store of a small study of text, trained."""
    home = tmp_path_factory.mktemp("verse")
    (home / "lines.txt").write_text("\n".join(f"Each seed has its day, and this is day {n}." for n in range(60)))
    (home / "verse.yaml").write_text(STUDY)
    invoke(
        "tokenize", str(home / "lines.txt"), "--to", str(home / "corpora/verse"), "--split", "line", "--train", "270"
    )
    study, store = str(home / "verse.yaml"), str(home / "store")
    invoke("run", study, "--store", store, "--cluster", "inline", "--no-report", "--json")
    return home


def export(home: Path, to: Path, *more: str) -> dict[str, object]:
    found = invoke("export", "hf", "verse", "--to", str(to), "--store", str(home / "store"), "--json", *more)
    return dict(json.loads(found))


def test_every_run_loads_with_the_logits_that_it_has(trained: Path, tmp_path: Path) -> None:
    told = export(trained, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"verse-width{width}-seed{seed}" for width in (16, 8) for seed in (0, 1)
    ]
    store = seedbed.open(trained / "store")
    tokens = torch.arange(24).reshape(2, 12)
    for run in told["runs"]:
        assert run["steps"] == [0, 2, 6]
        for step in run["steps"]:
            model = transformers.AutoModelForCausalLM.from_pretrained(Path(run["folder"]) / f"step{step}")
            own = store.run(run["run_id"]).module(step)
            with torch.no_grad():
                torch.testing.assert_close(model(tokens).logits, own(tokens), rtol=1e-5, atol=1e-5)


def test_a_step_that_no_run_has_reached_is_left_out(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "store", tmp_path / "store")
    for manifest in (tmp_path / "store").rglob("000000000006.safetensors.manifest.json"):
        manifest.unlink()
    with pytest.raises(QueryError, match="has no checkpoint yet"):
        export(tmp_path, tmp_path / "out", "--step", "6")
    assert [run["steps"] for run in export(tmp_path, tmp_path / "out", "--step", "2")["runs"]] == [[2]] * 4


def test_a_model_of_transformers_goes_out_as_itself(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    text = STUDY.replace("study: verse", "study: neox").replace("grid: {model.width: [8, 16]}\n", "")
    model = "model: {huggingface: gpt_neox, layers: 1, width: 8, heads: 2}"
    lines = [model if line.startswith("model:") else line for line in text.splitlines()]
    (trained / "neox.yaml").write_text("\n".join(lines))
    store = ("--store", str(trained / "neox-store"))
    invoke("run", str(trained / "neox.yaml"), *store, "--cluster", "inline", "--no-report", "--json")
    told = json.loads(invoke("export", "hf", "neox", "--to", str(tmp_path), *store, "--step", "6", "--json"))
    assert [run["largest_difference"] for run in told["runs"]] == [0.0, 0.0]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(Path(told["runs"][0]["folder"]) / "step6")
    assert loaded.config.model_type == "gpt_neox"
    own = seedbed.open(trained / "neox-store").run(told["runs"][0]["run_id"])
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in own.weights(6).items())


def test_the_tokenizer_gives_the_ids_of_the_corpus(trained: Path, tmp_path: Path) -> None:
    from jobs.text.corpus import open_corpus
    from jobs.text.tokenizer import tokenizer_of

    run = export(trained, tmp_path / "out", "--step", "6")["runs"][0]
    loaded = transformers.AutoTokenizer.from_pretrained(Path(run["folder"]) / "step6")
    corpus = open_corpus(str(trained / "corpora" / "verse"))
    text = "Each seed has its day; né?"
    assert loaded(text)["input_ids"] == tokenizer_of(corpus).ids([text])[0].tolist()
    assert loaded.eos_token_id == corpus.info.end
    assert loaded.decode(loaded(text)["input_ids"]) == text


def test_again_writes_nothing_and_goes_on_where_it_was(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = export(trained, out)
    marks = {path: path.stat().st_mtime_ns for path in out.rglob("seedbed.json")}
    gone = out / "verse-width8-seed0" / "step2"
    shutil.rmtree(gone)
    again = export(trained, out)
    assert sum(run["new"] for run in first["runs"]) == 12
    assert sum(run["new"] for run in again["runs"]) == 1
    assert all(path.stat().st_mtime_ns == time for path, time in marks.items() if gone not in path.parents)


@pytest.mark.parametrize("what", ["another file", "a changed weight", "another run", "a card"])
def test_nothing_else_is_written_over(what: str, trained: Path, tmp_path: Path) -> None:
    place = tmp_path / "out" / "verse-width8-seed0"
    if what == "another file":
        (place / "step2").mkdir(parents=True)
        (place / "step2" / "notes.txt").write_text("mine")
    elif what == "a card":
        place.mkdir(parents=True)
        (place / "README.md").write_text("mine")
    else:
        export(trained, tmp_path / "out")
        file = place / "step2" / "model.safetensors"
        if what == "another run":
            shutil.rmtree(place / "step2")
            shutil.copytree(tmp_path / "out" / "verse-width8-seed1" / "step2", place / "step2")
        else:
            file.write_bytes(file.read_bytes()[:-1] + b"x")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(QueryError, match="move it away, or give another folder"):
        export(trained, tmp_path / "out")
    assert all(path.read_bytes() == data for path, data in before.items())


def test_branches_are_the_steps(trained: Path, tmp_path: Path) -> None:
    run = export(trained, tmp_path / "out", "--git")["runs"][0]
    folder = Path(run["folder"])

    def git(*arguments: str) -> str:
        command = ["git", "--git-dir", str(folder / ".git"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert git("branch", "--format=%(refname:short)").split() == ["main", "step0", "step2", "step6"]
    assert git("rev-parse", "main") == git("rev-parse", "step6")
    before = git("rev-parse", "step2")
    export(trained, tmp_path / "out", "--git")
    assert git("rev-parse", "step2") == before
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "-b", "step2", str(folder / ".git"), str(clone)], check=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(clone)
    own = seedbed.open(trained / "store").run(run["run_id"]).module(2)
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, own(tokens), rtol=1e-5, atol=1e-5)


def test_the_card_says_what_it_is(trained: Path, tmp_path: Path) -> None:
    run = export(trained, tmp_path / "out")["runs"][0]
    card = (Path(run["folder"]) / "README.md").read_text()
    for told in (
        run["run_id"],
        "what do they say?",
        "model.width=8",
        "init 0, data 0",
        "success",
        '"learning_rate": 0.01',
    ):
        assert told in card


def test_names_are_pythias_and_never_met_twice() -> None:
    from jobs.seeds import Seeds

    condition = DeclaredCondition("c1", "model.width=8", {"model.width": 8, "task.order": "plain"}, 10)
    paired, crossed = Seeds(3, 3, 3, 0), Seeds(1, 2, 2, 0)
    runs = [DeclaredRun("r1-a", condition, paired), DeclaredRun("r1-b", condition, crossed)]
    assert run_names("a study", runs) == {
        "r1-a": "a-study-width8-orderplain-seed3",
        "r1-b": "a-study-width8-orderplain-init1-data2-dropout2",
    }
    twice = [DeclaredRun("r1-a", condition, paired), DeclaredRun("r1-c", condition, paired)]
    assert set(run_names("s", twice).values()) == {f"s-width8-orderplain-seed3-{run}" for run in ("r1-a", "r1-c")}
