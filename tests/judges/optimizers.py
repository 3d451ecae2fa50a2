"""Optimizers alone: given gradients, clipped, at given rates; parameters after each of ten steps.

`steps.py` judges whole runs; here the gradients are given, so that the tolerance can be tight, and
they are frozen for the tests of every day.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from steps import ADAMW, STEPS, WARMUP, Run, optimizer_of
from torch import Tensor
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

SHAPES = {"matrix": (24, 17), "wide": (3, 70), "vector": (19,)}
CLIP = 4.0
RUNS = {
    "adafactor": Run("", "pre", {"kind": "adafactor"}, "linear", 3e-3, CLIP, 8, False),
    "adamw": Run("", "post", ADAMW, "cosine", 1e-3, CLIP, 8, False),
}


def start() -> dict[str, Tensor]:
    """Parameters before the first step."""
    draws = torch.Generator().manual_seed(70)
    return {name: torch.randn(shape, generator=draws) for name, shape in SHAPES.items()}


def gradients(step: int) -> dict[str, Tensor]:
    """Gradients of a step, of very different sizes; some steps are over the limit, some are not."""
    draws = torch.Generator().manual_seed(700 + step)
    sizes = {"matrix": 0.3, "wide": 1e-4, "vector": 0.02}
    scale = 1.0 if step % 3 else 0.1
    return {
        name: torch.randn(shape, generator=draws) * sizes[name] * scale
        for name, shape in SHAPES.items()
    }


def freeze(folder: Path) -> None:
    """Gradients, rates, and parameters after every step by the judges in f64."""
    for name, run in RUNS.items():
        own = {n: w.double().requires_grad_() for n, w in start().items()}
        optimizer = optimizer_of(run, own)
        kinds = {
            "linear": get_linear_schedule_with_warmup,
            "cosine": get_cosine_schedule_with_warmup,
        }
        schedule = kinds[run.schedule](optimizer, WARMUP, STEPS)
        kept = {f"start.{n}": w for n, w in start().items()}
        rates, norms = [], []
        for step in range(STEPS):
            for n, gradient in gradients(step).items():
                kept[f"{step}.gradient.{n}"] = gradient
                own[n].grad = gradient.double()
            norms.append(torch.nn.utils.clip_grad_norm_(list(own.values()), CLIP).item())
            rates.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
            kept |= {f"{step}.after.{n}": w.detach().float().clone() for n, w in own.items()}
        assert min(norms) < CLIP < max(norms), "some steps are clipped, some are not"
        save_file(kept, folder / f"{name}.safetensors")
        settings = {
            "optimizer": run.optimizer, "clip": CLIP, "norms": norms, "rates": rates,
            "peak": run.peak, "schedule": run.schedule, "warmup_steps": WARMUP, "steps": STEPS,
        }  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(settings, indent=1) + "\n")
