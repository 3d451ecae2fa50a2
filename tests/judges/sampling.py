"""Sampling: fixed logits frozen for the tests of every day, a real model sampled live.

At temperature 0 every step has to be the same; above it, draws are judged by distributions that are
worked out exactly here and drawn often by `trainer/tests/sampling.rs`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blocks import Blocks, Cached, in_blocks
from model import Shape, forward, leaves
from sampler import RANKED, Settings, chosen_sets, confidence, distribution, greedy, positions, share
from tokenizers import Tokenizer
from verdict import Bench, Difference, same

REPOSITORY = Path(__file__).resolve().parents[2]
VOCABULARY, MASK, TABLES = 11, 10, 3

# Masks at the start, at the end, in the middle, everywhere; 9 and 5 do not divide 7.
CANVASES = {
    "continuation": [3, 1, 4] + [MASK] * 9,
    "infilling": [3, MASK, MASK, 1, MASK, 5, MASK, MASK, MASK, 2],
    "all masked": [MASK] * 8,
    "one": [MASK, 2],
}


def tables(seed: int, length: int) -> np.ndarray:
    """Logits [table, position, token] of two decimals, with equal tokens and equal positions."""
    draws = np.random.default_rng(seed)
    made = np.round(draws.normal(0, 2, (TABLES, length, VOCABULARY)), 2)
    made[:, :, 4] = made[:, :, 7]  # tokens that tie: the lower id wins
    if length > 6:
        made[:, 5] = made[:, 2]  # positions that tie: the lower one goes first
        made[:, 2, 1] = made[:, 5, 1] = made[:, 2].max(axis=-1) + 3  # and are sure enough to matter
    return made


def table_model(made: np.ndarray) -> Any:
    """Outputs that depend on how many masks are left, so that steps differ."""
    return lambda ids: made[ids.count(MASK) % TABLES]


def greedy_cases() -> list[dict[str, Any]]:
    """Traces at temperature 0."""
    cases = []
    for number, (name, ids) in enumerate(CANVASES.items()):
        made = tables(number, len(ids))
        for algorithm in RANKED:
            for settings in (
                Settings(1, algorithm),
                Settings(7, algorithm),
                Settings(len(ids), algorithm, eps=0.0),
                Settings(5, algorithm, top_p=0.8),
                Settings(5, algorithm, top_k=3),
                Settings(5, algorithm, top_p=0.7, top_k=2),
            ):
                trace = list(greedy(ids, MASK, table_model(made), settings))
                cases.append({"name": f"{name}, {algorithm}", "ids": ids, "tables": number,
                              "settings": asdict(settings), "trace": trace})  # fmt: skip
    return cases


def token_cases() -> list[dict[str, Any]]:
    """Distributions of one token, under top-p before top-k: the other order has to differ."""
    logits = [2.0, 1.5, 1.2, 0.9, 0.3, 0.1, -0.5, -1.0, -1.3, -2.0, 5.0]
    cases = []
    for temperature, top_p, top_k in (
        (1.0, None, None), (0.7, None, None), (1.0, 0.6, None), (1.0, None, 3), (1.3, 0.7, 4),
        (0.5, 0.9, 2), (2.0, 0.05, None), (1.0, 1.0, 11),
    ):  # fmt: skip
        settings = Settings(1, "entropy", temperature=temperature, top_p=top_p, top_k=top_k)
        found = positions([MASK, 0], MASK, np.array([logits, logits]), settings)[0]
        if top_k == 4:
            best = sorted(logits[:MASK])[-top_k:]
            kept = [logit if logit in best else -np.inf for logit in logits[:MASK]]
            other = distribution(np.array(kept), Settings(1, "entropy", temperature=temperature,
                                                          top_p=top_p))  # fmt: skip
            assert np.count_nonzero(other) < np.count_nonzero(found), "the order must show"
        cases.append({"settings": asdict(settings), "logits": logits, "expected": found.tolist()})
    return cases


def order_cases() -> list[dict[str, Any]]:
    """Which positions are drawn when alg_temp is above 0."""
    length, count = 5, 2
    ids, made = [MASK] * length, np.round(np.random.default_rng(40).normal(0, 1.5, (5, 11)), 2)
    cases = []
    for algorithm in RANKED:
        for temperature in (0.3, 1.5):
            settings = Settings(2, algorithm, alg_temp=temperature)
            found = positions(ids, MASK, made, settings)
            sure = [confidence(p, algorithm, int(np.argmax(p))) for p in found.values()]
            cases.append({"settings": asdict(settings), "ids": ids, "logits": made.tolist(),
                          "expected": chosen_sets(sure, count, temperature)})  # fmt: skip
    return cases


def freeze(folder: Path) -> None:
    """Fixed logits and what has to come of them."""
    lengths = [len(ids) for ids in CANVASES.values()]
    origin = Settings(4, "origin")
    made = {
        "mask": MASK,
        "tables": [tables(number, length).tolist() for number, length in enumerate(lengths)],
        "greedy": greedy_cases(),
        "tokens": token_cases(),
        "orders": order_cases(),
        "origin": {"settings": asdict(origin), "rates": [share(origin, s) for s in range(4)]},
    }
    (folder / "cases.json").write_text(json.dumps(made) + "\n")


def judge(bench: Bench) -> Iterator[str]:
    """A random model, sampled by `coda-trainer sample` and by this folder over PyTorch."""
    shape = Shape(48, 100, 4, 2, 16, 512, 2, False, rope_theta=1e4)
    folder = bench.work / "model"
    random = shape.random(5)
    shape.write(folder, random)
    train = ["train-tokenizer", "--quiet", "--vocab-size", "511"]
    source = REPOSITORY / "curriculum" / "src"
    bench.run("coda-ingest", [*train, "--input", source, "--out", folder / "tokenizer.json"])
    weights = {name: w.detach() for name, w in leaves(random, torch.float64).items()}

    def model(ids: list[int]) -> np.ndarray:
        return forward(weights, shape, torch.tensor([ids]))[0].numpy()

    text = "fn main() {\n<|mask|><|mask|>\n    let x<|mask|><|mask|><|mask|>\n}<|mask|><|mask|>"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pieces = [tokenizer.encode(piece).ids for piece in text.split("<|mask|>")]
    ids = pieces[0] + [token for piece in pieces[1:] for token in [shape.mask, *piece]]
    (bench.work / "text").write_text(text.replace("<|mask|>", mask_name(tokenizer, shape.mask)))
    steps = 0
    for settings in (
        Settings(7, "maskgit_plus"), Settings(3, "topk_margin"), Settings(5, "entropy"),
        Settings(1, "entropy", top_k=5), Settings(12, "maskgit_plus", top_p=0.5),
    ):  # fmt: skip
        trace = sampled(bench, folder, settings)
        now = list(ids)
        for number, revealed in enumerate(greedy(ids, shape.mask, model, settings)):
            for position, token in revealed:
                now[position] = token
            where = f"{settings.algorithm}, step {number}"
            same(f"{where}: positions", trace[number]["revealed"], [p for p, _ in revealed])
            same(f"{where}: tokens", trace[number]["tokens"], now)
            steps += 1
    yield f"{steps} steps of three ranked algorithms reveal the same tokens at the same positions"
    yield origin_is_argmax(bench, folder, model, ids, shape.mask)
    yield blocks_with_caches(bench, folder, Cached(weights, shape), ids)


def blocks_with_caches(bench: Bench, folder: Path, model: Cached, ids: list[int]) -> str:
    """Blocks, caches, thresholds and factors: every step against keys and values as old as ours."""
    checked = 0
    for blocks in (
        Blocks(5, "none", threshold=0.02), Blocks(5, "prefix", threshold=0.02),
        Blocks(5, "dual", threshold=0.02), Blocks(8, "dual", factor=1.96),
        Blocks(3, "dual", threshold=1.0), Blocks(1000, "dual", threshold=0.02),
    ):  # fmt: skip
        more = ["--block-length", blocks.length, "--cache", blocks.cache, "--alg", "maskgit_plus"]
        for name in ("threshold", "factor"):
            value = getattr(blocks, name)
            more += [] if value is None else [f"--{name}", value]
        trace = bench.work / "trace.jsonl"
        given = ["--infill-file", bench.work / "text", "--trace", trace, "--quiet"]
        bench.run("coda-trainer", ["sample", "--checkpoint", folder, *given, *map(str, more)])
        steps = [json.loads(line) for line in trace.read_text().splitlines()]
        wanted = list(in_blocks(list(ids), model, blocks))
        found = [list(zip(step["revealed"], (step["tokens"][p] for p in step["revealed"])))
                 for step in steps]  # fmt: skip
        same(f"{blocks}", found, wanted)
        checked += len(wanted)
    return f"{checked} steps in blocks, by thresholds and factors, with and without caches"


def mask_name(tokenizer: Tokenizer, mask: int) -> str:
    """How a text spells the mask: its own name where the tokenizer has one."""
    return tokenizer.id_to_token(mask) or "<|mask|>"


def sampled(bench: Bench, folder: Path, settings: Settings, seed: int = 17) -> list[dict[str, Any]]:
    """The steps of `coda-trainer sample`."""
    trace = bench.work / "trace.jsonl"
    more = ["--steps", settings.steps, "--alg", settings.algorithm, "--eps", settings.eps]
    for name in ("top_p", "top_k"):
        value = getattr(settings, name)
        more += [] if value is None else [f"--{name.replace('_', '-')}", value]
    given = ["--infill-file", bench.work / "text", "--trace", trace, "--seed", seed, "--quiet"]
    bench.run("coda-trainer", ["sample", "--checkpoint", folder, *given, *map(str, more)])
    return [json.loads(line) for line in trace.read_text().splitlines()]


def origin_is_argmax(bench: Bench, folder: Path, model: Any, ids: list[int], mask: int) -> str:
    """`origin` chooses positions by chance, but at temperature 0 their tokens are given."""
    settings, checked = Settings(4, "origin"), 0
    for seed in range(5):
        now = list(ids)
        for step in sampled(bench, folder, settings, seed):
            found = positions(now, mask, model(now), settings)
            for position in step["revealed"]:
                now[position] = int(np.argmax(found[position]))
                checked += 1
            same(f"origin, seed {seed}, step {step['step']}", step["tokens"], now)
        if mask in now:
            raise Difference(f"origin, seed {seed}: masks are left")
    return f"origin: {checked} tokens are the best at their positions"
