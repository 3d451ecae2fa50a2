"""From rows back to documents, held against the text that went in."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from corpus import Pair
from coda_shards import Row, ShardSet
from coda_shards.difference import holds, same, same_sequence, same_text


class Decoder:
    """The tokenizer of a set, as Python reads it."""

    def __init__(self, directory: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        # Control tokens that are spelled in a document are plain text, `<think>` among them, which
        # tokenizer files do not mark as special.
        tokens = self._tokenizer.get_added_tokens_decoder().values()
        self._tokenizer.add_special_tokens([t.content for t in tokens if t.content[0] == "<"])
        self._tokenizer.encode_special_tokens = True

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens spelled out."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def normalized(text: str) -> str:
    """What the tokenizer makes of a text before it cuts it: the only change on the way."""
    return unicodedata.normalize("NFC", text)


def check_packed(shards: ShardSet, name: str, texts: Sequence[str]) -> None:
    """The rows of a packed source hold exactly these documents, in order."""
    rows = shards.of_source(name)
    decoder = Decoder(shards.directory)
    documents, starts = _documents(rows, shards.index["specials"]["eos"])
    same(f"{name}: documents", len(documents), len(texts))
    source = next(s for s in shards.index["sources"] if s["name"] == name)
    same(f"{name}: documents in the index", source["documents"], len(texts))
    for number, (ids, text) in enumerate(zip(documents, texts)):
        where = f"{name}, document {number}"
        same_text(where, decoder.decode(ids), normalized(text))
        same_sequence(f"{where}: ids", ids, decoder.encode(text))

    length = shards.index["row_length"]
    for place, row in enumerate(rows):
        inside = range(place * length + 1, place * length + row.shape.valid_len)
        wanted = [0, *(start - place * length for start in inside if start in starts)]
        same(f"row {row.number}: segments", row.segments.tolist(), wanted)


def _documents(rows: Sequence[Row], eos: int) -> tuple[list[list[int]], set[int]]:
    """The documents without their end tokens, and where they start in the joined rows."""
    documents: list[list[int]] = [[]]
    starts = {0}
    position = 0
    for row in rows:
        for token in row.tokens[: row.shape.valid_len].tolist():
            position += 1
            if token == eos:
                documents.append([])
                starts.add(position)
            else:
                documents[-1].append(token)
    same("ids after the last end token", documents.pop(), [])
    return documents, starts


def check_pairs(shards: ShardSet, name: str, pairs: Sequence[Pair]) -> None:
    """Each row of a post-training source holds one pair through the chat template."""
    rows = shards.of_source(name)
    decoder = Decoder(shards.directory)
    same(f"{name}: rows", len(rows), len(pairs))
    for row, pair in zip(rows, pairs):
        where = f"{name}, row {row.number}"
        prompt = f"<|im_start|>user\n{pair.instruction}<|im_end|>\n<|im_start|>assistant"
        # The template takes line feeds off an answer's start.
        output = pair.output.lstrip("\n")
        answer = f"\n<think>\n\n</think>\n\n{output}<|im_end|>\n"
        ids = row.tokens[: row.shape.valid_len].tolist()
        cut = row.shape.prefix_len
        same_text(f"{where}: prompt", decoder.decode(ids[:cut]), normalized(prompt))
        same_text(f"{where}: answer", decoder.decode(ids[cut:]), normalized(answer))
        same(f"{where}: segments", row.segments.tolist(), [0])
        spans = row.shape.maskable
        holds(f"{where}: maskable begins at the answer", all(start >= cut for start, _ in spans))
