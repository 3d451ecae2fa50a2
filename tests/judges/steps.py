"""Ten optimizer steps of real runs, weights after each, against PyTorch.

Nothing of ours computes the reference: rows, order and masks come from the shard set through the
plain Python of `coda_shards`, the model and the loss from `model.py` in f64, clipping from
`torch.nn.utils`, the optimizers from `torch.optim` and `transformers`, the learning rates from
`transformers`' schedules. The only input from our side is the shard set's files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from coda_shards.masks import Settings, plan
from coda_shards.order import Order, SourceRows
from coda_shards.verify import verify
from model import Shape, Weights, distance, forward, leaves, loss
from safetensors.torch import load_file
from torch import Tensor
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup
from transformers.optimization import Adafactor
from verdict import Bench, Difference, same, within

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS, BATCH, LENGTH, SEED, HELD_OUT, WARMUP = 10, 8, 96, 17, 0.05, 2
RATES: dict[str, Any] = {
    "p1": 0.3, "p2": 0.3, "p3": 0.4, "block_sizes": [2, 4], "sampling_eps": 0.05,
}  # fmt: skip
SHAPE = Shape(64, 160, 4, 2, 16, 512, 2, False, rope_theta=1e4)

# Weights relative to their own size, movement relative to the way made so far; f32 against f64.
WEIGHTS, MOVED, LOSS = 1e-5, 2e-4, 1e-6


@dataclass(frozen=True)
class Run:
    """One run of the trainer."""

    name: str
    stage: str
    optimizer: dict[str, Any]
    schedule: str
    peak: float
    clip: float
    micro_batch: int
    documents: bool
    curriculum: dict[str, Any] = field(default_factory=lambda: RATES)
    shape: Shape = SHAPE


ADAMW = {"kind": "adamw", "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}
RUNS = [
    Run("adafactor, linear", "pre", {"kind": "adafactor"}, "linear", 3e-3, 0.0, 8, True),
    Run("adafactor, cosine, clipped, accumulated", "mid", {"kind": "adafactor"}, "cosine", 3e-3,
        0.5, 2, False, shape=Shape(64, 160, 4, 4, 16, 512, 2, True, rope_theta=1e4)),
    Run("adamw, linear, decay", "mid", ADAMW, "linear", 1e-3, 0.0, 4, False),
    Run("adamw, cosine, clipped, annealed prompts", "post", {"kind": "adamw"}, "cosine", 1e-3, 1.0,
        4, False, {**RATES, "p1": 0.0, "p2": 0.0, "p3": 0.0, "conditioned_span": {"ratio": 0.5}}),
]  # fmt: skip


def manifest(run: Run) -> dict[str, Any]:
    """The run's manifest; JSON is YAML."""
    source: dict[str, Any] = {"name": "code", "paths": ["corpora/code"], "format": "code"}
    source["extensions"] = ["rs"]
    if run.stage == "post":
        fields = {"instruction": "instruction", "output": "output"}
        source = {"name": "pairs", "paths": ["corpora/pairs.jsonl"], "kind": "sft", "fields": fields}
    return {
        "version": 1,
        "name": f"judged-{run.stage}",
        "stage": run.stage,
        "seed": SEED,
        "tokenizer": {"path": "tokenizer.json"},
        "data": {
            "out": f"shards-{run.stage}", "row_length": LENGTH, "rows_per_shard": 64,
            "held_out": HELD_OUT, "sources": [source],
        },
        "curriculum": run.curriculum,
        "model": asdict(run.shape),
        "train": {
            "steps": STEPS, "global_batch": BATCH, "micro_batch": run.micro_batch,
            "optimizer": run.optimizer,
            "lr": {"peak": run.peak, "schedule": run.schedule, "warmup_steps": WARMUP},
            "grad_clip": run.clip, "document_attention": run.documents,
            "checkpoint": {"every": 1, "keep": STEPS + 1}, "eval": {"every": 0, "batches": 1},
        },
    }  # fmt: skip


def prepare(bench: Bench) -> None:
    """Corpora of this repository's own files, and a tokenizer trained on them."""
    code = bench.work / "corpora" / "code"
    code.mkdir(parents=True)
    for path in sorted(REPOSITORY.glob("curriculum/src/*.rs")):
        (code / path.name).write_bytes(path.read_bytes())
    pairs = [
        {"instruction": f"Write {name}_{n}.", "output": f"fn {name}_{n}() {{ {name}({n}) }}"}
        for n, name in ((n, ["add", "sub", "mul", "min", "max"][n % 5]) for n in range(120))
    ]
    lines = "".join(json.dumps(pair) + "\n" for pair in pairs)
    (bench.work / "corpora" / "pairs.jsonl").write_text(lines)
    train = ["train-tokenizer", "--quiet", "--vocab-size", str(SHAPE.vocab_size)]
    bench.run("coda-ingest", [*train, "--input", "corpora/code", "--out", "tokenizer.json"])


def train(bench: Bench, run: Run, folder: str, weights: Weights) -> list[Weights]:
    """The weights after each step of the real run."""
    path = bench.work / f"{folder}.yaml"
    path.write_text(json.dumps(manifest(run)))
    if not (bench.work / f"shards-{run.stage}").exists():
        bench.run("coda-ingest", ["--quiet", "--manifest", path])
    run.shape.write(bench.work / f"{folder}-init", weights)
    arguments = ["--stage", run.stage, "--manifest", path, "--out", folder, "--quiet"]
    bench.run("coda-trainer", [*arguments, "--init", bench.work / f"{folder}-init"])
    return [load_file(saved(bench, folder, step)) for step in range(1, STEPS + 1)]


def saved(bench: Bench, folder: str, step: int) -> Path:
    """The weights in the checkpoint after `step` steps."""
    return bench.work / folder / "checkpoints" / f"step-{step:06}" / "model.safetensors"


class Feed:
    """The global batch of every step, by plain Python."""

    def __init__(self, run: Run, directory: Path) -> None:
        self._run = run
        self._shards = verify(directory)
        sources = [
            SourceRows(source["first_row"], source["rows"], None)
            for source in self._shards.index["sources"]
        ]
        self._order = Order(SEED, sources, HELD_OUT)
        self.ids: dict[str, int] = self._shards.index["specials"]

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Clean ids, noised ids, sigma and documents."""
        span = self._run.curriculum.get("conditioned_span")
        ratio = 1.0 if span is None else min(1.0, step / max(1.0, STEPS * span["ratio"]))
        rates = {k: v for k, v in self._run.curriculum.items() if k != "conditioned_span"}
        settings = Settings(
            profile="coda-paper", seed=SEED, step=step, span_ratio=ratio, score_pads=True, **rates
        )
        clean, noised, sigma = [], [], []
        for number, epoch in self._order.at(range(step * BATCH, (step + 1) * BATCH)):
            row = self._shards[number]
            made = plan(settings, row.shape, epoch)
            ids = torch.from_numpy(row.tokens.astype("int64"))
            ids[made.valid_len :] = self.ids["pad"]
            clean.append(ids)
            noised.append(ids.clone())
            noised[-1][made.masked] = self.ids["mask"]
            sigma.append(made.sigma)
        all_clean = torch.stack(clean)
        ends = (all_clean == self.ids["eos"]).long()
        documents = ends.cumsum(1) - ends if self._run.documents else None
        return all_clean, torch.stack(noised), torch.tensor(sigma, dtype=torch.float64), documents


def optimizer_of(run: Run, weights: Weights) -> torch.optim.Optimizer:
    """The judge's optimizer with the run's settings."""
    if run.optimizer["kind"] == "adafactor":
        return Adafactor(
            list(weights.values()), lr=run.peak, eps=(1e-30, 1e-3), clip_threshold=1.0,
            decay_rate=-0.8, beta1=None, weight_decay=0.0, scale_parameter=False,
            relative_step=False, warmup_init=False,
        )  # fmt: skip
    given = {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, **run.optimizer}
    # As transformers' trainer does, and so do we: norms do not decay.
    groups = [
        {"params": [w for w in weights.values() if w.dim() == 2]},
        {"params": [w for w in weights.values() if w.dim() != 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=run.peak, betas=tuple(given["betas"]), eps=given["eps"],
        weight_decay=given["weight_decay"],
    )  # fmt: skip


def reference(
    run: Run, weights: Weights, feed: Feed, dtype: torch.dtype
) -> Iterator[tuple[Weights, float, float, float]]:
    """Weights, loss, learning rate and gradient norm of each step, by the judges."""
    own = leaves(weights, dtype)
    optimizer = optimizer_of(run, own)
    schedules = {
        "linear": get_linear_schedule_with_warmup,
        "cosine": get_cosine_schedule_with_warmup,
    }
    schedule = schedules[run.schedule](optimizer, WARMUP, STEPS)
    for step in range(STEPS):
        clean, noised, sigma, documents = feed.batch(step)
        optimizer.zero_grad()
        value = loss(
            forward(own, run.shape, noised, documents), clean, noised, sigma, feed.ids["mask"]
        )
        value.backward()
        limit = run.clip if run.clip > 0 else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(list(own.values()), limit)
        rate = schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
        yield {n: w.detach().clone() for n, w in own.items()}, value.item(), rate, norm.item()


def judge(bench: Bench) -> Iterator[str]:
    """All runs."""
    prepare(bench)
    for number, run in enumerate(RUNS):
        yield judged(bench, run, f"run-{number}", run.shape.random(50 + number))
    yield notice_fault(bench)


def judged(bench: Bench, run: Run, folder: str, weights: Weights) -> str:
    """One run, step by step."""
    found = train(bench, run, folder, weights)
    lines = (bench.work / folder / "metrics.jsonl").read_text().splitlines()
    logged = {line["step"]: line for line in map(json.loads, lines) if line.get("loss") is not None}
    feed = Feed(run, bench.work / f"shards-{run.stage}")
    worst = {"weights": 0.0, "moved": 0.0, "loss": 0.0, "norm": 0.0}
    clipped = 0
    steps = enumerate(reference(run, weights, feed, torch.float64), start=1)
    for step, (right, value, rate, norm) in steps:
        ours, line, where = found[step - 1], logged[step], f"{run.name}, step {step}"
        same(f"{where}: tensors", sorted(ours), sorted(right))
        within(f"{where}: learning rate", abs(line["lr"] - rate) / run.peak, 1e-12)
        worst["loss"] = max(worst["loss"], abs(line["loss"] - value) / value)
        worst["norm"] = max(worst["norm"], abs(line["grad_norm"] - norm) / norm)
        within(f"{where}: loss", worst["loss"], LOSS)
        within(f"{where}: norm of the gradient", worst["norm"], LOSS)
        clipped += run.clip > 0 and norm > run.clip
        for name, tensor in right.items():
            error = distance(ours[name], tensor)
            worst["weights"] = max(worst["weights"], within(f"{where}: {name}", error, WEIGHTS))
        way = movement(right, weights)
        if way > 0:
            moved = difference(ours, right) / way
            worst["moved"] = max(worst["moved"], within(f"{where}: movement", moved, MOVED))
    if run.clip > 0 and clipped == 0:
        raise Difference(f"{run.name}: no step was clipped, so clipping was not judged")
    if movement(right, weights) < 1e-3 * movement(right, {n: 0 * w for n, w in right.items()}):
        raise Difference(f"{run.name}: the weights hardly moved, so nothing was judged")
    figures = ", ".join(f"{name} {error:.1e}" for name, error in worst.items())
    return f"{run.name}: {STEPS} steps, {clipped} clipped; worst errors: {figures}"


def difference(a: Weights, b: Weights) -> float:
    """The L2 norm of the difference over all weights."""
    return sum(((a[name].double() - b[name].double()) ** 2).sum().item() for name in b) ** 0.5


def movement(after: Weights, before: Weights) -> float:
    """How far the weights have gone."""
    return difference(before, after)


def notice_fault(bench: Bench) -> str:
    """A judge with another beta2 has to see that the run is not its own."""
    run = RUNS[2]
    other = replace(run, optimizer={**ADAMW, "betas": [0.9, 0.951]})
    feed = Feed(run, bench.work / f"shards-{run.stage}")
    last = load_file(saved(bench, "run-2", STEPS))
    *_, (right, _, _, _) = reference(other, run.shape.random(52), feed, torch.float64)
    moved = difference(last, right) / movement(right, run.shape.random(52))
    if moved <= MOVED:
        raise Difference(f"a beta2 of 0.951 for 0.95 was not noticed: {moved}")
    return f"a beta2 of 0.951 for 0.95 is noticed ({moved:.1e})"
