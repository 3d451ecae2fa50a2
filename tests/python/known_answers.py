"""Values that are printed elsewhere: in Random123, and in docs/shard-format.md."""

from __future__ import annotations

from coda_shards.difference import same
from coda_shards.draws import philox
from coda_shards.keys import row_key
from coda_shards.order import Order, SourceRows

# Random123, kat_vectors, philox4x32 of ten rounds: counter, key, result.
PHILOX = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip

POSITIONS = [0, 1, 2, 138, 139, 1_000_000, 2**41]
UNWEIGHTED = [(105, 0), (37, 0), (21, 0), (121, 0), (75, 1), (68, 7194), (81, 16173719)]
WEIGHTED = [(35, 0), (101, 0), (108, 0), (131, 2), (113, 2), (62, 3007), (51, 3532045)]


def check_known_answers() -> None:
    """Holds this folder's own draws against them, before they judge anything."""
    for counter, key, result in PHILOX:
        c0, c1, c2, c3 = (int(word, 16) for word in counter.split())
        k0, k1 = (int(word, 16) for word in key.split())
        found = " ".join(f"{int(word[0]):08x}" for word in philox((c0, c1, c2, c3), (k0, k1)))
        same(f"Philox of {counter}", found, result)
    same("key of row 0 of dclm", row_key("dclm", 0), 8852187238498030633)

    for name, weights, wanted in [
        ("without weights", (None, None, None), UNWEIGHTED),
        ("with weights", (1.0, 2.0, 0.5), WEIGHTED),
    ]:
        ranges = zip((0, 100, 140), (100, 40, 7), weights)
        order = Order(17, [SourceRows(*values) for values in ranges], held_out=0.05)
        for position, turn, answer in zip(POSITIONS, order.at(POSITIONS), wanted):
            same(f"order {name}, position {position}", turn, answer)
