"""What a check says when two accounts of the same thing differ."""

from __future__ import annotations

from collections.abc import Sequence


class Difference(Exception):
    """Two accounts differ; the message says where, and what each of them says."""


def same(what: str, found: object, wanted: object) -> None:
    """Raises a Difference that names `what` unless both are equal."""
    if found != wanted:
        raise Difference(f"{what}: found {shorten(found)}, expected {shorten(wanted)}")


def same_sequence(what: str, found: Sequence[object], wanted: Sequence[object]) -> None:
    """As `same`, and names the first place where two sequences part."""
    for place, (left, right) in enumerate(zip(found, wanted)):
        if left != right:
            raise Difference(
                f"{what}: item {place} is {shorten(left)}, expected {shorten(right)}"
                f" ({len(found)} items, expected {len(wanted)})"
            )
    same(f"{what}: number of items", len(found), len(wanted))


def same_text(what: str, found: str, wanted: str) -> None:
    """As `same`, byte for byte, and shows the surroundings of the first byte that differs."""
    left, right = found.encode(), wanted.encode()
    if left == right:
        return
    pairs = enumerate(zip(left, right))
    place = next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))
    near = slice(max(0, place - 20), place + 20)
    raise Difference(
        f"{what}: byte {place} differs ({len(left)} bytes, expected {len(right)}):"
        f" found {left[near]!r}, expected {right[near]!r}"
    )


def holds(what: str, fact: bool) -> None:
    """Raises a Difference that says `what` unless it is a fact."""
    if not fact:
        raise Difference(f"{what}: does not hold")


def shorten(value: object, limit: int = 200) -> str:
    """A value as text that fits a line of output."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}…"
