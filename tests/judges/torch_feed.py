"""PyTorch as a user of `shards/python`: the dataset under a real DataLoader, and the example.

Batches have to be the same for any number of workers and ranks and after any stop, and what the
tensors hold has to be what numpy was given. The example has to learn.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.data import DataLoader

from coda_shards import Batches, Bd3lm, Coda, Llada, Mdlm, Noise, ShardSet, bd3lm_attention
from coda_shards.torch import ShardDataset, bd3lm_mask_mod
from verdict import Bench, Difference, same

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "shards" / "python"
LENGTH, BATCH, STEPS, LIMIT = 64, 12, 200, 60
NOISES: list[Noise] = [Coda(p1=0.3, p2=0.3, p3=0.5), Llada(), Mdlm(), Bd3lm(16)]


def judge(bench: Bench) -> Iterator[str]:
    """The dataset, the types, the example."""
    shards = prepare(bench)
    # Three workers on two cores are meant.
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    # Compiling it costs more than the plain way on a few positions.
    warnings.filterwarnings("ignore", message="flex_attention called without")
    for noise in NOISES:
        yield splits(shards, noise)
    yield spawned(shards)
    yield resumed(shards)
    yield meaning(shards)
    yield block_by_block()
    yield types(bench)
    yield example(bench, shards)


def prepare(bench: Bench) -> ShardSet:
    """A set of small functions that a small model can learn."""
    draw = random.Random(3)
    names = ["add", "sub", "mul", "min", "max", "pow", "rem", "xor"]
    lines = []
    for number in range(4000):
        name, kind = draw.choice(names), draw.choice(["u8", "u16", "u32", "u64"])
        head = f"pub fn {name}_{number % 10}(a: {kind}, b: {kind}) -> {kind}"
        text = f"{head} {{\n    a.wrapping_{name}(b)\n}}\n"
        lines.append(json.dumps({"text": text}) + "\n")
    (bench.work / "functions.jsonl").write_text("".join(lines))
    train = ["train-tokenizer", "--quiet", "--vocab-size", "384", "--out", "tokenizer.json"]
    bench.run("coda-ingest", [*train, "--input", "functions.jsonl"])
    manifest: dict[str, Any] = {
        "version": 1, "name": "torch-feed", "stage": "pre", "seed": 17,
        "tokenizer": {"path": "tokenizer.json"},
        "data": {
            "out": "shards", "row_length": LENGTH, "rows_per_shard": 500,
            "sources": [{"name": "functions", "paths": ["functions.jsonl"]}],
        },
        "train": {"out": "run", "steps": 10, "global_batch": BATCH},
    }  # fmt: skip
    (bench.work / "torch-feed.yaml").write_text(json.dumps(manifest))
    bench.run("coda-ingest", ["--quiet", "--manifest", "torch-feed.yaml"])
    return ShardSet(bench.work / "shards")


def batches(shards: ShardSet, noise: Noise, **options: Any) -> ShardDataset:
    """A dataset of one epoch."""
    given = {"seed": 5, "batch_size": BATCH, "epochs": 1, "held_out": 0.1, **options}
    return ShardDataset(Batches(shards, **given), noise)


def equal(what: str, ours: Any, theirs: Any) -> None:
    """Two batches, tensor by tensor."""
    same(f"{what}: keys", sorted(ours), sorted(theirs))
    for key, value in theirs.items():
        alike = torch.equal(ours[key], value) if torch.is_tensor(value) else ours[key] == value
        same(f"{what}: {key}", alike, True)


def splits(shards: ShardSet, noise: Noise) -> str:
    """Workers and ranks."""
    whole = list(batches(shards, noise))
    same("batches", len(whole), len(batches(shards, noise)))
    for workers in (0, 1, 3):
        loader = DataLoader(batches(shards, noise), batch_size=None, num_workers=workers)
        found = list(loader)
        same(f"batches of {workers} workers", len(found), len(whole))
        for number, (ours, theirs) in enumerate(zip(found, whole)):
            equal(f"{workers} workers, batch {number}", ours, theirs)
    for ranks in (2, 3):
        parts = [batches(shards, noise, rank=r, world_size=ranks) for r in range(ranks)]
        loaders = [part.loader(num_workers=r % 2) for r, part in enumerate(parts)]
        for number, (*ours, theirs) in enumerate(zip(*loaders, whole, strict=True)):
            joined = {
                key: torch.cat([part[key] for part in ours]) if torch.is_tensor(value) else value
                for key, value in theirs.items()
            }
            equal(f"{ranks} ranks, batch {number}", joined, theirs)
            same("positions", {part["position"] for part in ours}, {theirs["position"]})
    return f"{noise}: {len(whole)} batches, the same from 0, 1, 3 workers and 1, 2, 3 ranks"


def spawned(shards: ShardSet) -> str:
    """Workers that share nothing with this process open the set themselves."""
    whole = batches(shards, Bd3lm(16), weights={"functions": 1.0})
    loader = batches(shards, Bd3lm(16), weights={"functions": 1.0}).loader(
        num_workers=2, multiprocessing_context="spawn"
    )
    for number, (ours, theirs) in enumerate(zip(loader, whole, strict=True)):
        equal(f"spawned workers, batch {number}", ours, theirs)
    return "spawned workers give the same batches"


def resumed(shards: ShardSet) -> str:
    """A run that stops after any batch, with workers that were ahead of it, goes on behind it."""
    whole = list(batches(shards, Mdlm()))
    stops = (1, 7, len(whole) - 1)
    for done in stops:
        for workers in (0, 2):
            first = batches(shards, Mdlm())
            for batch in islice(first.loader(num_workers=workers), done):
                state = json.loads(json.dumps(first.state_dict()))
                same("the state is in the batch", state, {"position": batch["position"]})
            second = batches(shards, Mdlm())
            second.load_state_dict(state)
            rest = list(second.loader(num_workers=workers))
            same(f"left after {done}", len(rest), len(whole) - done)
            for ours, theirs in zip(rest, whole[done:]):
                equal(f"after {done} batches, {workers} workers", ours, theirs)
            same("left at the end", list(second.loader()), [])
    return f"stopped after {', '.join(map(str, stops))} batches, it goes on with the next"


def meaning(shards: ShardSet) -> str:
    """What the tensors are, from the rows themselves."""
    for batch in islice(batches(shards, Coda(p2=0.5)), 5):
        ids, noised, scored = batch["input_ids"], batch["noised_ids"], batch["scored"]
        same("types", [ids.dtype, noised.dtype, scored.dtype, batch["weight"].dtype],
             [torch.int64, torch.int64, torch.bool, torch.float32])  # fmt: skip
        hidden = noised == shards.specials.mask
        same("elsewhere nothing is changed", torch.equal(ids[~hidden], noised[~hidden]), True)
        hidden[:, 0] = False
        same("scored are the masks", torch.equal(scored, hidden), True)
        wanted = torch.where(scored, 1 / batch["sigma"][:, None], torch.zeros(()))
        same("weights", torch.allclose(batch["weight"], wanted, rtol=1e-6), True)
        cut = False
        for place, number in enumerate(batch["rows"].tolist()):
            row = shards[number]
            valid = int((batch["segments"][place] >= 0).sum())
            cut |= valid < row.valid_len
            tokens = row.tokens.astype("int64").copy()
            tokens[valid:] = shards.specials.pad
            same("clean ids", ids[place].tolist(), tokens.tolist())
        same("a row was cut", cut, True)
    return "tensors hold the rows, truncated by S2 where it took them"


def block_by_block() -> str:
    """Under BD3LM's mask one pass over noised and clean rows gives for every noised block what a pass
    over the clean blocks before it and the block itself gives."""
    torch.manual_seed(5)
    size, width, layers = 8, 16, 3

    def run(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        for _ in range(layers):
            states = states + scaled_dot_product_attention(states, states, states, attn_mask=mask)
        return states

    for length in (32, 29):
        noised, clean = torch.randn(2, 1, length, width, dtype=torch.float64)
        mask = torch.from_numpy(bd3lm_attention(length, size))
        together = run(torch.cat([noised, clean], dim=1), mask)[0, :length]
        for start in range(0, length, size):
            end = min(start + size, length)
            block = torch.arange(end) // size
            alone = torch.cat([clean[:, :start], noised[:, start:end]], dim=1)
            found = run(alone, block[:, None] >= block)[0, start:]
            same(f"block at {start} of {length}", torch.allclose(found, together[start:end]), True)
        twice = 2 * length
        query, key = torch.meshgrid(torch.arange(twice), torch.arange(twice), indexing="ij")
        mask_mod = bd3lm_mask_mod(length, size)
        same("the mask of FlexAttention", torch.equal(mask_mod(query, query, query, key), mask), True)
        blocks = create_block_mask(mask_mod, None, None, twice, twice, device="cpu")
        inputs = torch.randn(1, 2, twice, width)
        flexible = flex_attention(inputs, inputs, inputs, block_mask=blocks)
        dense = scaled_dot_product_attention(inputs, inputs, inputs, attn_mask=mask)
        same("FlexAttention", torch.allclose(flexible, dense, atol=1e-5), True)
    return "BD3LM's attention: one pass gives what passes block by block give, laid out or by FlexAttention"


def types(bench: Bench) -> str:
    """The package with its torch module, as `mypy --strict` sees it."""
    command = [sys.executable, "-m", "mypy", "--config-file", str(PACKAGE / "pyproject.toml")]
    command += ["--cache-dir", str(bench.work / "mypy"), str(PACKAGE / "coda_shards")]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise Difference(f"mypy:\n{done.stdout.decode()}{done.stderr.decode()}")
    return done.stdout.decode().strip()


def example(bench: Bench, shards: ShardSet) -> str:
    """The example learns much more than how frequent the tokens are, in a minute of one core."""
    script = REPOSITORY / "examples" / "llada" / "train.py"
    same("the example is short", len(script.read_text().splitlines()) < 60, True)
    command = [sys.executable, str(script), str(shards.directory), "--steps", str(STEPS)]
    # One thread: on a busy machine the second would wait more than work.
    env = {**os.environ, "PYTHONPATH": str(PACKAGE), "OMP_NUM_THREADS": "1"}
    before = os.times()
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    seconds = os.times().children_user - before.children_user
    told = done.stdout.decode()
    if done.returncode != 0:
        raise Difference(f"the example ended with {done.returncode}:\n{done.stderr.decode()}")
    nats = [float(found) for found in re.findall(r", ([\d.]+) nats", told)]
    frequencies = unigram(shards)
    learned = len(nats) > 3 and nats[-1] < 0.5 * frequencies < 0.5 * nats[0]
    if not learned or "<|mask|>" in told.splitlines()[-1] or seconds > LIMIT:
        raise Difference(f"the example, {seconds:.0f} s, entropy {frequencies:.2f}:\n{told}")
    return (
        f"the example goes from {nats[0]} to {nats[-1]} nats a masked token in {seconds:.0f} CPU-s"
        f" (token frequencies alone: {frequencies:.2f}); {told.splitlines()[-1]}"
    )


def unigram(shards: ShardSet) -> float:
    """The entropy of the tokens' frequencies, in nats."""
    counts = torch.bincount(torch.from_numpy(shards[:].tokens.astype("int64")).reshape(-1))
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * shares.log()).sum())
