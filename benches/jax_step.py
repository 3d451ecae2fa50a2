"""The twin of src/bin/xla_step.rs in JAX: same shape, same work, same prints.

    jax_step.py [STEPS] [scan|unroll] [remat|keep] [all|scored]

Layers as a scan or one after the other, recomputed in the backward pass or kept, the head over all
positions or over a list of the masked ones of a fixed length.
"""

import json
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np


def argument(at: int, default: str) -> str:
    return sys.argv[at] if len(sys.argv) > at else default


STEPS = int(argument(1, "12"))
UNROLL, REMAT = argument(2, "scan") == "unroll", argument(3, "keep") == "remat"
SCORED = argument(4, "scored") == "scored"
LAYERS, D, F, H, KV, HD, V, B, L = 4, 256, 768, 4, 2, 64, 4096, 8, 256
MASK, EPS, LR, B1, B2, DECAY = V - 1, 1e-6, 1e-3, 0.9, 0.95, 0.1
# As long as the Rust side's list: whole chunks of 512.
LIST = 1536


def rms_norm(x, weight):
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + EPS) * weight


def rotate(x, cos, sin):
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def layer(x, w, cos, sin):
    h = rms_norm(x, w["n1"])
    q = rms_norm((h @ w["q"].T).reshape(B, L, H, HD), w["qn"])
    k = rms_norm((h @ w["k"].T).reshape(B, L, KV, HD), w["kn"])
    v = (h @ w["v"].T).reshape(B, L, KV, HD)
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    x = x + jax.nn.dot_product_attention(q, k, v).reshape(B, L, H * HD) @ w["o"].T
    h = rms_norm(x, w["n2"])
    return x + (jax.nn.silu(h @ w["gate"].T) * (h @ w["up"].T)) @ w["down"].T


def loss_of(params, noised, places, targets, weights, cos, sin):
    x = params["embedding"][noised]
    one = partial(layer, cos=cos, sin=sin)
    one = jax.checkpoint(one) if REMAT else one
    if UNROLL:
        for at in range(LAYERS):
            x = one(x, {name: w[at] for name, w in params["layers"].items()})
    else:
        x, _ = jax.lax.scan(lambda x, w: (one(x, w), None), x, params["layers"])
    h = rms_norm(x, params["norm"]).reshape(B * L, D)
    logits = h[places] @ params["embedding"].T
    at_target = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - at_target
    return (losses * weights).sum() / (B * L)


@partial(jax.jit, donate_argnums=(0, 1, 2))
def step(params, first, second, number, batch, cos, sin):
    loss, grads = jax.value_and_grad(loss_of)(params, *batch, cos, sin)
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(grads)))
    clip = jnp.minimum(1.0, 1.0 / (norm + 1e-6))
    grads = jax.tree.map(lambda g: g * clip, grads)
    first = jax.tree.map(lambda m, g: B1 * m + (1 - B1) * g, first, grads)
    second = jax.tree.map(lambda v, g: B2 * v + (1 - B2) * g * g, second, grads)
    c1, c2 = 1 - B1**number, 1 - B2**number

    def new(p, m, v):
        keep = 1 - LR * DECAY if p.ndim > 1 else 1.0
        return p * keep - LR / c1 * m / (jnp.sqrt(v) / jnp.sqrt(c2) + 1e-8)

    return jax.tree.map(new, params, first, second), first, second, loss, norm


def main() -> None:
    draw = np.random.default_rng(7)
    normal = lambda *shape: jnp.asarray(draw.normal(0, 0.02, shape).astype(np.float32))
    shapes = {"q": (H * HD, D), "k": (KV * HD, D), "v": (KV * HD, D), "o": (D, H * HD)}
    shapes |= {"gate": (F, D), "up": (F, D), "down": (D, F)}
    layers = {name: normal(LAYERS, *shape) for name, shape in shapes.items()}
    layers |= {name: jnp.ones((LAYERS, D)) for name in ("n1", "n2")}
    layers |= {name: jnp.ones((LAYERS, HD)) for name in ("qn", "kn")}
    params = {"embedding": normal(V, D), "norm": jnp.ones(D), "layers": layers}
    first, second = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
    angles = np.outer(np.arange(L), 1e6 ** (-np.arange(0, HD, 2) / HD))[:, None, :]
    cos, sin = (jnp.asarray(f(angles), jnp.float32) for f in (np.cos, np.sin))
    clean = draw.integers(0, MASK, (B, L))
    noised = np.where(draw.random((B, L)) < 0.5, MASK, clean)
    # The output before a token predicts it.
    tokens = [i for i in range(B * L) if i % L > 0 and noised.flat[i] == MASK]
    if SCORED:
        places, targets = (np.zeros(LIST, np.int32) for _ in range(2))
        weights = np.zeros(LIST, np.float32)
        assert len(tokens) <= LIST
        places[: len(tokens)] = np.array(tokens) - 1
        targets[: len(tokens)] = clean.flat[tokens]
        weights[: len(tokens)] = 2.0
    else:
        places = np.arange(B * L, dtype=np.int32)
        targets = np.roll(clean.flatten(), -1).astype(np.int32)
        weights = np.zeros(B * L, np.float32)
        weights[np.array(tokens) - 1] = 2.0
    batch = tuple(jnp.asarray(x) for x in (noised.astype(np.int32), places, targets, weights))
    for number in range(STEPS):
        wall, cpu = time.perf_counter(), time.process_time()
        values = step(params, first, second, jnp.float32(number + 1), batch, cos, sin)
        params, first, second, loss, norm = jax.block_until_ready(values)
        times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps({"step": number, **times, "loss": float(loss), "norm": float(norm)}))


main()
