"""The frozen fixtures are what their scripts make: made anew, and compared.

    frozen.py --write       puts new ones into tests/frozen/

Whole numbers, names and texts have to be equal; floats may differ by what another processor's
rounding does.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from verdict import Bench, Difference, same, within

FOLDER = Path(__file__).resolve().parents[1] / "frozen"
MAKERS = ("gradients", "optimizers", "sampling", "rendering")
ROUNDING = 1e-6
MOST_BYTES = 4_000_000


def make(folder: Path) -> None:
    """All fixtures, into an empty folder."""
    for name in MAKERS:
        (folder / name).mkdir(parents=True)
        importlib.import_module(name).freeze(folder / name)


def judge(bench: Bench) -> Iterator[str]:
    """The committed fixtures against new ones."""
    fresh = bench.work / "fresh"
    make(fresh)
    files = sorted(path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file())
    there = sorted(path.relative_to(FOLDER) for path in FOLDER.rglob("*") if path.is_file())
    same("frozen files", list(map(str, there)), list(map(str, files)))
    size = 0
    for name in files:
        compare(str(name), FOLDER / name, fresh / name)
        size += (FOLDER / name).stat().st_size
    if size > MOST_BYTES:
        raise Difference(f"the fixtures have {size} bytes, more than {MOST_BYTES}")
    yield f"{len(files)} files of {size} bytes are what their scripts make"


def compare(where: str, kept: Path, made: Path) -> None:
    """One file against its new self."""
    if kept.suffix == ".safetensors":
        old, new = load_file(kept), load_file(made)
        same(f"{where}: tensors", sorted(old), sorted(new))
        for name, tensor in new.items():
            same(f"{where}: type of {name}", old[name].dtype, tensor.dtype)
            same(f"{where}: shape of {name}", old[name].shape, tensor.shape)
            if tensor.is_floating_point():
                most = tensor.abs().max().clamp_min(1e-30)
                apart = ((old[name] - tensor).abs().max() / most).item()
                within(f"{where}: {name}", apart, ROUNDING)
            else:
                same(f"{where}: {name}", bool(torch.equal(old[name], tensor)), True)
    elif kept.suffix == ".json":
        alike(where, json.loads(kept.read_text()), json.loads(made.read_text()))
    else:
        same(where, kept.read_bytes(), made.read_bytes())


def alike(where: str, old: Any, new: Any) -> None:
    """Two JSON values."""
    if isinstance(new, dict):
        same(f"{where}: keys", sorted(old), sorted(new))
        for key, value in new.items():
            alike(f"{where}.{key}", old[key], value)
    elif isinstance(new, list):
        same(f"{where}: length", len(old), len(new))
        for index, (left, right) in enumerate(zip(old, new)):
            alike(f"{where}[{index}]", left, right)
    elif isinstance(new, float) and isinstance(old, float):
        within(where, abs(old - new) / max(abs(new), 1e-12), ROUNDING)
    else:
        same(where, old, new)


def main() -> None:
    """Writes the fixtures anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", required=True)
    parser.parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    make(FOLDER)


if __name__ == "__main__":
    main()
