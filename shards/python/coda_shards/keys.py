"""The key of a row, from which all its draws derive. A set stores it; this is how it came about."""

from __future__ import annotations

from blake3 import blake3


def row_key(source: str, number: int) -> int:
    """The key of row `number` of the source of this name."""
    text = b"coda row 1\0" + source.encode() + b"\0" + number.to_bytes(8, "little")
    return int.from_bytes(blake3(text).digest()[:8], "little")
