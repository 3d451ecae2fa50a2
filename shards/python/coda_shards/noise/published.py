"""The noise of three published models, with keys of our own (docs/shard-format.md).

Prompts are kept: only the maskable positions behind `prefix_len` are masked, and pads where they
are to be scored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coda_shards.draws import threshold
from coda_shards.feed import Batch
from coda_shards.noise.base import Noised, answers
from coda_shards.streams import below, thresholds

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Llada:
    """LLaDA (arXiv 2502.09992): a row's tokens are masked with one probability
    `p = eps + (1 - eps) · u`, and weigh `1 / p`.

    `short_share` of the rows without a prompt end at a length drawn from `1..=L`, as 1 % of them
    do in LLaDA's pre-training, so that the model meets short texts: what lies behind is padding
    that is neither masked nor scored, and that `valid_len` tells.
    """

    eps: float = 1e-3
    score_pads: bool = True
    short_share: float = 0.0

    def __post_init__(self) -> None:
        _check(self.eps, 1.0)
        if not 0.0 <= self.short_share <= 1.0:
            raise ValueError(f"short_share is {self.short_share}, expected from 0 to 1")

    def __call__(self, batch: Batch) -> Noised:
        """The batch, noised."""
        p = self.eps + (1.0 - self.eps) * _units(batch, "LladaTime", 1, False)
        noised = _noised(batch, "LladaMask", p, 1.0 / p, self.score_pads)
        return self._cut(batch, noised) if self.short_share > 0.0 else noised

    def _cut(self, batch: Batch, noised: Noised) -> Noised:
        """Ends some rows early."""
        length = batch.rows.row_length
        gate, word = batch.streams.firsts(["LladaShortGate", "LladaShortLength"])
        drawn = 1 + (word * np.uint64(length) >> np.uint64(32)).astype(np.int64)
        short = (gate < threshold(self.short_share)) & (batch.rows.prefix_len == 0)
        ends = np.where(short, drawn, length)
        behind = np.arange(length) >= ends[:, None]
        pad = np.uint32(batch.specials.pad)
        return replace(
            noised,
            clean=np.where(behind, pad, noised.clean),
            noised=np.where(behind, pad, noised.noised),
            masked=noised.masked & ~behind,
            weight=np.where(behind, np.float32(0.0), noised.weight),
            valid_len=np.minimum(noised.valid_len, ends),
        )


@dataclass(frozen=True)
class Mdlm:
    """MDLM (arXiv 2406.07524) with its log-linear schedule: at time `t` a token is masked with
    the probability `(1 - noise_eps) · t`, and weighs `sigma'(t) / (exp(sigma(t)) - 1) = 1 / t`.

    `stratified` spreads the times evenly over the global batch, which makes the loss less noisy.
    """

    sampling_eps: float = 1e-3
    noise_eps: float = 1e-3
    stratified: bool = True
    score_pads: bool = True

    def __post_init__(self) -> None:
        _check(self.sampling_eps, 1.0)
        _check(1.0 - self.noise_eps, 1.0)

    def __call__(self, batch: Batch) -> Noised:
        """The batch, noised."""
        units = _units(batch, "MdlmTime", 1, self.stratified)
        time = self.sampling_eps + (1.0 - self.sampling_eps) * units
        p = (1.0 - self.noise_eps) * time
        return _noised(batch, "MdlmMask", p, 1.0 / time, self.score_pads)


@dataclass(frozen=True)
class Bd3lm:
    """BD3LM (arXiv 2503.09573): each block of `block_size` positions has a time of its own in
    `[t_min, t_max]`, the clipped range that the paper tunes; `p = t`, weight `1 / t`.

    `stratified` spreads the times evenly over the blocks of the global batch. The model is trained
    on the noised and the clean row together, under the mask of `attention.bd3lm_attention`.
    """

    block_size: int
    t_min: float = 1e-3
    t_max: float = 1.0
    stratified: bool = True
    score_pads: bool = True

    def __post_init__(self) -> None:
        _check(self.t_min, self.t_max)
        if self.block_size < 1:
            raise ValueError(f"block_size is {self.block_size}, expected at least 1")

    def __call__(self, batch: Batch) -> Noised:
        """The batch, noised; `sigma` is `[n, blocks]`, the last block may be shorter."""
        blocks = -(-batch.rows.row_length // self.block_size)
        units = _units(batch, "Bd3lmTime", blocks, self.stratified)
        time = self.t_min + (self.t_max - self.t_min) * units
        return _noised(batch, "Bd3lmMask", time, 1.0 / time, self.score_pads, self.block_size)


def _check(low: float, high: float) -> None:
    if not 0.0 < low <= high <= 1.0:
        raise ValueError(f"a probability is {low} or {high}, expected 0 < {low} <= {high} <= 1")


def _units(batch: Batch, purpose: str, per_row: int, stratified: bool) -> Reals:
    """`[n, per_row]` numbers in [0, 1), each in a stratum of its own of the global batch or not."""
    words = batch.streams.words(purpose, per_row)
    if not stratified:
        return words / 2.0**32
    strata = batch.batch_size * per_row
    if strata > 2**20:
        raise ValueError(f"{strata} strata in a global batch: more than 2^20 are not exact in f64")
    number = batch.slot[:, None] * per_row + np.arange(per_row)
    return (number + words / 2.0**32) / strata


def _noised(
    batch: Batch, purpose: str, p: Reals, weight: Reals, pads: bool, repeat: int | None = None
) -> Noised:
    """Masks each position by its own draw; `p` and `weight` are a row's, or of `repeat` ids."""
    rows = batch.rows
    length = rows.row_length
    limits, scale = thresholds(p), weight.astype(np.float32)
    if repeat is not None:
        limits = np.repeat(limits, repeat, axis=1)[:, :length]
        scale = np.repeat(scale, repeat, axis=1)[:, :length]
    masked = below(batch.streams.words(purpose, length), limits) & answers(rows, pads)
    return Noised(
        clean=rows.tokens,
        noised=np.where(masked, np.uint32(batch.specials.mask), rows.tokens),
        masked=masked,
        sigma=p if repeat is not None else p[:, 0],
        weight=masked * scale,
        valid_len=rows.valid_len.astype(np.int64),
    )
