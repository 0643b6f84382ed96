"""What a whole module shows of its inside while it computes: what its blocks make, and where its heads look.

The passes are the module's own, through whatever wraps it; hooks take down what goes by, and are gone afterwards. A
model of `transformers` shows its weights of attention only where plain products compute them (`eager`): that is
switched on for as long as somebody looks, and back. Nothing here draws, and no parameter is touched.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from jobs.errors import ModelError
from workers.models.huggingface import HuggingFace
from workers.models.whole import Whole

Shown = Callable[[Whole], AbstractContextManager[list[Tensor]]]


def blocks_of(whole: nn.Module) -> list[nn.Module]:
    """Return the blocks of a transformer: what its outermost lists of modules hold."""
    lists: list[nn.ModuleList] = []
    for name, module in whole.named_modules():
        inside = any(module in set(each.modules()) for each in lists)
        if name and isinstance(module, nn.ModuleList) and not inside:
            lists.append(module)
    return [block for each in lists for block in each]


@contextmanager
def layers_of(whole: Whole) -> Iterator[list[Tensor]]:
    """Yield a list to which each pass adds what each block makes, [batch, length, width].

    Of a perceptron it is [batch, width]. Raises ModelError for a module without blocks.
    """
    blocks = blocks_of(whole)
    if not blocks:
        raise ModelError(f"{type(whole.model).__name__} has no list of blocks: none of its layers can be looked at")
    with _seen_by(blocks, lambda out: [out[0] if isinstance(out, tuple) else out]) as found:
        yield found


@contextmanager
def attention_of(whole: Whole) -> Iterator[list[Tensor]]:
    """Yield a list to which each pass adds each layer's weights of attention, [batch, head, from, to].

    A pass raises ModelError where the model has none to show.
    """
    if not isinstance(whole, HuggingFace):
        with _seen_by([one for one in whole.modules() if isinstance(one, nn.Softmax)], lambda out: [out]) as found:
            yield found
        return
    model: Any = whole.model
    usual = model.config._attn_implementation  # noqa: SLF001
    with ExitStack() as afterwards:
        asking = model.register_forward_pre_hook(_ask_for_attention, with_kwargs=True)
        afterwards.callback(asking.remove)
        afterwards.callback(model.set_attn_implementation, usual)
        model.set_attn_implementation("eager")
        with _seen_by([model], lambda out: _attentions(model, out)) as found:
            yield found


def _ask_for_attention(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return given, {**named, "output_attentions": True}


def _attentions(model: nn.Module, out: Any) -> list[Tensor]:
    found = getattr(out, "attentions", None)
    if not found or any(one is None or one.dim() != 4 for one in found):
        raise ModelError(f"{type(model).__name__} shows no weights of attention: leave `attention` out of `measure`")
    return list(found)


@contextmanager
def _seen_by(modules: list[nn.Module], seen: Callable[[Any], list[Tensor]]) -> Iterator[list[Tensor]]:
    """Yield a list to which each of the modules adds what is `seen` of its output."""
    found: list[Tensor] = []

    def take_down(_: nn.Module, __: Any, out: Any) -> None:
        found.extend(seen(out))

    with ExitStack() as afterwards:
        for module in modules:
            afterwards.callback(module.register_forward_hook(take_down).remove)
        yield found
