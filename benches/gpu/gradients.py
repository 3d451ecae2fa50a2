"""Loss, logits and every gradient of `coda-trainer check` on a card, against PyTorch in f64 and f32 beside it.

Models of random weights with the head widths that the kernels have; whole rows and documents; each of
the engine's ways to compute attention. The judge's own model is that of the CPU engine's judge
(tests/judges/model.py); PyTorch in bf16 says how much of an error the precision alone has.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

# Beside this file in a kit, in its own place in the repository.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "judges"))

from model import Shape, distance, forward, leaves, loss  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

# width, feed-forward, query heads, key heads, head, vocabulary, layers, tied; rows, length, documents
CASES = [
    ("heads of 128", Shape(512, 1536, 4, 2, 128, 4096, 4, False), 4, 512, False),
    ("heads of 64", Shape(512, 1536, 8, 4, 64, 4096, 4, True), 4, 512, False),
    ("odd length", Shape(512, 1024, 4, 4, 128, 2048, 2, True), 3, 333, False),
    ("documents", Shape(512, 1536, 4, 1, 128, 4096, 4, False), 2, 777, True),
    ("long", Shape(1024, 3072, 8, 4, 128, 8192, 2, False), 1, 4096, False),
]

# The loss, and each gradient: within 2e-2, or where PyTorch in bf16 is not, within this much of its error.
LOSS, GRADIENT, BESIDE_TORCH = 1e-3, 2e-2, 1.25
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def batch(shape: Shape, rows: int, length: int, documents: bool, seed: int) -> dict[str, torch.Tensor]:
    """Clean and noised ids, noise levels, and perhaps documents of about 100 tokens."""
    draws = torch.Generator().manual_seed(seed)
    size = (rows, length)
    clean = torch.randint(0, shape.mask, size, generator=draws)
    noised = torch.where(torch.rand(size, generator=draws) < 0.5, shape.mask, clean)
    made = {
        "input_ids": clean.int(),
        "noised_ids": noised.int(),
        "sigma": torch.linspace(0.3, 0.9, rows),
    }
    if documents:
        ends = torch.rand(size, generator=draws) < 0.01
        made["segment_ids"] = (ends.cumsum(1) - ends.long()).int()
    return made


def reference(
    shape: Shape, weights: dict[str, torch.Tensor], given: dict[str, torch.Tensor], dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """What `check` has to write, by PyTorch in this dtype, on the card."""
    torch.set_default_device(DEVICE)
    own = leaves({name: weight.to(DEVICE) for name, weight in weights.items()}, dtype)
    given = {name: tensor.to(DEVICE) for name, tensor in given.items()}
    logits = forward(own, shape, given["noised_ids"].long(), given.get("segment_ids"))
    noised = given["noised_ids"].long()
    value = loss(logits.to(torch.promote_types(dtype, torch.float32)), given["input_ids"].long(), noised,
                 given["sigma"], shape.mask)  # fmt: skip
    value.backward()
    torch.set_default_device("cpu")
    found = {"loss": value.detach().cpu(), "logits": logits.detach().cpu()}
    for name, weight in own.items():
        assert weight.grad is not None, name
        found[f"grad.{name}"] = weight.grad.cpu()
    return found


def errors(found: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> dict[str, float | str]:
    """Relative errors of loss, logits and the worst gradient, with that one's name."""
    gradients = {n: distance(found[n], right[n]) for n in right if n.startswith("grad.")}
    worst = max(gradients, key=lambda name: gradients[name])
    of_loss = abs(found["loss"].double() - right["loss"].double()) / right["loss"].double()
    return {
        "loss": of_loss.item(),
        "logits": distance(found["logits"], right["logits"]),
        "gradient": gradients[worst],
        "worst": worst,
    }


def run(program: Path, work: Path, only: list[str]) -> list[dict[str, object]]:
    """All cases with all kinds of attention; each with whether it is within the limits."""
    rows_of_table: list[dict[str, object]] = []
    for number, (name, shape, rows, length, documents) in enumerate(CASES):
        if only and name not in only:
            continue
        folder = work / f"case-{number}"
        weights = {n: w.bfloat16().float() for n, w in shape.random(number).items()}
        given = batch(shape, rows, length, documents, 100 + number)
        shape.write(folder, weights)
        save_file(given, folder / "batch.safetensors")
        right = reference(shape, weights, given, torch.float64)
        of_torch = errors(reference(shape, weights, given, torch.bfloat16), right)
        for attention in ["own"] if documents else ["own", "cudnn", "cudnn-unordered"]:
            out = folder / f"{attention}.safetensors"
            command = [program, "check", "--engine", "cuda", "--attention", attention, "--logits",
                       "--checkpoint", folder, "--batch", folder / "batch.safetensors", "--out", out]  # fmt: skip
            done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
            entry: dict[str, object] = {"case": name, "length": length, "attention": attention}
            if done.returncode == 0:
                found = errors(load_file(out), right)
                entry |= found
                allowed = max(GRADIENT, BESIDE_TORCH * of_torch["gradient"])  # type: ignore[operator]
                entry["within"] = found["loss"] < LOSS and found["gradient"] < allowed  # type: ignore[operator]
            else:
                entry |= {"error": done.stderr.strip()[-600:], "within": False}
            entry["torch_bf16"] = {key: of_torch[key] for key in ("loss", "logits", "gradient")}
            rows_of_table.append(entry)
            print(json.dumps(entry), flush=True)
    return rows_of_table


if __name__ == "__main__":
    Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
    verdicts = run(Path(sys.argv[1]).resolve(), Path(sys.argv[2]), sys.argv[3:])
    sys.exit(0 if all(entry["within"] for entry in verdicts) else 1)
