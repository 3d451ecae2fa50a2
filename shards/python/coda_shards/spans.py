"""The spans of a row's text, from docs/shard-format.md alone.

The text of a row is the bytes of its tokens, so everybody who has the rows and the tokenizer can find
its lines and its pairs of brackets again. `verify` does; readers take what the shards say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

KINDS = ("lines", "brackets")
"""The kinds of spans; the column `kind` holds their places here."""

Span = tuple[int, int, int]
"""Start, length and kind."""

_OPENING = {ord(")"): ord("("), ord("]"): ord("["), ord("}"): ord("{")}
_QUOTES = b"\"'`"


def kinds_of(spans: Any) -> tuple[str, ...]:
    """The kinds that a manifest or an index names: one as a text, several as a list."""
    named = (spans,) if isinstance(spans, str) else tuple(spans)
    if not named or not set(named) <= set(KINDS):
        raise ValueError(f"{spans!r} are no kinds of spans, which are {' and '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in named)


def token_bytes(tokenizer: dict[str, Any]) -> dict[int, bytes]:
    """The bytes of every token of a byte-level `tokenizer.json`. Control tokens are left out."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable}
    byte_of.update({chr(256 + place): byte for place, byte in enumerate(others)})
    table = {
        number: bytes(byte_of[letter] for letter in token)
        for token, number in tokenizer["model"]["vocab"].items()
        if all(letter in byte_of for letter in token)
    }
    for added in tokenizer.get("added_tokens", ()):
        text = added["content"]
        table.pop(added["id"], None)
        if not added.get("special") and not (text.startswith("<") and text.endswith(">")):
            table[added["id"]] = text.encode()
    return table


def spans_of(
    tokens: Sequence[int], segments: Sequence[int], kinds: Sequence[str], table: dict[int, bytes]
) -> list[Span]:
    """The spans of a row. `tokens` are those before the padding."""
    spans: set[Span] = set()
    for start, end in pairwise([*segments, len(tokens)]):
        texts = [table.get(token, b"") for token in tokens[start:end]]
        if "lines" in kinds:
            spans.update((start + first, length, 0) for first, length in _lines(texts))
        if "brackets" in kinds:
            spans.update((start + first, length, 1) for first, length in _brackets(texts))
    return sorted(
        (span for span in spans if span[1] >= 2), key=lambda span: (span[0], -span[1], span[2])
    )


def _lines(texts: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """A token belongs to the line in which its first byte lies."""
    number, lines = 0, []
    for text in texts:
        lines.append(number)
        number += text.count(b"\n")
    for line in sorted(set(lines)):
        yield lines.index(line), lines.count(line)


def _brackets(texts: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Pairs, from the token with the first byte to the one with the last."""
    places: list[tuple[int, int]] = []  # bytes with the places of their tokens
    for place, text in enumerate(texts):
        if not text:  # a control token: nothing reaches over it
            yield from _pairs(places)
            places = []
        places.extend((byte, place) for byte in text)
    yield from _pairs(places)


def _pairs(places: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    still_open: list[tuple[int, int]] = []
    text = bytes(byte for byte, _ in places)
    for at in _outside_strings(text):
        byte, place = places[at]
        if byte not in _OPENING:
            still_open.append((byte, place))
            continue
        partners = [i for i, (kind, _) in enumerate(still_open) if kind == _OPENING[byte]]
        if partners:
            first = still_open[partners[-1]][1]
            del still_open[partners[-1] :]
            yield first, place - first + 1


def _outside_strings(text: bytes) -> Iterator[int]:
    """Where the brackets are that count."""
    at = 0
    while at < len(text):
        end = _string_end(text, at) if text[at] in _QUOTES else None
        if end is not None:
            at = end + 1
            continue
        if text[at] in b"()[]{}":
            yield at
        at = _after(text, at)


def _after(text: bytes, at: int) -> int:
    """The next byte that is looked at: what follows a backslash on its line is nothing but text."""
    escapes = text[at] == ord("\\") and at + 1 < len(text) and text[at + 1] != ord("\n")
    return at + 2 if escapes else at + 1


def _string_end(text: bytes, at: int) -> int | None:
    """Where the string ends that the quote at `at` begins, if it begins one."""
    quote, apostrophe = text[at], text[at] == ord("'")
    if apostrophe and _is_word(text, at - 1):
        prefix = text[at - 1] in b"bfruBFRUL" and not _is_word(text, at - 2)
        if not prefix:
            return None
    end = at + 1
    while end < len(text) and text[end] != ord("\n"):
        if text[end] == quote and not (apostrophe and _is_word(text, end + 1)):
            return end
        end = _after(text, end)
    return None


def _is_word(text: bytes, at: int) -> bool:
    if not 0 <= at < len(text):
        return False
    return text[at] > 127 or chr(text[at]).isalnum() or text[at] == ord("_")


def need(kinds: Sequence[str], noted: Sequence[str]) -> None:
    """Blocks can follow only what the rows have noted."""
    for kind in kinds:
        if kind not in noted:
            raise ValueError(
                f"mask_blocks is to follow {kind}, which the rows of this shard set do not have"
                f" noted: set `data.spans: {kind}` and ingest again"
            )
