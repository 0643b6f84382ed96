"""Fine-tuning of few values: low-rank adapters, and going on along the last update while that helps."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Target = Literal["attention.qkv", "attention.out", "feedforward.up", "feedforward.down"]


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class LowRank(_Form):
    """Adapters of matrices in every block, of a run that was forked from a trained one (LoRA: Hu et al. 2021).

    A matrix W [in, out] becomes W + (alpha / rank) A B with W as it was; A [in, rank] starts from N(0, 1/in), drawn
    from the run's init stream, B [rank, out] from 0.
    """

    rank: Annotated[int, Field(ge=1)]
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    targets: Annotated[tuple[Target, ...], Field(strict=False, min_length=1)] = ("attention.qkv",)


class FastForward(_Form):
    """After every so many updates, the last one is made again and again while a small set gets better.

    every  updates from one time to the next (6: Rahamim et al. 2024)
    set    a held-out set of the task, of which the first `items` decide
    most   times in a row
    """

    every: Annotated[int, Field(ge=1)] = 6
    set: str
    items: Annotated[int, Field(ge=1)] = 32
    most: Annotated[int, Field(ge=1)] = 100
