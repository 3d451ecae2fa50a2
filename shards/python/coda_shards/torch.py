"""The shards as a PyTorch `IterableDataset`: noised batches in the order of training.

For example:

    dataset = ShardDataset(Batches(shards, seed=17, batch_size=16), Llada())
    for batch in dataset.loader(num_workers=2):
        ...
        state = dataset.state_dict()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from coda_shards.feed import Batch, Batches
from coda_shards.noise import Noise


class TensorBatch(TypedDict):
    """One batch: `B` rows of `L` tokens, where `B` is this rank's part."""

    input_ids: Tensor
    """`[B, L]` i64: the clean ids, the targets."""
    noised_ids: Tensor
    """`[B, L]` i64: what the model sees."""
    scored: Tensor
    """`[B, L]` bool: the positions of the loss."""
    weight: Tensor
    """`[B, L]` f32: the weight of each position in the loss; 0 where it is not scored."""
    sigma: Tensor
    """`[B]` or `[B, blocks]` f32: the probability of a mask."""
    segments: Tensor
    """`[B, L]` i64: the number of each token's document in its row; -1 at pads."""
    rows: Tensor
    """`[B]` i64: the rows' numbers in the set."""
    position: int
    """The position after this batch."""


class ShardDataset(IterableDataset[TensorBatch]):
    """Batches, not rows: give it to a `DataLoader` with `batch_size=None`, or use `loader`.

    The workers of a DataLoader take the batches in turns, so any number of them gives the same
    sequence. Ranks get their part through `Batches(rank=…, world_size=…)`. The state is the
    position after the last batch that this process was handed; a DataLoader of your own with
    workers does not tell it, then keep `batch["position"]` instead.
    """

    def __init__(self, batches: Batches, noise: Noise) -> None:
        super().__init__()
        self.batches = batches
        self.noise = noise

    def __iter__(self) -> Iterator[TensorBatch]:
        info = get_worker_info()
        if info is not None:
            for batch in self.batches.part(info.id, info.num_workers):
                yield self._tensors(batch)
            return
        for batch in self.batches:
            self.batches.start = batch.position
            yield self._tensors(batch)

    def __len__(self) -> int:
        return len(self.batches)

    def loader(self, num_workers: int = 0, **options: Any) -> Iterator[TensorBatch]:
        """The batches through a DataLoader with so many workers; `state_dict` follows."""
        for batch in DataLoader(self, batch_size=None, num_workers=num_workers, **options):
            self.batches.start = batch["position"]
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where to go on: one integer."""
        return {"position": self.batches.start}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next iteration goes on there."""
        self.batches.start = state["position"]

    def _tensors(self, batch: Batch) -> TensorBatch:
        noised = self.noise(batch)
        segments = batch.rows.segment_ids(noised.valid_len)
        return {
            "input_ids": _ids(noised.clean),
            "noised_ids": _ids(noised.noised),
            "scored": torch.from_numpy(noised.scored),
            "weight": torch.from_numpy(noised.weight),
            "sigma": torch.from_numpy(noised.sigma.astype(np.float32)),
            "segments": _ids(segments),
            "rows": torch.from_numpy(batch.rows.number),
            "position": batch.position,
        }


MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Whether a query may attend to a key, from batch, head, query and key: what FlexAttention takes."""


def bd3lm_mask_mod(length: int, block_size: int) -> MaskMod:
    """The mask of `noise.bd3lm_attention` for `create_block_mask(…, Q_LEN=2 * length, KV_LEN=2 *
    length)` of `torch.nn.attention.flex_attention`, which never lays it out.
    """

    def mask_mod(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        from_noised, to_noised = query < length, key < length
        from_block, to_block = query % length // block_size, key % length // block_size
        same = (from_noised == to_noised) & (from_block == to_block)
        return same | (~to_noised & (from_block > to_block))

    return mask_mod


def _ids(array: np.ndarray[Any, np.dtype[Any]]) -> Tensor:
    return torch.from_numpy(array.astype(np.int64))
