"""The change of a loss taken apart: against dense Hessians, against true changes, and as jobs over finished runs."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from jobs.errors import StudyError
from jobs.polca import PolcaSpec
from jobs.seeds import Seeds, Streams
from jobs.spec import GptSpec, MlpSpec
from jobs.store import open_store
from jobs.study_file import parse_study, read_study
from jobs.tasks.addition import Addition
from jobs.tasks.parity import Parity
from jobs.tasks.task import IGNORE, Batch
from orchestrator.library import Library
from orchestrator.verify import verify
from tests.bitwise.drives import Killed, final, killed_at, one_command
from tests.cli import invoke
from workers.landscape import Landscape, steepest
from workers.models import plain
from workers.polca import Directions, Past, _of_curves, taken_apart

STREAMS = Streams(Seeds(1, 1, 1, 0))
NOTHING = torch.zeros(0, 1, dtype=torch.float64)


def tiny() -> Landscape:
    """Return the loss of a perceptron of 35 weights on the parity of 3 bits."""
    task = Parity(bits=3, subset=2, test_size=16)
    batch = task.held_out(STREAMS)["heldout"]
    spec = MlpSpec(family="mlp", layers=1, width=2, activation="tanh")
    return Landscape(plain.build(spec, len(task.vocabulary), task.length), batch)


def drawn(size: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(size))


def hessian(landscape: Landscape, at: Tensor) -> Tensor:
    found: Tensor = torch.autograd.functional.hessian(lambda x: landscape.losses(x).mean(), at)  # type: ignore[no-untyped-call]
    return found


def test_a_plain_transformer_has_its_losses_slopes_and_curvature_in_double() -> None:
    task = Addition(digits=1, test_size=8)
    batch = task.held_out(STREAMS)["heldout"]
    module = plain.build(GptSpec(family="gpt", layers=2, width=4, heads=2), len(task.vocabulary), task.length)
    landscape = Landscape(module, batch)
    at = 0.3 * drawn(landscape.size)
    losses = landscape.losses(at)
    assert (losses.dtype, losses.shape) == (torch.float64, (16,))
    jacobian = torch.autograd.functional.jacobian(landscape.losses, at)  # type: ignore[no-untyped-call]
    directions = torch.stack([drawn(landscape.size, seed) for seed in range(11)])
    torch.testing.assert_close(landscape.slopes(at, directions), directions @ jacobian.T, rtol=1e-10, atol=1e-12)
    product, step = landscape.curvature(at), 1e-5

    def slope(of: Tensor) -> Tensor:
        found: Tensor = torch.autograd.functional.jacobian(lambda x: landscape.losses(x).mean(), of)  # type: ignore[no-untyped-call]
        return found

    ahead, behind = (slope(at + sign * step * directions[0]) for sign in (1, -1))
    torch.testing.assert_close(product(directions[0]), (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("count", "before"), [(1, 0), (3, 0), (2, 4)])
def test_the_steepest_directions_are_those_of_the_dense_hessian(count: int, before: int) -> None:
    landscape = tiny()
    at = drawn(landscape.size)
    dense = hessian(landscape, at)
    without = torch.linalg.qr(drawn(landscape.size * before, 5).view(landscape.size, before))[0].T
    outside = torch.eye(landscape.size, dtype=torch.float64) - without.T @ without
    values, vectors = torch.linalg.eigh(outside @ dense @ outside)
    found, directions = steepest(landscape.curvature(at), drawn(landscape.size, 9), count, without, 1e-9)
    assert len(found) == count
    assert found == pytest.approx(values.flip(0)[:count].numpy(), rel=1e-7, abs=1e-9)
    torch.testing.assert_close(directions @ directions.T, torch.eye(count, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(
        directions @ without.T, torch.zeros(count, before, dtype=torch.float64), rtol=0, atol=1e-9
    )
    cosine = (directions * vectors.flip(1).T[:count]).sum(1).abs()
    torch.testing.assert_close(cosine, torch.ones(count, dtype=torch.float64), rtol=0, atol=1e-6)


def test_the_start_of_the_search_moves_a_direction_by_rounding_alone() -> None:
    landscape = tiny()
    product = landscape.curvature(drawn(landscape.size))
    one, other = (
        steepest(product, drawn(landscape.size, seed), 2, NOTHING.expand(0, landscape.size), 1e-9) for seed in (1, 2)
    )
    assert one[0] == pytest.approx(other[0], rel=1e-7)
    torch.testing.assert_close(one[1], other[1], rtol=0, atol=1e-6)


def test_a_space_without_more_directions_gives_fewer() -> None:
    diagonal = torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64)
    without = torch.eye(3, dtype=torch.float64)[:2]
    values, directions = steepest(lambda v: diagonal * v, torch.ones(3, dtype=torch.float64), 2, without)
    assert values == pytest.approx([2.0])
    assert directions.tolist() == [[0.0, 0.0, 1.0]]


def apart_on_a_line(order: int, length: float, basis: Tensor) -> tuple[float, float, float]:
    """Return (sum of the projected mean loss, slope · way, true change) of a way of this length, in one stride."""
    landscape = tiny()
    begin, way = drawn(landscape.size), length * drawn(landscape.size, 3)
    module = landscape.module

    def weights(step: int) -> dict[str, Tensor]:
        at, found, place = begin + step * way, {}, 0
        for name, value in module.named_parameters():
            found[name] = at[place : place + value.numel()].view(value.shape)
            place += value.numel()
        return found

    spec = PolcaSpec(steps=(0, 1), basis=(1,), order=order)  # type: ignore[arg-type]
    directions = Directions(basis, (1,) * len(basis), (0.0,) * len(basis))
    found = taken_apart(spec, landscape, Past(weights, lambda: module, 1), directions, lambda _: None)
    slope = torch.autograd.functional.jacobian(lambda x: landscape.losses(x).mean(), begin)  # type: ignore[no-untyped-call]
    assert found.captured[1] == pytest.approx(1.0)
    true = float((found.losses[1] - found.losses[0]).mean())
    return float(found.projected[:, 1].mean(axis=1).sum()), float(slope @ way), true


def test_over_a_complete_basis_the_first_terms_are_the_slope_along_the_way() -> None:
    basis = torch.linalg.qr(drawn(35 * 35, 7).view(35, 35))[0].T
    total, slope, true = apart_on_a_line(1, 1e-2, basis)
    assert total == pytest.approx(slope, abs=1e-15)
    half = apart_on_a_line(1, 5e-3, basis)
    assert (total - true) / (half[0] - half[2]) == pytest.approx(4, rel=0.1), "what is left is of second order"


def test_over_the_eigenvectors_both_terms_leave_the_third_order() -> None:
    landscape = tiny()
    basis = torch.linalg.eigh(hessian(landscape, drawn(landscape.size)))[1].T.contiguous()
    whole, half = (apart_on_a_line(2, length, basis) for length in (1e-2, 5e-3))
    assert abs(whole[0] - whole[2]) < abs(whole[1] - whole[2]) / 20
    assert (whole[0] - whole[2]) / (half[0] - half[2]) == pytest.approx(8, rel=0.15)


def curves_of(starts: list[int], rises: int) -> np.ndarray:
    """Return curves [step, token] that fall by 1 about the given step, ten of each, and some that rise."""
    steps, draw = np.arange(40), np.random.default_rng(2)
    fall = [-1 / (1 + np.exp(-(steps - start) / 1.5)) for start in starts for _ in range(10)]
    rise = [0.2 * steps / 40 for _ in range(rises)]
    noise = 0.01 * draw.standard_normal((len(fall) + rises, 40))
    noise[:, 0] = 0
    return (np.array(fall + rise) + noise).T


def test_tokens_that_rise_are_left_out_and_the_others_fall_into_their_clusters() -> None:
    curves = curves_of([8, 28], rises=6)
    is_late = np.arange(26) // 10 == 1
    named = {"place_0.carry": is_late, "place_0.no_carry": ~is_late}
    rows = list(_of_curves("x", PolcaSpec(smallest=0.2), tuple(range(40)), curves, named))
    last = {metric: (value, k, m) for step, metric, value, k, m in rows if step == 39}
    assert last["x.kept.place_0.carry"] == (1.0, 10, 10)
    assert last["x.kept.place_0.no_carry"] == (10 / 16, 10, 16)
    assert last["x.cluster_0.of.place_0.carry"] == (0.0, 0, 10)
    assert last["x.cluster_1.of.place_0.carry"] == (1.0, 10, 10)
    assert "x.cluster_2" not in last
    mean = [value for _, metric, value, _, _ in rows if metric == "x.cluster_1"]
    assert mean == pytest.approx(curves[:, 10:20].mean(axis=1).tolist())
    rising = list(_of_curves("x", PolcaSpec(), tuple(range(40)), -curves, named))
    assert {metric for _, metric, _, _, _ in rising} == {"x", "x.place_0.carry", "x.place_0.no_carry"}


def test_digits_of_a_sum_go_by_place_and_carry() -> None:
    task = Addition(digits=2, order="plain", test_size=2)
    inputs = np.array([[5, 8, 10, 2, 4, 11, 0, 8]])  # 58 + 24 = 082
    targets = np.full((1, 8), IGNORE)
    targets[0, 5:] = [0, 8, 2]
    found = task.groups(Batch(inputs, targets))[0, 5:]
    assert [task.token_groups[place] for place in found] == ["place_2.no_carry", "place_1.carry", "place_0.no_carry"]
    reverse = Addition(digits=2, test_size=2)
    turned = np.array([[8, 5, 10, 4, 2, 11, 2, 8]])
    assert reverse.groups(Batch(turned, targets))[0, 5:].tolist() == found[::-1].tolist()


PARENTS = """\
study: parents
task: {name: addition, digits: 1, test_size: 40}
model: {family: gpt, layers: 1, width: 8, heads: 2}
optimizer: {learning_rate: 3e-3}
training: {steps: 12, batch_size: 16}
probes: {every: 4}
checkpoints: {milestones: {every: 4}}
seeds: {design: paired, count: 3}
execution: {pack_width: 3}
"""
LOOK = """\
study: look
task: {name: addition, digits: 1, test_size: 40}
model: {family: gpt, layers: 1, width: 8, heads: 2}
optimizer: {learning_rate: 3e-3}
training: {steps: 12, batch_size: 16}
fork: {study: parents.yaml, steps: [last], train: false}
polca: {steps: {every: 3}, basis: {every: 6}, items: 30}
grid: {polca.directions: [hessian, random]}
seeds: {design: paired, count: 1}
execution: {pack_width: 3}
"""


def values(rows: list[dict[str, Any]], run: str) -> dict[tuple[int, str], float]:
    return {(row["step"], row["metric"]): row["value"] for row in rows if row["run_id"] == run}


def test_finished_runs_are_looked_at_as_jobs_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    (tmp_path / "look.yaml").write_text(LOOK)
    study = read_study(tmp_path / "look.yaml")
    assert [point.label.partition(",")[0] for point in study.points] == [
        "polca.directions=hessian",
        "polca.directions=random",
    ]
    one_command(tmp_path / "store", PARENTS)
    tables = one_command(tmp_path / "store", LOOK)
    assert set(tables["runs"]["status"].to_pylist()) == {"finished"}
    assert tables["checkpoints"].num_rows == 0
    rows = tables["metrics"].to_pylist()
    for run in study.runs:
        assert run.point.condition.polca
        mine = values(rows, run.id)
        assert {step for step, metric in mine if metric == "heldout.polca.00"} == {0, 3, 6, 9, 12}
        assert {step for step, metric in mine if metric == "heldout.polca.loss.place_1.carry"} == {0, 3, 6, 9, 12}
        assert len(mine) <= run.point.condition.polca.rows_at_most(12, 4)
        assert all(0 <= mine[step, "heldout.polca.captured"] <= 1 for step in (0, 3, 6, 9, 12))
        found = {step for step, metric in mine if metric.endswith(".curvature")}
        assert found == ({6, 12} if "hessian" in run.point.label else set())
    assert len({row["value"] for row in rows if row["metric"] == "heldout.polca.set"}) == 1, "one set for all seeds"
    library = Library(open_store(tmp_path / "store"))
    assert verify(library.store, library.declared("look"), spans=3).findings == []


def test_rows_are_the_same_in_any_pack_and_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    stores = [tmp_path / name for name in ("3", "1", "killed")]
    for store in stores:
        one_command(store, PARENTS)
    ends = [
        final(one_command(s, LOOK.replace("width: 3", f"width: {w}"))) for s, w in zip(stores, (3, 1), strict=False)
    ]
    with killed_at(3), suppress(Killed):
        one_command(stores[2], LOOK.replace("width: 3", "width: 3, retries: 0"))
    ends.append(final(one_command(stores[2], LOOK)))
    assert ends[0] == ends[1] == ends[2]


def test_parents_that_were_begun_are_trained_to_their_end_before_they_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    (tmp_path / "look.yaml").write_text(LOOK)
    with killed_at(3), suppress(Killed):
        one_command(tmp_path / "store", PARENTS.replace("width: 3", "width: 3, retries: 0"))
    place = ("--store", str(tmp_path / "store"), "--cluster", "inline", "--cpus", "1")
    told = " ".join(invoke("run", str(tmp_path / "look.yaml"), *place).split())
    assert "begins where runs of parents were, which the store has not whole" in told
    tables = Library(open_store(tmp_path / "store")).tables("parents")
    assert set(tables["runs"]["status"].to_pylist()) == {"finished"}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("fork: {study: parents.yaml, steps: [last], train: false}\n", "", "give a fork with `train: false`"),
        ("[last], train: false", "[4], redraw: [data]", "give a fork with `train: false`"),
        ("items: 30", "item: 30", "did you mean 'items'"),
        ("[hessian, random]", "[hessian, randm]", "'hessian' or 'random'"),
        ("seeds:", "engine: {name: accelerate}\nseeds:", "looks at seed-batched models"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    assert old in LOOK
    with pytest.raises(StudyError, match=told):
        parse_study(LOOK.replace(old, new), "look.yaml", tmp_path)


def test_a_set_that_there_is_not_fails_the_run_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    one_command(tmp_path / "store", PARENTS)
    runs = one_command(tmp_path / "store", LOOK.replace("items: 30", "set: other"))["runs"].to_pylist()
    assert {run["status"] for run in runs} == {"failed"}
    assert "has no held-out set 'other': there are heldout" in runs[0]["reason"]
