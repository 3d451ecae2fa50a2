"""Noise for masked diffusion, drawn from the keys of the rows: CODA's, LLaDA's, MDLM's, BD3LM's.

Each is a function from a `Batch` to a `Noised`, vectorised over the batch. The formulas and the
streams stand in docs/shard-format.md; what is drawn depends on seed, row and epoch, never on how a
batch is split.
"""

from coda_shards.noise.attention import bd3lm_attention
from coda_shards.noise.base import Noise, Noised
from coda_shards.noise.coda import Coda, CodaNoised
from coda_shards.noise.mixed import BySource
from coda_shards.noise.published import Bd3lm, Llada, Mdlm

__all__ = [
    "Bd3lm",
    "BySource",
    "Coda",
    "CodaNoised",
    "Llada",
    "Mdlm",
    "Noise",
    "Noised",
    "bd3lm_attention",
]
