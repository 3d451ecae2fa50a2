"""Who may attend to whom when BD3LM is trained: one pass over the noised and the clean row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coda_shards.noise.base import Flags


def bd3lm_attention(
    length: int, block_size: int, segments: NDArray[np.integer] | None = None
) -> Flags:
    """BD3LM's mask (arXiv 2503.09573, section 3.2): `[2L, 2L]`, true where a query (first axis) may
    attend to a key.

    The model is given `noised` followed by `clean`, each with the positions `0..L`. A block of
    `block_size` positions of the noised half sees itself (block-diagonal) and the clean blocks
    before it (offset block-causal); a block of the clean half sees the clean blocks up to itself
    (block-causal). So what is predicted for a block knows its own masked text and the clean text
    before it, for all blocks at once. The last block may be shorter.

    `segments`, `[n, L]` as `Rows.segment_ids` gives them, keeps documents apart as well; then the
    mask is `[n, 2L, 2L]`. Blocks are counted from the start of the row, not of the document. Every
    position sees itself, so no row of the mask is empty.
    """
    if length < 1 or block_size < 1:
        raise ValueError(
            f"length is {length} and block_size {block_size}, expected at least 1 each"
        )
    block = np.arange(length) // block_size
    query, key = block[:, None], block[None, :]
    earlier = query > key
    mask: Flags = np.block([[query == key, earlier], [np.zeros_like(earlier), query >= key]])
    if segments is None:
        return mask
    if segments.ndim != 2 or segments.shape[1] != length:
        raise ValueError(f"segments have the shape {segments.shape}, expected [n, {length}]")
    twice = np.concatenate([segments, segments], axis=1)
    together: Flags = twice[:, :, None] == twice[:, None, :]
    return mask & together
