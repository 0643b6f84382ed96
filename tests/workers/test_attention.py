"""Attention of narrow heads with its projections: bit for bit what the products one after another give."""

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor

from workers.models.attention import attend_narrow, attend_together, is_narrow

SHAPES = [
    (width, heads, length) for width, heads in ((12, 3), (16, 4), (16, 2), (32, 4), (64, 16)) for length in (24, 33)
]


def one_after_another(
    x: Tensor, qkv: Tensor, out: Tensor, *, heads: int, length: int, causal: bool, maps: list[Tensor]
) -> Tensor:
    """Return the same as `attend_narrow`."""
    runs, _, width = x.shape
    together = torch.bmm(x, qkv).view(-1, length, 3, heads, width // heads)
    return torch.bmm(attend_together(together, causal=causal, maps=maps).reshape(runs, -1, width), out)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("shape", "causal", "threads"), list(product(SHAPES, (True, False), (1, 2))))
def test_narrow_heads_have_the_bits_of_the_products_one_after_another(
    shape: tuple[int, int, int], causal: bool, threads: int
) -> None:
    width, heads, length = shape
    assert is_narrow(width, heads, length)
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 5 * length, width), (2, width, 3 * width), (2, width, width))
    given = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    of_result, of_map = (
        torch.randn(shapes[0], generator=generator),
        torch.randn(10, heads, length, length, generator=generator),
    )
    found = []
    for way in (attend_narrow, one_after_another):
        for asked in (False, True):  # the gradient of the result alone, and that of the weights with it
            maps: list[Tensor] = []
            result = way(*given, heads=heads, length=length, causal=causal, maps=maps)
            number = (result * of_result).sum() + ((maps[0] * of_map).sum() if asked else 0)
            found.append([result, maps[0], *torch.autograd.grad(number, given)])
    names = ("result", "weights", "x", "qkv", "out")
    pairs = [zip(names, found[asked], found[2 + asked], strict=True) for asked in (0, 1)]
    assert [(asked, name) for asked in (0, 1) for name, a, b in pairs[asked] if not torch.equal(a, b)] == []
    assert not torch.equal(found[0][2], found[1][2]), "the gradient of the weights counts"


def test_heads_that_are_not_narrow_are_left_to_the_other_way() -> None:
    assert not is_narrow(8, 2, 32), "MKL rounds a transposed product otherwise there"
    assert not is_narrow(64, 4, 32), "a head's rows fill a register"
    assert not is_narrow(16, 4, 16), "the fused kernel is faster"
    assert not is_narrow(16, 4, 512), "too long for the cache"
