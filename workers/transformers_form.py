"""A run's gpt as a model of `transformers`, where an architecture there is the same mathematics; else refused.

    norm       activation  positions   becomes
    rmsnorm    swiglu      rotary      Llama
    layernorm  gelu        rotary      GPT-NeoX, blocks one after the other (no parallel residual), biases 0
    layernorm  gelu        learned     GPT-2, biases 0

Nothing is approximated: every weight is a weight of the run, or a zero where ours have no bias.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from jobs.errors import QueryError
from jobs.spec import Condition, GptSpec, HuggingFaceSpec
from jobs.tasks.task import Task
from jobs.tasks.text import Text
from workers.models.gpt import NORM_EPSILON, ROTARY_BASE
from workers.models.whole import module_with

Weights = Mapping[str, Tensor]
EXACT = {
    ("rmsnorm", "swiglu", "rotary"): "llama",
    ("layernorm", "gelu", "rotary"): "gpt_neox",
    ("layernorm", "gelu", "learned"): "gpt2",
}


def architecture_of(spec: Any) -> str:
    """Return the `model_type` that a model becomes; raises QueryError, which says what could be exported."""
    if not isinstance(spec, GptSpec):
        raise QueryError(f"a model of family {spec.family!r} is no language model: nothing there is like it")
    if spec.attention == "full":
        raise QueryError("no model of transformers is a gpt with attention: full: those that see both ways differ")
    options = (spec.norm, spec.activation, spec.positions)
    if options not in EXACT:
        told = "; ".join(f"{' + '.join(known)} → {name}" for known, name in EXACT.items())
        raise QueryError(f"no model of transformers is norm {' + '.join(options)} positions; there are {told}")
    return EXACT[options]


def model_of(condition: Condition, weights: Weights, task: Task) -> Any:
    """Return a run's model as one of `transformers`, in float32; raises QueryError where none there is the same."""
    end = task.corpus_info.end if isinstance(task, Text) else None
    spec = condition.model
    if not isinstance(spec, HuggingFaceSpec):
        return as_transformers(spec, weights, len(task.vocabulary), task.length, end)  # type: ignore[arg-type]
    model: Any = module_with(condition, weights, len(task.vocabulary), task.length)  # it is one of transformers already
    model.config.bos_token_id = model.config.eos_token_id = end
    return model.eval()


def as_transformers(spec: GptSpec, weights: Weights, vocabulary: int, length: int, end: int | None) -> Any:
    """Return the model with these weights, in float32; end: the id of the end of a document, where there is one."""
    import transformers  # takes a second

    kind = architecture_of(spec)
    auto: Any = transformers.AutoModelForCausalLM
    made: Any = transformers.AutoConfig
    shared = {"vocab_size": vocabulary, "tie_word_embeddings": spec.tied_head, "dtype": torch.float32}
    ends = {"bos_token_id": end, "eos_token_id": end, "initializer_range": spec.width**-0.5}
    model = auto.from_config(made.for_model(kind, **_config(kind, spec, length), **shared, **ends))
    _load(model, {"llama": _llama, "gpt_neox": _neox, "gpt2": _gpt2}[kind](spec, weights))
    return model.eval()


def _config(kind: str, spec: GptSpec, length: int) -> dict[str, Any]:
    hidden = spec.feedforward_multiple * spec.width
    if kind == "gpt2":
        sizes = {"n_embd": spec.width, "n_layer": spec.layers, "n_head": spec.heads, "n_inner": hidden}
        kinds = {"activation_function": "gelu", "layer_norm_epsilon": NORM_EPSILON, "n_positions": length}
        return sizes | kinds | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    rotary = {"rope_type": "default", "rope_theta": ROTARY_BASE}
    sizes = {
        "hidden_size": spec.width,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "intermediate_size": hidden,
        "max_position_embeddings": length,
    }
    if kind == "llama":
        return sizes | {"hidden_act": "silu", "rms_norm_eps": NORM_EPSILON, "rope_parameters": rotary}
    neox = {"hidden_act": "gelu", "layer_norm_eps": NORM_EPSILON, "use_parallel_residual": False}
    return sizes | neox | {"rope_parameters": rotary | {"partial_rotary_factor": 1.0}}


def _load(model: Any, named: dict[str, Tensor]) -> None:
    """Put weights into a model; what it has beside them must be a bias, and becomes 0."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in named:
                parameter.copy_(named.pop(name))
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                raise QueryError(f"transformers has a parameter {name} that this model has not: another version?")
    if named:
        raise QueryError(f"transformers has no parameter {min(named)}: another version?")


def _llama(spec: GptSpec, weights: Weights) -> dict[str, Tensor]:
    named = {"model.embed_tokens.weight": weights["embedding"], "model.norm.weight": weights["norm.gain"]}
    for index in range(spec.layers):
        ours, theirs = f"blocks.{index}.", f"model.layers.{index}."
        q, k, v = weights[ours + "attention.qkv"].chunk(3, dim=1)
        gate, up = weights[ours + "feedforward.up"].chunk(2, dim=1)
        named |= {
            theirs + "input_layernorm.weight": weights[ours + "norm_1.gain"],
            theirs + "self_attn.q_proj.weight": q.T,
            theirs + "self_attn.k_proj.weight": k.T,
            theirs + "self_attn.v_proj.weight": v.T,
            theirs + "self_attn.o_proj.weight": weights[ours + "attention.out"].T,
            theirs + "post_attention_layernorm.weight": weights[ours + "norm_2.gain"],
            theirs + "mlp.gate_proj.weight": gate.T,
            theirs + "mlp.up_proj.weight": up.T,
            theirs + "mlp.down_proj.weight": weights[ours + "feedforward.down"].T,
        }
    return named if spec.tied_head else named | {"lm_head.weight": weights["head"].T}


def _neox(spec: GptSpec, weights: Weights) -> dict[str, Tensor]:
    width, heads = spec.width, spec.heads
    named = {"gpt_neox.embed_in.weight": weights["embedding"], "gpt_neox.final_layer_norm.weight": weights["norm.gain"]}
    for index in range(spec.layers):
        ours, theirs = f"blocks.{index}.", f"gpt_neox.layers.{index}."
        # Theirs has q, k, v of one head beside each other, ours all q, all k, all v.
        qkv = weights[ours + "attention.qkv"].view(width, 3, heads, width // heads)
        named |= {
            theirs + "input_layernorm.weight": weights[ours + "norm_1.gain"],
            theirs + "attention.query_key_value.weight": qkv.permute(2, 1, 3, 0).reshape(3 * width, width),
            theirs + "attention.dense.weight": weights[ours + "attention.out"].T,
            theirs + "post_attention_layernorm.weight": weights[ours + "norm_2.gain"],
            theirs + "mlp.dense_h_to_4h.weight": weights[ours + "feedforward.up"].T,
            theirs + "mlp.dense_4h_to_h.weight": weights[ours + "feedforward.down"].T,
        }
    return named if spec.tied_head else named | {"lm_head.weight": weights["head"].T}


def _gpt2(spec: GptSpec, weights: Weights) -> dict[str, Tensor]:
    named = {
        "transformer.wte.weight": weights["embedding"],
        "transformer.wpe.weight": weights["positions"],
        "transformer.ln_f.weight": weights["norm.gain"],
    }
    for index in range(spec.layers):
        ours, theirs = f"blocks.{index}.", f"transformer.h.{index}."
        named |= {
            theirs + "ln_1.weight": weights[ours + "norm_1.gain"],
            theirs + "attn.c_attn.weight": weights[ours + "attention.qkv"],
            theirs + "attn.c_proj.weight": weights[ours + "attention.out"],
            theirs + "ln_2.weight": weights[ours + "norm_2.gain"],
            theirs + "mlp.c_fc.weight": weights[ours + "feedforward.up"],
            theirs + "mlp.c_proj.weight": weights[ours + "feedforward.down"],
        }
    return named if spec.tied_head else named | {"lm_head.weight": weights["head"].T}
