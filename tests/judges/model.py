"""The model of method §1 and the loss of method §2 in plain PyTorch: the judge of every engine.

Written from the paper and from Qwen3's published shape, in one dtype throughout, with nothing
fused: f64 shows what is right, f32 shows what rounding alone does.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]

NORMS = ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")


@dataclass(frozen=True)
class Shape:
    """A Qwen3-like model; the names are those of a Hugging Face config."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    num_hidden_layers: int
    tie_word_embeddings: bool
    rope_theta: float = 1e6
    rms_norm_eps: float = 1e-6

    @property
    def mask(self) -> int:
        """The mask id: the last row of the embedding."""
        return self.vocab_size - 1

    def config(self) -> dict[str, object]:
        """config.json."""
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            **asdict(self),
            "hidden_act": "silu",
            "attention_bias": False,
            "max_position_embeddings": 8192,
            "mask_token_id": self.mask,
            "eos_token_id": 1,
            "pad_token_id": 0,
            "bos_token_id": 0,
        }

    def layout(self) -> dict[str, tuple[int, ...]]:
        """Every parameter's Hugging Face name with its shape."""
        d, f, h = self.hidden_size, self.intermediate_size, self.head_dim
        query, key = self.num_attention_heads * h, self.num_key_value_heads * h
        layer = {
            "self_attn.q_proj": (query, d),
            "self_attn.k_proj": (key, d),
            "self_attn.v_proj": (key, d),
            "self_attn.o_proj": (d, query),
            "mlp.gate_proj": (f, d),
            "mlp.up_proj": (f, d),
            "mlp.down_proj": (d, f),
            **dict(zip(NORMS, [(d,), (d,), (h,), (h,)])),
        }
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, d)}
        for number in range(self.num_hidden_layers):
            shapes |= {f"model.layers.{number}.{name}.weight": s for name, s in layer.items()}
        shapes["model.norm.weight"] = (d,)
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, d)
        return shapes

    def random(self, seed: int) -> Weights:
        """Random f32 weights; the norms differ from one, so that a forgotten one shows."""
        draws = torch.Generator().manual_seed(seed)
        weights = {}
        for name, shape in self.layout().items():
            values = torch.randn(shape, generator=draws)
            weights[name] = 1 + 0.3 * values if "norm" in name else 0.06 * values
        return weights

    def write(self, folder: Path, weights: Weights) -> None:
        """A Hugging Face directory without a tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(self.config(), indent=2))


def forward(
    weights: Weights,
    shape: Shape,
    ids: Tensor,
    segments: Tensor | None = None,
    start: int = 0,
    memory: list[tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """Logits `[B, L, V]`, unshifted, of noised ids `[B, L]`; segments see only themselves.

    With a memory, ids are those of the positions from `start` on: their keys and values are put into
    it, those of all other positions are read from it, however old they are. An empty one is filled by a
    whole row.
    """
    rows, length = ids.shape
    size, dtype = shape.head_dim, weights["model.norm.weight"].dtype
    # Angles in f32 whatever the dtype, as the models that we follow have them.
    inverse = 1.0 / shape.rope_theta ** (torch.arange(0, size, 2).double() / size)
    angles = torch.outer(torch.arange(start, start + length).float(), inverse.float())
    angles = torch.cat((angles, angles), dim=-1).double()
    cos, sin = angles.cos().float().to(dtype), angles.sin().float().to(dtype)

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + shape.rms_norm_eps) * weight

    def rotated(x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-second, first), dim=-1) * sin

    def heads(x: Tensor, count: int) -> Tensor:
        return x.view(rows, length, count, size).transpose(1, 2)

    group = shape.num_attention_heads // shape.num_key_value_heads
    x = F.embedding(ids, weights["model.embed_tokens.weight"])
    for number in range(shape.num_hidden_layers):
        layer = {
            name.removeprefix(f"model.layers.{number}.").removesuffix(".weight"): weight
            for name, weight in weights.items()
            if name.startswith(f"model.layers.{number}.")
        }
        h = norm(x, layer["input_layernorm"])
        q = heads(h @ layer["self_attn.q_proj"].T, shape.num_attention_heads)
        k = heads(h @ layer["self_attn.k_proj"].T, shape.num_key_value_heads)
        v = heads(h @ layer["self_attn.v_proj"].T, shape.num_key_value_heads)
        q = rotated(norm(q, layer["self_attn.q_norm"]))
        k = rotated(norm(k, layer["self_attn.k_norm"]))
        if memory is not None:
            if len(memory) == number:
                memory.append((k.clone(), v.clone()))
            memory[number][0][:, :, start : start + length] = k
            memory[number][1][:, :, start : start + length] = v
            k, v = memory[number]
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        scores = q @ k.transpose(-1, -2) / size**0.5
        if segments is not None:
            apart = segments[:, None, :, None] != segments[:, None, None, :]
            scores = scores.masked_fill(apart, float("-inf"))
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(rows, length, -1)
        x = x + mixed @ layer["self_attn.o_proj"].T
        h = norm(x, layer["post_attention_layernorm"])
        gate, up = h @ layer["mlp.gate_proj"].T, h @ layer["mlp.up_proj"].T
        x = x + (F.silu(gate) * up) @ layer["mlp.down_proj"].T
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    return norm(x, weights["model.norm.weight"]) @ head.T


def loss(logits: Tensor, clean: Tensor, noised: Tensor, sigma: Tensor, mask: int) -> Tensor:
    """The objective of method §2 over a batch `[B, L]`; `sigma` `[B]`."""
    scored = noised[:, 1:] == mask
    entropy = F.cross_entropy(logits[:, :-1][scored], clean[:, 1:][scored], reduction="none")
    weight = (1 / sigma.to(logits.dtype))[:, None].expand(scored.shape)[scored]
    return (entropy * weight).sum() / clean.numel()


def leaves(weights: Weights, dtype: torch.dtype) -> Weights:
    """The same weights in another dtype, each asking for its gradient."""
    return {name: w.detach().to(dtype).clone().requires_grad_() for name, w in weights.items()}


def distance(ours: Tensor, theirs: Tensor) -> float:
    """The L2 norm of the difference over that of theirs."""
    theirs = theirs.detach().double()
    norm = theirs.norm().item()
    return ((ours.double() - theirs).norm() / (norm if norm > 0 else 1.0)).item()
