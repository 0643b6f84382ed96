"""Groups denser than what lies around them: of hand-made points, with what belongs nowhere as noise."""

import numpy as np

from workers.polca import NOISE, density_clusters


def blobs(*centres: float, size: int = 20, spread: float = 0.05) -> np.ndarray:
    draw = np.random.default_rng(3)
    return np.concatenate([centre + spread * draw.standard_normal((size, 2)) for centre in centres])


def test_each_blob_is_a_group_and_what_lies_between_is_noise() -> None:
    lonely = np.array([[2.5, 40.0], [7.5, -60.0]])
    labels = density_clusters(np.concatenate([blobs(0, 5, 10), lonely]), 5, 5)
    assert labels.tolist() == [0] * 20 + [1] * 20 + [2] * 20 + [NOISE] * 2


def test_groups_of_other_densities_are_found_at_once() -> None:
    points = np.concatenate([blobs(0, spread=0.01), blobs(0.3, spread=0.01), blobs(20, spread=1.5)])
    labels = density_clusters(points, 5, 5)
    assert [len(set(labels[part : part + 20].tolist()) - {NOISE}) for part in (0, 20, 40)] == [1, 1, 1]
    assert labels.max() == 2, "no single height cuts these three"


def test_one_blob_or_too_few_points_have_no_groups() -> None:
    assert set(density_clusters(blobs(0), 15, 5).tolist()) == {NOISE}
    assert set(density_clusters(blobs(0, 5, size=2), 5, 5).tolist()) == {NOISE}


def test_groups_go_by_their_first_point_and_no_order_moves_one() -> None:
    points = blobs(0, 5, 10)
    order = np.random.default_rng(0).permutation(len(points))
    plain, mixed = density_clusters(points, 5, 5), density_clusters(points[order], 5, 5)
    pairs = {(int(a), int(b)) for a, b in zip(plain[order], mixed, strict=True)}
    assert len(pairs) == 3
    assert mixed[0] == 0


def test_points_at_one_place_are_a_group() -> None:
    points = np.concatenate([np.zeros((6, 2)), np.ones((6, 2))])
    assert density_clusters(points, 4, 2).tolist() == [0] * 6 + [1] * 6
