"""Statistics of weights: the values of a matrix made by hand, and the same bits in any pack."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.errors import StudyError
from jobs.store import open_store
from jobs.study_file import parse_study
from orchestrator.library import Library
from orchestrator.verify import verify
from tests.bitwise.drives import STUDY, final, one_command
from workers.weight_statistics import weight_statistics

MEASURED = STUDY.replace("probes:", "measure: [weights]\nprobes:").replace("count: 2", "count: 4")

# In a process of its own: what others have freed before would hide what is asked for. Prints bytes more a parameter.
PEAK = """
import torch
from jobs.memory import forget_peak, peak_resident_bytes
from workers.weight_statistics import weight_statistics
torch.set_num_threads(1)
weights = {f"{name}.weight": torch.rand(1, 16, 1 << 17) for name in "abcdefgh"}
forget_peak()
before = peak_resident_bytes()
weight_statistics(weights, 0, str)
print((peak_resident_bytes() - before) / sum(values.numel() for values in weights.values()))
"""


def test_a_matrix_made_by_hand() -> None:
    weights = {
        "a.weight": torch.tensor([[[9.0, 9.0], [9.0, 9.0]], [[1.0, 2.0], [3.0, 4.0]]]),
        "a.bias": torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 6.0]]),
    }
    told: list[str] = []
    found = weight_statistics(weights, 1, told.append)
    assert told == ["a matrix of 2 by 2", "all weights"], "or the probe of a large model would seem to stand still"
    expected = {
        "l1": 10, "l2": 5.477225575, "trace": 5, "spectral": 5.464985704, "code_sparsity": 1.825741858,
        "computational_sparsity": 0.914915477, "mean_lambda": 2.915475947, "variance_lambda": 13.0,
        "mean_w": 2.5, "median_w": 2.5, "var_w": 5 / 3, "mean_b": 3.0, "median_b": 2.0, "var_b": 7.0,
    }  # fmt: skip
    assert found == pytest.approx({f"weights.{name}": value for name, value in expected.items()}, abs=1e-8)


def test_tiny_singular_values_are_none_and_what_is_not_there_is_not_said() -> None:
    found = weight_statistics({"m": torch.tensor([[[1.0, 0.0], [0.0, 9e-6]]])}, 0, str)
    assert found["weights.mean_lambda"] == 0.5
    assert "weights.mean_b" not in found
    zero = weight_statistics({"m": torch.zeros(1, 2, 2)}, 0, str)
    assert zero["weights.code_sparsity"] == zero["weights.computational_sparsity"] == 0.0


def test_they_are_rows_of_every_probe_and_do_not_depend_on_the_pack(tmp_path: Path) -> None:
    ends = []
    for width, name in ((1, "one"), (4, "four")):
        tables = one_command(tmp_path / name, MEASURED.replace("pack_width: 2", f"pack_width: {width}"))
        ends.append(final(tables)[0])  # type: ignore[index]
        of_weights = [row for row in tables["metrics"].to_pylist() if row["metric"].startswith("weights.")]
        assert {row["step"] for row in of_weights} == {0, 2, 4}
        assert len(of_weights) == 14 * 3 * 4
        assert all(np.isfinite(row["value"]) for row in of_weights)
    assert ends[0] == ends[1]
    library = Library(open_store(tmp_path / "four"))
    assert verify(library.store, library.declared("small"), spans=4).findings == []


def test_threads_change_no_bit() -> None:
    values = torch.randn(3, 300, 200, generator=torch.Generator().manual_seed(0))
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(weight_statistics({"m": values}, 2, str))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert found[0] == found[1] == weight_statistics({"m": values[2:]}, 0, str)


def test_they_take_one_copy_of_the_weights_in_float64() -> None:
    said = subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True).stdout
    assert 7 < float(said) < 16, "8 bytes a parameter, and one matrix of eight beside them; copies of all took 24"


def test_what_is_not_measured_is_no_part_of_an_id() -> None:
    plain, measured = (parse_study(text, "s.yaml", Path()) for text in (STUDY, MEASURED))
    assert "measure" not in plain.points[0].spec
    assert measured.points[0].spec["measure"] == ["weights"]
    assert plain.runs[0].id != measured.runs[0].id
    with pytest.raises(StudyError, match="measure"):
        parse_study(STUDY.replace("probes:", "measure: [weihgts]\nprobes:"), "s.yaml", Path())
