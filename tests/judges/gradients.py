"""Loss, logits and the gradient of every parameter: `coda-trainer check` against PyTorch,
on the CPU engine and on the XLA engine's CPU plugin.

Tolerances are for f32 against PyTorch's f64. PyTorch's own f32 is judged beside ours, so that the
figures say how much of the error any f32 has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from model import Shape, distance, forward, leaves, loss
from safetensors.torch import load_file, save_file
from torch import Tensor
from verdict import Bench, Difference, same, within

LOSS, LOGITS, GRADIENT = 1e-6, 1e-5, 1e-5


@dataclass(frozen=True)
class Case:
    """A model, a batch, and whether attention stays within documents."""

    name: str
    shape: Shape
    rows: int
    length: int
    documents: bool


# width, feed-forward, query heads, key heads, head, vocabulary, layers, tied
CASES = [
    Case("tied 4:2", Shape(256, 768, 4, 2, 64, 4096, 4, True), 8, 256, False),
    Case("untied 4:2 documents", Shape(256, 768, 4, 2, 64, 4096, 4, False), 8, 256, True),
    Case("untied 4:2 odd", Shape(128, 320, 4, 2, 32, 1000, 2, False), 2, 301, False),
    Case("tied 4:2 odd documents", Shape(128, 320, 4, 2, 32, 1000, 2, True), 2, 777, True),
    Case("tied 4:4", Shape(128, 320, 4, 4, 32, 1000, 2, True), 2, 601, False),
    Case("untied 6:2 documents", Shape(96, 200, 6, 2, 16, 517, 3, False), 3, 513, True),
    Case("tied 6:1 long", Shape(96, 200, 6, 1, 16, 517, 2, True), 1, 1025, False),
    Case("tied 2:1 two tokens", Shape(48, 100, 2, 1, 24, 97, 1, True), 2, 2, False),
]

# What must not change a bit: threads, and keeping or recomputing activations.
VARIANTS = [("1", []), ("2", ["--recompute"]), ("3", [])]


def batch(case: Case, seed: int) -> dict[str, Tensor]:
    """Clean and noised ids, noise levels, and perhaps documents."""
    draws = torch.Generator().manual_seed(1000 + seed)
    size, mask = (case.rows, case.length), case.shape.mask
    clean = torch.randint(0, mask, size, generator=draws)
    noised = torch.where(torch.rand(size, generator=draws) < 0.5, mask, clean)
    noised[:, -1] = mask  # however short the row, something is scored
    made = {
        "input_ids": clean.int(),
        "noised_ids": noised.int(),
        "sigma": torch.linspace(0.2, 0.9, case.rows),
    }
    if case.documents:
        ends = torch.rand(size, generator=draws) < 8 / case.length
        made["segment_ids"] = (ends.cumsum(1) - ends.long()).int()
    return made


def reference(
    shape: Shape, weights: dict[str, Tensor], given: dict[str, Tensor], dtype: torch.dtype
) -> dict[str, Tensor]:
    """What `check` has to write, by PyTorch in this dtype."""
    own = leaves(weights, dtype)
    noised, documents = given["noised_ids"].long(), given.get("segment_ids")
    logits = forward(own, shape, noised, documents)
    value = loss(logits, given["input_ids"].long(), noised, given["sigma"], shape.mask)
    value.backward()
    found = {"loss": value.detach(), "logits": logits.detach()}
    for name, weight in own.items():
        assert weight.grad is not None, name
        found[f"grad.{name}"] = weight.grad
    return found


def errors(found: dict[str, Tensor], right: dict[str, Tensor]) -> tuple[float, float, float, str]:
    """Relative errors of loss, logits and the worst gradient, with that one's name."""
    of_loss = abs(found["loss"].double() - right["loss"].double()) / right["loss"].double()
    gradients = {n: distance(found[n], right[n]) for n in right if n.startswith("grad.")}
    worst = max(gradients, key=lambda name: gradients[name])
    return of_loss.item(), distance(found["logits"], right["logits"]), gradients[worst], worst


def check(bench: Bench, folder: Path, threads: str, more: list[str]) -> dict[str, Tensor]:
    """What `coda-trainer check` writes."""
    out = folder / "out.safetensors"
    arguments = ["check", "--checkpoint", folder, "--batch", folder / "batch.safetensors"]
    env = {**os.environ, "RAYON_NUM_THREADS": threads}
    bench.run("coda-trainer", [*arguments, "--out", out, "--logits", *more], env)
    return load_file(out)


def judge(bench: Bench) -> Iterator[str]:
    """All cases."""
    for number, case in enumerate(CASES):
        folder = bench.work / f"case-{number}"
        weights, given = case.shape.random(number), batch(case, number)
        case.shape.write(folder, weights)
        save_file(given, folder / "batch.safetensors")
        ours = check(bench, folder, *VARIANTS[0])
        for threads, more in VARIANTS[1:]:
            again = check(bench, folder, threads, more)
            for name, tensor in ours.items():
                same(f"{case.name}: bits of {name} with {threads} threads {' '.join(more)}",
                     bool(torch.equal(tensor, again[name])), True)  # fmt: skip
        right = reference(case.shape, weights, given, torch.float64)
        same(f"{case.name}: tensors", sorted(ours), sorted(right))
        of_loss, of_logits, of_gradient, worst = errors(ours, right)
        within(f"{case.name}: loss", of_loss, LOSS)
        within(f"{case.name}: logits", of_logits, LOGITS)
        within(f"{case.name}: gradient of {worst}", of_gradient, GRADIENT)
        xla = errors(check(bench, folder, "2", ["--engine", "xla"]), right)
        within(f"{case.name}: loss by XLA", xla[0], LOSS)
        within(f"{case.name}: logits by XLA", xla[1], LOGITS)
        within(f"{case.name}: gradient of {xla[3]} by XLA", xla[2], GRADIENT)
        torchs = errors(reference(case.shape, weights, given, torch.float32), right)
        yield (
            f"{case.name}, L {case.length}: loss {of_loss:.1e}, logits {of_logits:.1e}, worst gradient "
            f"{of_gradient:.1e} (XLA f32: {xla[0]:.1e}, {xla[1]:.1e}, {xla[2]:.1e}; PyTorch f32: "
            f"{torchs[0]:.1e}, {torchs[1]:.1e}, {torchs[2]:.1e})"
        )
    notice_faults(bench)
    yield "a weight moved by a thousandth and a wrong document boundary are both noticed"


# Rows longer than one run of queries, documents, odd lengths; small enough to be committed.
FROZEN = [
    Case("untied-documents", Shape(24, 40, 4, 2, 8, 50, 2, False), 2, 301, True),
    Case("tied", Shape(16, 24, 3, 1, 8, 40, 2, True), 3, 33, False),
]


def freeze(folder: Path) -> None:
    """Models, batches, and what PyTorch makes of them in f64, kept as f32."""
    for number, case in enumerate(FROZEN):
        weights, given = case.shape.random(80 + number), batch(case, 80 + number)
        right = reference(case.shape, weights, given, torch.float64)
        right["logits"] = right["logits"][:, -9:]
        case.shape.write(folder / case.name, weights)
        save_file(given, folder / case.name / "batch.safetensors")
        kept = {name: tensor.float().contiguous() for name, tensor in right.items()}
        save_file(kept, folder / case.name / "expected.safetensors")


def notice_faults(bench: Bench) -> None:
    """The judge can fail: faults put in on purpose have to show in the figures."""
    case = CASES[1]
    weights, given = case.shape.random(1), batch(case, 1)
    ours = check(bench, bench.work / "case-1", "2", [])
    moved = {**weights, "model.norm.weight": weights["model.norm.weight"] * 1.001}
    shifted = {**given, "segment_ids": given["segment_ids"].roll(1, dims=1)}
    for name, other in (
        ("a moved weight", reference(case.shape, moved, given, torch.float64)),
        ("other documents", reference(case.shape, weights, shifted, torch.float64)),
    ):
        of_loss, of_logits, of_gradient, _ = errors(ours, other)
        if of_logits <= LOGITS or of_gradient <= GRADIENT:
            raise Difference(f"{name} was not noticed: {of_loss} {of_logits} {of_gradient}")
