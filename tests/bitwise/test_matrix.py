"""One digest per run: whatever the pack's width, the slot, the threads, the kills, and the model's options.

A kill is a process that ends in the middle of a step: what was not committed is lost, and the steps since the last
rolling checkpoint are trained again. (Real SIGKILLs: tests/workers/test_pack.py and tests/e2e.)
"""

from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from jobs.claims import attempts_of
from jobs.identity import canonical_json
from jobs.store import open_store
from jobs.study import Run
from jobs.study_file import parse_study
from tests.bitwise.drives import Killed, killed_at
from tests.workers.conftest import Pack
from workers.pack import run_pack

STUDY = """\
study: matrix
task: {{name: parity, bits: 6, subset: 2, test_size: 16}}
model: {model}
optimizer: {{learning_rate: 3e-3, warmup_steps: 2}}
training: {{steps: 6, batch_size: 5}}
probes: {{every: 3}}
seeds: {{design: paired, count: 8}}
"""
GPT = {"family": "gpt", "layers": 2, "width": 12, "heads": 2}
MODELS: list[dict[str, Any]] = [
    *(
        {**GPT, "norm": norm, "positions": positions, "activation": activation}
        for norm, positions, activation in product(("rmsnorm", "layernorm"), ("learned", "rotary"), ("gelu", "swiglu"))
    ),
    {**GPT, "tied_head": False, "dropout": 0.1},
    *({"family": "mlp", "layers": 2, "width": 7, "activation": activation} for activation in ("relu", "gelu", "tanh")),
    {"family": "lstm", "layers": 2, "width": 12},
]
WIDTHS, THREADS, KILLS = (1, 3, 8), (1, 2), ((), (3, 5))
PLACES = [(w, slot, t, kills) for w in WIDTHS for slot in range(w) for t in THREADS for kills in KILLS]


def digests(folder: Path, packs: list[list[Run]], threads: int, kills: tuple[int, ...]) -> tuple[dict[str, str], Any]:
    """Return run → SHA-256 of its state after the last step, and all rows that the last attempts wrote."""
    made = Pack(open_store(folder, create=True))
    ends: dict[str, str] = {}
    rows = []
    for runs in packs:
        for step in kills:
            with killed_at(step), suppress(Killed):
                run_pack(made.store.url, made.request(runs, rolling_every=2, threads=threads))
        last = made.request(runs, rolling_every=2, threads=threads)
        run_pack(made.store.url, last)
        assert len(attempts_of(made.store, runs[0].id)) == len(kills) + 1
        ends |= made.slices(last, 6)
        rows += [row for row in made.rows(last).drop(["attempt"]).to_pylist() if row["step"] == 6]
    return ends, sorted(rows, key=lambda row: (row["run_id"], row["metric"]))


def packs_of(runs: list[Run], width: int, slot: int) -> list[list[Run]]:
    """Return all runs in packs of `width`, rotated so that each run moves on by `slot`."""
    turned = runs[slot:] + runs[:slot]
    return [turned[start : start + width] for start in range(0, len(turned), width)]


@pytest.mark.parametrize("number", range(len(MODELS)), ids=lambda n: "-".join(map(str, MODELS[n].values())))
def test_one_digest_per_run(number: int, tmp_path: Path, every: int) -> None:
    study = parse_study(STUDY.format(model=canonical_json(MODELS[number]).decode()), "matrix.yaml", Path())
    runs = list(study.runs)
    expected = digests(tmp_path / "whole", [runs], 1, ())
    assert len(set(expected[0].values())) == len(runs) == 8
    # Without --full each model tries other places, so that all places are tried by some model.
    step = 1 if every == 1 else len(MODELS)
    for width, slot, threads, kills in PLACES[number % step :: step]:
        found = digests(
            tmp_path / f"{width}.{slot}.{threads}.{len(kills)}", packs_of(runs, width, slot), threads, kills
        )
        assert found == expected, (width, slot, threads, kills)
