"""The benchmark of one GPU runs to its end on a CPU, so that a session on a GPU is not its first."""

import re

import pytest

from benchmarks import gpu
from benchmarks.models import Size


def test_every_arm_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(
        [
            "--device",
            "cpu",
            "--sizes",
            "tiny",
            "--packs",
            "1",
            "2",
            "--processes",
            "1",
            "2",
            "--seconds",
            ".01",
            "--no-compile",
            "--whole",
            "tiny",
        ]
    )
    printed = capsys.readouterr().out
    rates = dict(re.findall(r"^\| ((?:one|pack) [^|]*?) \| ([\d,]+) \|", printed, re.MULTILINE))
    assert set(rates) == {"one run a process, 1 at once", "one run a process, 2 at once", "pack of 1", "pack of 2"}
    assert all(int(rate.replace(",", "")) > 0 for rate in rates.values())
    assert re.search(r"accelerate, bf16: [\d,]+ tokens/s", printed)


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "there is no GPU here" in capsys.readouterr().err


def test_products_are_counted_as_by_hand() -> None:
    # Per token and layer: 12 width² weights, and 2 × length × width of attention; forward and backward are 6 × that.
    size = Size(layers=1, width=2, heads=1, vocabulary=3, length=5, batch=7)
    assert size.step_flops == 6 * 35 * (12 * 4 + 3 * 2 + 2 * 5 * 2)
