"""What docs/models.md says of each engine, cell by cell: what it promises is done, and what it denies is refused."""

import shutil
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from jobs.errors import StudyError
from jobs.store import open_store
from jobs.study_file import parse_study
from orchestrator.library import Library
from orchestrator.verify import verify
from tests.bitwise.drives import one_command
from workers.replay import is_redrawn, replay

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

# What DeepSpeed itself uses of torch is on its way out there.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning", "ignore:.*deprecated:DeprecationWarning")
ROOT = Path(__file__).parents[2]
HEADING = "## What works in which engine\n"
SLOW = ("fsdp", "deepspeed")  # another engine of two processes is tried by `make test-system`, all by `make test-all`
ENGINES = {
    "packed": "{name: packed}",
    "accelerate": "{name: accelerate}",
    "ddp": "{processes: 2}",
    "fsdp": "{processes: 2, sharding: fsdp}",
    "deepspeed": "{name: deepspeed, stage: 3}",
    "command": "{command: python own_script.py}",
}
GPT, BERT = "family: gpt", "huggingface: bert"
LAYER = {GPT: "blocks.1", BERT: "bert.encoder.layer.1"}
PARENTS = """\
study: parents
task: {name: dependencies, objects: plain, test_size: 20, trees: 70}
model: {MODEL, layers: 2, width: 8, heads: 2, attention: full}
engine: ENGINE
optimizer: {learning_rate: {piecewise: [[0, 1.0e-2], [4, 1.0e-12]]}, weight_decay: 0.0}
training: {steps: 6, batch_size: 4, masking: 0.3}
probes: {every: 2}
measure: [weights, attention, linear-probe, structural-probe, {shapley: {items: 3}}]
checkpoints: {milestones: [2, 4], rolling: {every: 2}}
seeds: {design: paired, count: 2}
execution: {pack_width: 2}
"""
COMPOSED = """\
study: composed
task: {name: dependencies, objective: next, test_size: 16, trees: 24}
model: {family: lstm, layers: 2, width: 8}
engine: ENGINE
optimizer: {learning_rate: 1.0e-2}
training: {steps: 2, batch_size: 4}
probes: {every: 2}
measure: [interdependence]
seeds: {design: paired, count: 2}
execution: {pack_width: 2}
"""
ALL = "[weights, attention, linear-probe, structural-probe, {shapley: {items: 3}}]"
FEW = PARENTS.replace(f"measure: {ALL}\n", "").replace("count: 2", "count: 1")
CHILDREN = FEW.replace("study: parents", "study: children").replace("steps: 6", "steps: 8") + (
    "fork: {study: parents.yaml, steps: [2, last], redraw: [init, data], reinitialise: [LAYER]}\n"
)
POINTS = FEW.replace("study: parents", "study: points") + (
    "fork: {study: parents.yaml, steps: [last], moments: zero, line: {pairs: all, points: 3}}\n"
)
ALIKE = "measure: [similarity]\n"
LOOK = (
    FEW.replace("study: parents", "study: look")
    + "measure: [{similarity: {steps: {every: 2}}}]\nfork: {study: parents.yaml, steps: [last], train: false}\n"
)
BACK = FEW + "fork: {study: parents.yaml, steps: [last], train: false}\npolca: {steps: {every: 2}, basis: {every: 6}}\n"


class World:
    """A folder with the studies of one engine, which are trained when the first cell asks for them."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.folder, self.engine = folder, engine
        self.model = GPT if engine == "packed" else BERT
        shutil.copy(ROOT / "docs" / "examples" / "own_script.py", folder)
        (folder / "parents.yaml").write_text(self.text(PARENTS))

    def text(self, study: str) -> str:
        written = study.replace("ENGINE", ENGINES[self.engine]).replace("MODEL", self.model)
        return written.replace("LAYER", LAYER[self.model])

    @cached_property
    def parents(self) -> Library:
        return self._trained(PARENTS)

    @cached_property
    def composed(self) -> Library:
        return self._trained(COMPOSED)

    @cached_property
    def children(self) -> Library:
        return self._trained(CHILDREN) if self.parents else self.parents

    @cached_property
    def looks(self) -> Library:
        return self._trained(LOOK) if self.parents else self.parents

    @cached_property
    def points(self) -> Library:
        compared = table()["`measure: [similarity]` of lines"][self.engine] == "yes"
        return self._trained(POINTS + (ALIKE if compared else "")) if self.parents else self.parents

    def _trained(self, study: str) -> Library:
        one_command(self.folder / "store", self.text(study), cpus=2)
        return Library(open_store(self.folder / "store"))

    def measured(self, library: Library, study: str, step: int) -> dict[str, dict[str, float]]:
        """Return run → metric → value."""
        found: dict[str, dict[str, float]] = {}
        for row in library.tables(study)["metrics"].to_pylist():
            if row["step"] == step:
                found.setdefault(row["run_id"], {})[row["metric"]] = row["value"]
        return found

    def weights(self, run_id: str, step: int) -> dict[str, torch.Tensor]:
        return replay(self.parents.store, run_id, step).weights


def proven(world: World) -> None:
    found = world.parents.tables("parents")["probes_of_seeds"].to_pylist()
    digests = [{row["run_id"]: row["digest"] for row in found if row["factor"] == name} for name in ("init", "data")]
    assert [len(set(one.values())) for one in digests] == [2, 2], "two seeds make two of each"


def scheduled(world: World) -> None:
    run = world.parents.declared("parents").runs[0].id
    at = [world.weights(run, step) for step in (2, 4, 6)]
    moved = [max(float((two[n] - one[n]).abs().max()) for n in one) for one, two in pairwise(at)]
    assert moved[0] > 1e-3
    assert moved[1] < 1e-10, "from step 4 on the rate is all but nothing"


def metric(*names: str) -> Callable[[World], None]:
    def measured(world: World) -> None:
        for step in (0, 6):
            found = world.measured(world.parents, "parents", step)
            assert len(found) == 2
            assert all(set(names) <= set(values) for values in found.values())

    return measured


def taken_apart(world: World) -> None:
    for step in (0, 2):
        found = world.measured(world.composed, "composed", step)
        values = [of_run["trees.interdependence.1.1"] for of_run in found.values()]
        assert len(set(values)) == 2, "two runs, two states"
        assert min(values) > 0


def alike(world: World) -> None:
    found = world.measured(world.points, "points", 6)
    likeness = sorted(values["heldout.cka.1"] for values in found.values())
    assert likeness[-1] == pytest.approx(1, abs=1e-9), "the other end itself"
    assert likeness[0] < 1


def over_steps(world: World) -> None:
    found = [world.measured(world.looks, "look", step) for step in (2, 6)]
    assert [len(runs) for runs in found] == [2, 2]
    before, end = ([values["heldout.cka.1.to_last"] for values in runs.values()] for runs in found)
    assert all(0 < value < 1 - 1e-9 for value in before)
    assert end == pytest.approx([1, 1], abs=1e-9)
    ended = world.measured(world.parents, "parents", 6).values()
    losses = sorted(values["heldout.loss"] for values in found[1].values())
    assert losses == sorted(values["heldout.loss"] for values in ended), "it was what it is before and after"


def forked(world: World) -> None:
    runs = world.children.declared("children").runs
    assert len(runs) == 4
    for run in runs:
        assert run.origin is not None
        before = world.weights(run.origin.run_id, run.origin.step)
        after = world.weights(run.id, run.origin.step)
        redrawn = {name for name in before if is_redrawn(name, run.origin)}
        assert 0 < len(redrawn) < len(before)
        assert all(torch.equal(before[name], after[name]) for name in set(before) - redrawn)
        assert any(not torch.equal(before[name], after[name]) for name in redrawn)
    assert set(world.children.tables("children")["runs"]["status"].to_pylist()) == {"finished"}


def on_lines(world: World) -> None:
    ends = world.measured(world.parents, "parents", 6)
    points = world.measured(world.points, "points", 6)
    by_fraction = {run.condition.factors["fork.fraction"]: run for run in world.points.declared("points").runs}
    for fraction, run in by_fraction.items():
        assert run.origin is not None
        assert run.origin.toward is not None
        at = {0.0: run.origin.run_id, 1.0: run.origin.toward.run_id}.get(fraction)
        losses = [end["heldout.loss"] for end in ends.values()]
        assert (points[run.id]["heldout.loss"] in losses) == (at is not None)
        if at is not None:
            assert points[run.id]["heldout.loss"] == ends[at]["heldout.loss"], "an end is the run, to the last bit"


def trained_again(world: World) -> None:
    library = world.children
    assert verify(library.store, library.declared("children"), spans=1).findings == []
    run = library.declared("parents").runs[0].id
    again = replay(library.store, run, 4, start=-1)
    assert again.started_at == -1
    assert again.sha256 == replay(library.store, run, 4).sha256


PROMISED: dict[str, Callable[[World], None]] = {
    "proof of seeds before training": proven,
    "scalars that follow the step": scheduled,
    "`measure: [weights]`": metric("weights.l2"),
    "`measure: [attention]`": metric("trees.uas", "trees.tree_attention"),
    "`measure: [linear-probe]`": metric("trees.probe.relation.1", "trees.selectivity.relation.0"),
    "`measure: [structural-probe]`": metric("trees.structure.1", "trees.structure_selectivity.0"),
    "`measure: [interdependence]` of an `lstm`": taken_apart,
    "`measure: [shapley]`": metric("heldout.shapley_alone", "heldout.shapley_share"),
    "`measure: [{similarity: {steps: …}}]` of one run": over_steps,
    "`measure: [similarity]` of lines": alike,
    "`fork`, modules drawn anew": forked,
    "`fork: {line: …}`": on_lines,
    "`seedbed replay` to any step, `seedbed verify` of spans": trained_again,
    "`optimizer.sharpness_radius`": lambda world: parsed(world, PARENTS, SHARP),
    "`training.tree_attention`": lambda world: parsed(world, PARENTS, PULLED),
    "`polca`": lambda world: parsed(world, BACK, ("", "")),
}
SHARP, PULLED = ("weight_decay: 0.0", "sharpness_radius: 0.05"), ("masking: 0.3", "masking: 0.3, tree_attention: 0.1")
REFUSED: dict[str, tuple[str, tuple[str, str], str]] = {
    "`measure: [weights]`": (PARENTS, (ALL, "[weights]"), "reports its own"),
    "`measure: [attention]`": (PARENTS, (ALL, "[attention]"), "reports its own"),
    "`measure: [linear-probe]`": (PARENTS, (ALL, "[linear-probe]"), "reports its own"),
    "`measure: [structural-probe]`": (PARENTS, (ALL, "[structural-probe]"), "reports its own"),
    "`measure: [interdependence]` of an `lstm`": (COMPOSED, ("", ""), "reports its own"),
    "`measure: [shapley]`": (PARENTS, (ALL, "[shapley]"), "reports its own"),
    "`measure: [{similarity: {steps: …}}]` of one run": (LOOK, ("", ""), "reports its own"),
    "`measure: [similarity]` of lines": (POINTS + ALIKE, ("", ""), "both models in one process|reports its own"),
    "`fork`, modules drawn anew": (CHILDREN, ("", ""), "a script takes up its own checkpoints alone"),
    "`fork: {line: …}`": (POINTS, ("", ""), "a script takes up its own checkpoints alone"),
    "`optimizer.sharpness_radius`": (PARENTS, SHARP, "has no second pass"),
    "`training.tree_attention`": (PARENTS, PULLED, "is a loss of seed-batched models"),
    "`polca`": (BACK, ("", ""), "looks at seed-batched models|reports its own"),
}


def parsed(world: World, study: str, changed: tuple[str, str]) -> None:
    assert parse_study(world.text(study).replace(*changed), "study.yaml", world.folder).runs


def table() -> dict[str, dict[str, str]]:
    """Return the table of the page: what → engine → word."""
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").partition(HEADING)[2]
    lines = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    names = [name.strip("`") for name in rows[0][1:]]
    return {what: dict(zip(names, words, strict=True)) for what, *words in rows[2:]}


def cells(word: str) -> Iterator[object]:
    for what, words in table().items():
        for engine, said in words.items():
            if said == word:
                slow = [pytest.mark.slow] if engine in SLOW and word == "yes" else []
                yield pytest.param(what, engine, id=f"{engine}-{what}", marks=slow)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], World]:
    found: dict[str, World] = {}

    def world(engine: str) -> World:
        if engine == "deepspeed":
            pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install 'seedbed[deepspeed]'")
        if engine not in found:
            found[engine] = World(tmp_path_factory.mktemp(engine), engine)
        return found[engine]

    return world


def test_every_row_and_engine_of_the_page_is_known_here() -> None:
    assert list(table()) == list(PROMISED)
    for words in table().values():
        assert list(words) == list(ENGINES)
        assert set(words.values()) <= {"yes", "no", "the script's", "its checkpoints"}
        assert {words[engine] for engine in ENGINES if engine != "command"} <= {"yes", "no"}


@pytest.mark.parametrize(("what", "engine"), [*cells("yes")])
def test_what_is_promised_is_done(worlds: Callable[[str], World], what: str, engine: str) -> None:
    PROMISED[what](worlds(engine))


@pytest.mark.parametrize(("what", "engine"), [*cells("no")])
def test_what_is_denied_is_refused(tmp_path: Path, what: str, engine: str) -> None:
    study, changed, told = REFUSED[what]
    world = World(tmp_path, engine)
    with pytest.raises(StudyError, match=told):
        parse_study(world.text(study).replace(*changed), "study.yaml", tmp_path)
