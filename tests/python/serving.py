"""`coda-serve` asked by OpenAI's own Python client."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openai
from coda_shards.difference import Difference, same

CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<|mask|>")
WIDTH, INNER, HEADS, KEYS, HEAD, LAYERS, VOCABULARY = 32, 48, 4, 2, 16, 2, 262


def write_model(folder: Path) -> None:
    """Random weights, and a tokenizer with a token for each byte."""
    folder.mkdir(parents=True)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    names = {byte: chr(byte) for byte in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    added = [
        {"id": 256 + i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": "think" not in name}
        for i, name in enumerate(CONTROLS)
    ]  # fmt: skip
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {"type": "BPE", "vocab": {names[byte]: byte for byte in range(256)}, "merges": []}
    whole = {"version": "1.0", "added_tokens": added, "pre_tokenizer": level, "decoder": level}
    (folder / "tokenizer.json").write_text(json.dumps(whole | {"model": model}))
    config = {
        "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "intermediate_size": INNER,
        "num_attention_heads": HEADS, "num_key_value_heads": KEYS, "head_dim": HEAD,
        "vocab_size": VOCABULARY, "rope_theta": 1e4, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False, "mask_token_id": 261, "model_type": "qwen3",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [258, 256]}))
    layer = {
        "input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,),
        "self_attn.q_norm": (HEAD,), "self_attn.k_norm": (HEAD,),
        "self_attn.q_proj": (HEADS * HEAD, WIDTH), "self_attn.k_proj": (KEYS * HEAD, WIDTH),
        "self_attn.v_proj": (KEYS * HEAD, WIDTH), "self_attn.o_proj": (WIDTH, HEADS * HEAD),
        "mlp.gate_proj": (INNER, WIDTH), "mlp.up_proj": (INNER, WIDTH), "mlp.down_proj": (WIDTH, INNER),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for number in range(LAYERS):
        shapes |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    shapes |= {"model.norm.weight": (WIDTH,), "lm_head.weight": (VOCABULARY, WIDTH)}
    draws, header, parts, at = np.random.default_rng(3), {}, [], 0
    for name, shape in shapes.items():
        values = np.ones(shape) if "norm" in name else draws.normal(0, 0.16, shape)
        parts.append(values.astype("<f4").tobytes())
        end = at + len(parts[-1])
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + b"".join(parts))


@contextmanager
def server(program: Path, model: Path, key: str | None) -> Iterator[str]:
    """A running server's address, with a key or open; it has to end with 0 on SIGTERM."""
    command = [str(program), "--checkpoint", str(model), "--model", "tiny", "--listen", "127.0.0.1:0"]
    keys = {"CODA_API_KEY": key} if key else {}
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=keys)
    assert started.stderr is not None
    try:
        told = (line for line in started.stderr if " at http" in line)
        yield next(told).split(" at ")[-1].strip()
    finally:
        started.terminate()
        code = started.wait(30)
    same("exit code on SIGTERM", code, 0)


def check_serving(program: Path, work: Path) -> str:
    """What the client understands: answers, streams, refusals, and fifty requests at once."""
    write_model(work / "tiny")
    with server(program, work / "tiny", "secret") as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0)
        same("models", [model.id for model in client.models.list()], ["tiny"])
        answers(client)
        chats(client)
        refusals(client, address)
        count = asyncio.run(at_once(address))
    return f"OpenAI's client {openai.__version__}: completions, chats, streams, refusals, {count} at once"


def answers(client: openai.OpenAI) -> None:
    """Completions, holes, several choices, and the same as a stream."""
    whole = client.completions.create(model="tiny", prompt="fn main", max_tokens=20, seed=7, n=2)
    same("choices", [choice.index for choice in whole.choices], [0, 1])
    assert whole.usage is not None
    same("prompt tokens", whole.usage.prompt_tokens, 7)
    texts = ["", ""]
    for chunk in client.completions.create(
        model="tiny", prompt="fn main", max_tokens=20, seed=7, n=2, stream=True
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    same("a stream's texts", texts, [choice.text for choice in whole.choices])
    hole = client.completions.create(model="tiny", prompt="a(", suffix=")", max_tokens=6, temperature=0)
    same("why a hole ends", hole.choices[0].finish_reason, "stop")
    lengths(client)


def lengths(client: openai.OpenAI) -> None:
    """Holes of several lengths as a stream: how each came out, and the text of the surest."""
    asked: dict[str, Any] = {"prompt": "a(", "suffix": ")", "temperature": 0, "model": "tiny"}
    extra = {"coda": {"span_lengths": [2, 5, 9]}}
    whole = client.completions.create(**asked, extra_body=extra)
    text, tried = "", []
    for chunk in client.completions.create(**asked, stream=True, extra_body=extra):
        text += "".join(choice.text for choice in chunk.choices)
        told = (chunk.model_extra or {}).get("coda") or {}
        tried += [told["length"]["span"]] if "length" in told else []
    same("the surest length's text", text, whole.choices[0].text)
    same("lengths that were told", sorted(tried), [2, 5, 9])


def chats(client: openai.OpenAI) -> None:
    """A chat, whole and as a stream with what was used."""
    whole = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Hi"}], max_tokens=20, seed=5
    )
    text, used = "", None
    for chunk in client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Hi"}], max_tokens=20, seed=5, stream=True,
        stream_options={"include_usage": True},
    ):  # fmt: skip
        used = chunk.usage or used
        for choice in chunk.choices:
            text += choice.delta.content or ""
    same("a chat's stream", text, whole.choices[0].message.content)
    same("what was used", used, whole.usage)


def refusals(client: openai.OpenAI, address: str) -> None:
    """Each refusal is the client's own exception."""
    wrong = openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0)
    for kind, ask in (
        (openai.AuthenticationError, lambda: wrong.models.list()),
        (openai.NotFoundError, lambda: client.models.retrieve("other")),
        (openai.BadRequestError, lambda: client.completions.create(
            model="tiny", prompt="a", logprobs=1)),
        (openai.BadRequestError, lambda: client.completions.create(
            model="tiny", prompt="a", max_tokens=1_000_000)),
    ):  # fmt: skip
        try:
            ask()
        except kind:
            continue
        raise Difference(f"no {kind.__name__}")


async def at_once(address: str) -> int:
    """Fifty requests at once get what each gets alone."""
    client = openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0)

    async def ask(number: int) -> str:
        answer = await client.completions.create(
            model="tiny", prompt=f"{number}: ", max_tokens=10, seed=number
        )
        return answer.choices[0].text

    together = await asyncio.gather(*(ask(number) for number in range(50)))
    for number in range(50):
        same(f"request {number}", together[number], await ask(number))
    return len(together)
