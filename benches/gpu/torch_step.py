"""The same training step in PyTorch: transformers' Qwen3 in both directions, SDPA, torch.compile, fused AdamW.

What a careful user would write: the head sees the scored positions alone, weights are f32 with bf16
autocast (`--weights f32`, as the engine has it) or bf16 throughout (`--weights bf16`), nothing is computed
again in the backward pass unless `--checkpointing`. Layers are compiled one by one, which PyTorch's own guide
recommends for models of equal layers; `--compile whole` compiles the model as one (minutes), `none` nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from torch.nn import functional as F
from transformers import Qwen3Config, Qwen3Model

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Denoiser(torch.nn.Module):
    """The model with a head of its own; the loss over scored positions, 1/sigma being 2 throughout."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.model = Qwen3Model(config)
        self.head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        for layer in self.model.layers:
            layer.self_attn.is_causal = False

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        # Four dimensions: transformers takes such a mask as it is, and None as a causal one.
        hidden = self.model(input_ids=ids, attention_mask={"full_attention": None}).last_hidden_state
        return self.loss(hidden.flatten(0, 1)[positions], targets) * 2 / ids.numel()

    def loss(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.head(hidden).float(), targets, reduction="sum")


def measure(length: int, args: argparse.Namespace) -> dict[str, object]:
    """Seconds of a step at one length of rows."""
    torch.manual_seed(17)
    config = Qwen3Config(
        vocab_size=151936, hidden_size=2048, intermediate_size=6144, num_hidden_layers=args.layers,
        num_attention_heads=16, num_key_value_heads=8, head_dim=128, rope_theta=1e6,
        max_position_embeddings=8192, tie_word_embeddings=False, attn_implementation="sdpa", use_cache=False,
    )  # fmt: skip
    with torch.device(DEVICE):
        model = Denoiser(config)
    if args.weights == "bf16":
        model = model.bfloat16()
    if args.checkpointing:
        model.model.gradient_checkpointing_enable()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    rows = max(1, args.tokens // length)
    tokens = rows * length
    draws = torch.Generator(DEVICE).manual_seed(1)
    passes = []
    for _ in range(args.passes):
        clean = torch.randint(1, 151936, (rows, length), device=DEVICE, generator=draws)
        scored = torch.randperm(tokens, device=DEVICE, generator=draws)[: tokens // 2].sort().values
        scored = scored[scored > 0]
        scored = scored[: tokens // 2 - 8]
        noised = clean.clone().flatten()
        noised[scored] = 0
        passes.append((noised.view(rows, length), scored - 1, clean.flatten()[scored]))
    run = torch.compile(model) if args.compile == "whole" else model
    if args.compile == "layers":
        for layer in model.model.layers:
            layer.compile()
        model.loss = torch.compile(model.loss)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=DEVICE)
        for ids, positions, targets in passes:
            with torch.autocast(DEVICE, torch.bfloat16, enabled=args.weights == "f32"):
                value = run(ids, positions, targets) / args.passes
            value.backward()
            total += value.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        return total

    for _ in range(args.warm_up):
        loss = step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(args.timed):
        started = time.perf_counter()
        loss = step()
        loss.item()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    share = len(passes[0][1]) / tokens
    body = args.layers * (2 * 2048 * 3072 + 3 * 2048 * 6144)
    attention = 4 * length * 2048 * args.layers
    flops = 3 * (2 * body + attention + share * 2 * 2048 * 151936) * tokens * args.passes / median
    return {
        "length": length, "rows": rows, "passes": args.passes, "weights": args.weights,
        "compile": args.compile, "median": median, "seconds": seconds,
        "tokens_per_second": tokens * args.passes / median, "flops": flops, "mfu": flops / args.peak,
        "memory": torch.cuda.max_memory_allocated(), "loss": loss.item(),
    }  # fmt: skip


def main() -> None:
    """One JSON object a line, one line a length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", default="1024,2048,4096,8192")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--timed", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--weights", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--compile", choices=["layers", "whole", "none"], default="layers")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--peak", type=float, default=989.4e12)
    args = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    for length in map(int, args.lengths.split(",")):
        print(json.dumps(measure(length, args)), flush=True)
        torch._dynamo.reset()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
