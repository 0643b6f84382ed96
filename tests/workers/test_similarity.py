"""Similarity of representations: what it must not mind, what it must, and values made by hand."""

import math

import pytest
import torch

from workers.similarity import linear_cka, svcca


def drawn(rows: int, features: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(size: int, seed: int = 9) -> torch.Tensor:
    return torch.linalg.qr(drawn(size, size, seed))[0]


@pytest.mark.parametrize("measure", [linear_cka, svcca])
@pytest.mark.parametrize(("rows", "features"), [(60, 5), (8, 20)])
def test_rotations_scales_and_shifts_change_nothing(measure, rows: int, features: int) -> None:  # type: ignore[no-untyped-def]
    x = drawn(rows, features)
    assert measure(x, 3 * x @ rotation(features) + 5) == pytest.approx(1, abs=1e-10)
    assert measure(x, x) == pytest.approx(1, abs=1e-10)
    other = drawn(rows, features, 1)
    assert measure(x, other) == pytest.approx(measure(other, x), abs=1e-12)
    if rows > features:
        assert measure(x, other) < 0.6


def test_cca_does_not_mind_an_invertible_map_and_cka_does() -> None:
    x, stretch = drawn(100, 4), torch.diag(torch.tensor([1.0, 1.2, 1.4, 1.7], dtype=torch.float64))
    mapped = x @ rotation(4) @ stretch @ rotation(4, 3)
    assert svcca(x, mapped) == pytest.approx(1, abs=1e-10)
    assert linear_cka(x, mapped) < 0.999


def test_values_made_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    y = x[:, :1]
    # |Y'X|² = 4, |X'X| = √8, |Y'Y| = 2.
    assert linear_cka(x, y) == pytest.approx(4 / (math.sqrt(8) * 2))
    assert svcca(x, y) == pytest.approx(1)
    assert svcca(x[:, :1], x[:, 1:]) == pytest.approx(0, abs=1e-12)
    assert math.isnan(linear_cka(x, torch.ones(4, 2)))
    assert math.isnan(svcca(x, torch.ones(4, 2)))


def test_small_directions_are_left_out() -> None:
    x, noise = drawn(200, 2), drawn(200, 2, 1)
    y = torch.cat([x[:, :1], 1e-3 * noise[:, :1]], dim=1)
    z = torch.cat([x[:, :1], 1e-3 * noise[:, 1:]], dim=1)
    assert svcca(y, z) == pytest.approx(1, abs=1e-3)
    assert svcca(y, z, kept=1.0) < 0.7


def test_rows_or_features_may_be_the_smaller_side() -> None:
    wide = drawn(6, 30)
    other = drawn(6, 40, 1)
    a, b = wide - wide.mean(0), other - other.mean(0)
    by_features = float((b.T @ a).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm()))
    assert linear_cka(wide, other) == pytest.approx(by_features, abs=1e-12)
