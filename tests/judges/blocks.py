"""Sampling in blocks over keys and values that are kept (method §6, after Fast-dLLM), over PyTorch.

At temperature 0, with `maskgit_plus`. Ours, and not Fast-dLLM's: every block is as wide as its length
says, so that the last one begins further left, and a window begins one position before its block, where
the output for the block's first token is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from model import Shape, Weights, forward
from sampler import Reals, Settings, distribution
from torch import Tensor


@dataclass(frozen=True)
class Blocks:
    """What `coda-trainer sample` takes."""

    length: int
    cache: str
    threshold: float | None = None
    factor: float | None = None


@dataclass
class Cached:
    """A model with the keys and values of its last forwards."""

    weights: Weights
    shape: Shape

    def fresh(self) -> list[tuple[Tensor, Tensor]]:
        """A memory with nothing in it."""
        return []

    def window(self, ids: list[int], start: int, end: int, memory: list[tuple[Tensor, Tensor]]) -> Reals:
        """The outputs of the positions from `start` to `end`."""
        part = torch.tensor([ids[start:end]])
        with torch.no_grad():
            out = forward(self.weights, self.shape, part, start=start, memory=memory)
        return np.asarray(out[0].numpy())


def accepted(probabilities: list[float], blocks: Blocks) -> list[int]:
    """The indices that a step takes."""
    order = sorted(range(len(probabilities)), key=lambda i: (-probabilities[i], i))
    if blocks.threshold is not None:
        # At 1 it is one token a step.
        taken = [i for i in order if blocks.threshold < 1 and probabilities[i] >= blocks.threshold]
    else:
        assert blocks.factor is not None
        fits = [n for n in range(1, len(order) + 1)
                if probabilities[order[n - 1]] >= 1 - blocks.factor / (n + 1)]  # fmt: skip
        taken = order[: max(fits, default=0)]
    _clear(sorted(probabilities, reverse=True), blocks)
    return sorted(taken or order[:1])


def _clear(probabilities: list[float], blocks: Blocks) -> None:
    """No outcome may hang on the last bits of a float."""
    for n, probability in enumerate(probabilities, 1):
        edge = blocks.threshold if blocks.threshold is not None else 1 - (blocks.factor or 0) / (n + 1)
        assert edge == 1 or abs(probability - edge) > 1e-6, f"an unclear edge: {probability}, {edge}"


def in_blocks(ids: list[int], model: Cached, blocks: Blocks) -> Iterator[list[tuple[int, int]]]:
    """What each step reveals: (position, token)."""
    mask, length = model.shape.mask, len(ids)
    width = min(blocks.length, length)
    while mask in ids:
        start = min(ids.index(mask), length - width)
        end, memory, first = start + width, model.fresh(), True
        while mask in ids[start:end]:
            if first or blocks.cache == "none":
                left, right = 0, length
            else:
                left, right = max(start - 1, 0), length if blocks.cache == "prefix" else end
            outputs = model.window(ids, left, right, memory)
            first = False
            positions = [p for p in range(start, end) if ids[p] == mask]
            tokens, probabilities = [], []
            for position in positions:
                logits = np.array(outputs[max(position - 1, 0) - left], dtype=np.float64)
                logits[mask] = -np.inf
                shares = distribution(logits, Settings(1, "maskgit_plus"))
                tokens.append(int(np.argmax(shares)))
                probabilities.append(float(shares[tokens[-1]]))
            chosen = accepted(probabilities, blocks)
            for index in chosen:
                ids[positions[index]] = tokens[index]
            yield [(positions[index], tokens[index]) for index in chosen]
