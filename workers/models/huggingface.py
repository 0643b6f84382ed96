"""Language models of `transformers`, causal or masked, built from a spec: random weights, no hub, no files.

The library says what the mathematics is and how the parameters are called. Their initial values are drawn here, each
from the run's init stream by its name: the same whatever the device, the layout or the state of torch's generator.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from jobs.errors import ModelError
from jobs.faults import near
from jobs.spec import GptSpec, HuggingFaceSpec
from workers.models.family import Masks, Parameter

_EXTRAS = {"deepspeed": "deepspeed", "lm_eval": "harness", "datasets": "harness", "evaluate": "harness"}
_MATRICES = ("Linear", "Conv1D", "Embedding")


def library(name: str, wanted_by: str) -> Any:
    """Return a module of an extra, mostly `huggingface`; raises ModelError where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        extra = _EXTRAS.get(package, "huggingface")
        told = f"{wanted_by} needs {package}, which is not installed here ({error})"
        raise ModelError(f"{told}: pip install 'seedbed[{extra}]'") from None


def auto_class(spec: HuggingFaceSpec | GptSpec) -> str:
    """Return the class of `transformers` that makes and loads such a model."""
    return "AutoModelForMaskedLM" if spec.attention == "full" else "AutoModelForCausalLM"


def configuration(spec: HuggingFaceSpec, vocabulary_size: int, length: int) -> Any:
    """Return the `transformers` configuration of a spec; raises ModelError for what there is not."""
    told = f"huggingface: {spec.huggingface}"
    transformers = library("transformers", told)
    known, kind_of_model = transformers.models.auto.modeling_auto, "masked" if spec.attention == "full" else "causal"
    types = getattr(known, f"MODEL_FOR_{kind_of_model.upper()}_LM_MAPPING_NAMES")
    if spec.huggingface not in types:
        near_miss = near(spec.huggingface, types)
        raise ModelError(f"{told}: transformers has no {kind_of_model} language model of this type{near_miss}")
    kind = type(transformers.AutoConfig.for_model(spec.huggingface))
    plain = kind()
    given = {
        "vocab_size": vocabulary_size,
        "max_position_embeddings": length,
        "hidden_size": spec.width,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "initializer_range": spec.initializer_range,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if hasattr(plain, "intermediate_size"):
        given["intermediate_size"] = spec.width * spec.feedforward_multiple
    if hasattr(plain, "num_key_value_heads"):
        given["num_key_value_heads"] = spec.heads
    rates = [name for name, value in plain.to_dict().items() if "drop" in name and isinstance(value, int | float)]
    if spec.dropout and not rates:
        raise ModelError(f"{told}: its configuration has no dropout")
    known = {*plain.to_dict(), *getattr(plain, "attribute_map", {})}
    for name in spec.config:
        if name not in known:
            raise ModelError(f"{told}: config.{name} is nothing that its configuration has{near(name, sorted(known))}")
    try:
        config = kind(**{**given, **dict.fromkeys(rates, spec.dropout), **spec.config})
    except Exception as error:  # the border to the library: each configuration has checks of its own
        raise ModelError(f"{told}: {error}") from error
    if config.vocab_size < vocabulary_size:
        raise ModelError(f"{told}: a vocab_size of {config.vocab_size} is less than the task's {vocabulary_size}")
    return config


class HuggingFace(nn.Module):
    """The model of one run; see `workers/models/whole.py` for what is asked of it."""

    def __init__(self, spec: HuggingFaceSpec, vocabulary_size: int, length: int, first_answer: int) -> None:
        super().__init__()
        config = configuration(spec, vocabulary_size, length)
        self.vocabulary_size, self.length = vocabulary_size, length
        self._asked = length - first_answer if first_answer else 0
        transformers = library("transformers", f"huggingface: {spec.huggingface}")
        # The library draws its own first weights from torch's generator: nobody else shall notice.
        with torch.random.fork_rng(devices=[]):
            self.model = getattr(transformers, auto_class(spec)).from_config(config, dtype=torch.float32)
        self._options = {"use_cache": False} if spec.attention == "causal" else {}
        self.model.train()

    def forward(self, tokens: Tensor, drop: Masks | None = None) -> Tensor:  # noqa: ARG002
        """Return logits [batch, answers, vocabulary] for int64 tokens [batch, length]."""
        kept = {"logits_to_keep": self._asked} if self._asked and self._options else {}
        logits: Tensor = self.model(input_ids=tokens, **self._options, **kept).logits
        if self._asked and not kept:
            logits = logits[:, -self._asked :].clone()
        # A copy: the hooks of FSDP2 take no views.
        return logits if logits.shape[-1] == self.vocabulary_size else logits[..., : self.vocabulary_size].clone()

    def recompute(self) -> None:
        """Keep no activations inside blocks, and compute them again on the way back."""
        self.model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})


def parameters_of(model: nn.Module, std: float) -> tuple[Parameter, ...]:
    """Return how each parameter of a model begins, tied ones once; raises ModelError for one of an unknown kind."""
    modules: Mapping[str, nn.Module] = dict(model.named_modules())
    return tuple(_parameters(modules, model, std))


def _parameters(modules: Mapping[str, nn.Module], model: nn.Module, std: float) -> Iterator[Parameter]:
    for name, value in model.named_parameters():
        owner, _, last = name.rpartition(".")
        kind, shape = type(modules[owner]).__name__, tuple(value.shape)
        if last == "bias":
            yield Parameter(name, shape, decays=False)
        elif last == "weight" and kind.endswith(_MATRICES):
            yield Parameter(name, shape, std=std)
        elif last == "weight" and "Norm" in kind:
            yield Parameter(name, shape, fill=1.0, decays=False)
        else:
            raise ModelError(f"{type(model).__name__}: nothing says how {name} of a {kind} begins")
