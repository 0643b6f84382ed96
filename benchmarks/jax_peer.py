"""The same model and optimiser in JAX, many seeds at once by `jit(vmap(step))`: a peer, not a part of Seedbed."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def jax_step(
    width: int, runs: int, vocabulary: int, length: int, batch: int, layers: int, heads: int
) -> Callable[[], None]:
    """Return a function that makes one step of `runs` seeds; the first call compiles."""
    parameters = jax.vmap(lambda key: _init(key, width, vocabulary, length, layers))(
        jax.random.split(jax.random.key(0), runs)
    )
    first, second = (jax.tree.map(jnp.zeros_like, parameters) for _ in range(2))
    tokens = jax.random.randint(jax.random.key(1), (2, runs, batch, length), 0, vocabulary)
    state = [parameters, first, second, jnp.zeros(())]
    update = jax.jit(
        jax.vmap(lambda p, m, v, t, x, y: _update(p, m, v, t, x, y, heads), in_axes=(0, 0, 0, None, 0, 0)),
        donate_argnums=(0, 1, 2),
    )

    def step() -> None:
        state[3] += 1
        state[0], state[1], state[2] = update(*state, tokens[0], tokens[1])
        jax.block_until_ready(state[0])

    return step


def _init(key: jax.Array, width: int, vocabulary: int, length: int, layers: int) -> dict[str, jax.Array]:
    shapes = {"embedding": (vocabulary, width), "positions": (length, width)}
    for i in range(layers):
        shapes |= {f"{i}.qkv": (width, 3 * width), f"{i}.out": (width, width)}
        shapes |= {f"{i}.up": (width, 4 * width), f"{i}.down": (4 * width, width)}
    keys = jax.random.split(key, len(shapes))
    drawn = {n: jax.random.normal(k, s) * s[0] ** -0.5 for k, (n, s) in zip(keys, shapes.items(), strict=True)}
    gains = {f"{i}.{g}": jnp.ones(width) for i in range(layers) for g in ("gain_1", "gain_2")}
    return drawn | gains | {"gain": jnp.ones(width)}


def _norm(x: jax.Array, gain: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5) * gain


def _loss(p: dict[str, jax.Array], x: jax.Array, y: jax.Array, heads: int) -> jax.Array:
    h = p["embedding"][x] + p["positions"]
    batch, length, width = h.shape
    seen = jnp.tril(jnp.ones((length, length), bool))
    for i in range(sum(name.endswith(".qkv") for name in p)):
        qkv = (_norm(h, p[f"{i}.gain_1"]) @ p[f"{i}.qkv"]).reshape(batch, length, 3, heads, -1)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / (width // heads) ** 0.5
        weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), -1)
        h += jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, length, width) @ p[f"{i}.out"]
        h += jax.nn.gelu(_norm(h, p[f"{i}.gain_2"]) @ p[f"{i}.up"], approximate=False) @ p[f"{i}.down"]
    logits = jax.nn.log_softmax(_norm(h, p["gain"]) @ p["embedding"].T)
    return -jnp.take_along_axis(logits, y[..., None], -1).mean()


def _update(p, m, v, t, x, y, heads):  # type: ignore[no-untyped-def]
    g = jax.grad(_loss)(p, x, y, heads)
    norm = jnp.sqrt(sum(jnp.sum(part * part) for part in jax.tree.leaves(g)))
    g = jax.tree.map(lambda part: part * jnp.minimum(1.0, 1.0 / (norm + 1e-6)), g)
    m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
    v = jax.tree.map(lambda a, b: 0.95 * a + 0.05 * b * b, v, g)
    rate, one, two = 1e-3, 1 - 0.9**t, 1 - 0.95**t
    p = jax.tree.map(lambda w, a, b: w * (1 - rate * 0.01) - rate * (a / one) / (jnp.sqrt(b / two) + 1e-8), p, m, v)
    return p, m, v
