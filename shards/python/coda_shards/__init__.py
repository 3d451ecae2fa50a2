"""CODA's shard sets in Python: open, read, order, split, resume, noise. No Rust is involved.

    from coda_shards import Batches, Coda, ShardSet

    shards = ShardSet("shards/my")
    for batch in Batches(shards, seed=17, batch_size=16, epochs=1):
        noised = Coda(p1=0.01, p2=0.01, p3=0.01)(batch)

`ShardSet` maps a set and gives rows; `Batches` gives them in the order of training; the functions
of `noise` mask them; `coda_shards.torch` makes tensors of it. `draws`, `order` and `masks` are the
plain account of docs/shard-format.md that judges the Rust side, `verify` the full check of a set.
"""

from coda_shards.errors import ShardError
from coda_shards.feed import Batch, Batches
from coda_shards.noise import (
    Bd3lm,
    BySource,
    Coda,
    CodaNoised,
    Llada,
    Mdlm,
    Noise,
    Noised,
    bd3lm_attention,
)
from coda_shards.order import Order, SourceRows
from coda_shards.rows import Row, Rows
from coda_shards.shard_set import ShardSet

__all__ = [
    "Batch",
    "Batches",
    "Bd3lm",
    "BySource",
    "Coda",
    "CodaNoised",
    "Llada",
    "Mdlm",
    "Noise",
    "Noised",
    "Order",
    "Row",
    "Rows",
    "ShardError",
    "ShardSet",
    "SourceRows",
    "bd3lm_attention",
]
