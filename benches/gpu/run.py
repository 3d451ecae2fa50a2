"""Everything that wants a card, in one command: checks, then measurements, of the engine beside PyTorch.

`cargo xtask gpu-kit` puts this file with the programs and what else it needs into `target/gpu-kit`; that
folder can be carried to any Linux machine with an NVIDIA card and a Python that has torch, transformers and
safetensors:

    python3 gpu-kit/run.py --out results

Parts, all of them unless `--parts` names some: `kernels` (every operation forward and backward against f64,
at fixed and at drawn sizes), `sanitizer` (the same under compute-sanitizer, where that is installed), `engine`
(loss, gradients and steps against the CPU engine, 200 steps in distribution; ranks, on one card and on as many
as there are), `gradients` (against PyTorch in
f64), `speed` (training steps of the 1.7B model at four lengths of rows, beside PyTorch).

What each part printed lies in `--out`, as do `results.json` and `results.md`. Exit code 1 if a check failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

KIT = Path(__file__).resolve().parent
PARTS = ["kernels", "sanitizer", "engine", "gradients", "speed"]
BENCH = ["--engine", "cuda", "train.recompute=none", "train.document_attention=false",
         "train.optimizer.kind=adamw"]  # fmt: skip


class Runner:
    """Runs programs, keeps what they print, and remembers what failed."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.failed: list[str] = []

    def run(self, name: str, command: list[str | Path], env: dict[str, str] | None = None) -> str:
        """What the program prints; a failure is told and counted, and the rest goes on."""
        started = time.monotonic()
        words = [str(word) for word in command]
        done = subprocess.run(
            words, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
        )
        (self.out / f"{name}.txt").write_text(f"$ {' '.join(words)}\n{done.stdout}\n{done.stderr}")
        verdict = "ok" if done.returncode == 0 else f"failed with {done.returncode}, see {name}.txt"
        print(f"{name}: {verdict} ({time.monotonic() - started:.0f} s)", flush=True)
        if done.returncode != 0:
            self.failed.append(name)
        return done.stdout


def machine() -> dict[str, str]:
    """What is measured on."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    card = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    versions = (
        "import torch, transformers;"
        "print(torch.__version__, torch.backends.cudnn.version(), transformers.__version__)"
    )
    of_torch = subprocess.run([sys.executable, "-c", versions], capture_output=True, text=True, check=False)
    return {"card": card, "torch, cudnn, transformers": of_torch.stdout.strip(), "date": time.strftime("%Y-%m-%d")}


def kernels(runner: Runner, seeds: int) -> None:
    """Every operation against plain loops in f64, with other values and sizes for each seed."""
    for seed in range(seeds):
        env = {"CODA_TEST_CARD": "1", "CODA_TEST_SEED": str(seed)}
        runner.run(f"kernels-{seed}", [KIT / "kernels-test", "--test-threads", "1"], env)


def sanitizer(runner: Runner) -> None:
    """Accesses out of bounds, races, reads of what nobody wrote."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        print("sanitizer: compute-sanitizer is not installed here: not run")
        return
    # What tests want the driver or NCCL to refuse is not an error of ours.
    test = [KIT / "kernels-test", "--test-threads", "1", "--skip", "a_card_that_is_full", "--skip", "cards::"]
    for tool in ["memcheck", "racecheck", "synccheck"]:
        runner.run(f"sanitizer-{tool}", [program, "--tool", tool, "--error-exitcode", "9", *test],
                   {"CODA_TEST_CARD": "1"})  # fmt: skip


def engine(runner: Runner) -> None:
    """The engine against the CPU engine."""
    test = [KIT / "engine-test", "--test-threads", "1", "--include-ignored", "--nocapture"]
    out = runner.run("engine", test, {"CODA_TEST_CARD": "1"})
    for line in out.splitlines():
        if line.startswith("last losses"):
            print(f"  {line}")
    runner.run("ranks", [KIT / "ranks-test", "--test-threads", "1"], {"CODA_TEST_CARD": "1"})


def speed(runner: Runner, args: argparse.Namespace) -> dict[str, list[dict[str, object]]]:
    """Tokens per second at every length."""
    bench = [KIT / "coda-trainer", "bench", "--manifest", KIT / "manifests" / "pretrain.yaml", *BENCH,
             "--tokens", str(args.tokens), "--passes", str(args.passes), "--timed", str(args.timed), "--json"]  # fmt: skip
    found: dict[str, list[dict[str, object]]] = {}

    def ours(name: str, more: list[str]) -> None:
        out = runner.run(f"speed-{name}", [*bench, *more])
        found[name] = json.loads(out)["lengths"] if out else []

    ours("coda", ["--lengths", args.lengths, "--attention", "cudnn"])
    ours("coda, sums in any order", ["--lengths", args.lengths, "--attention", "cudnn-unordered"])
    ours("coda, own attention", ["--lengths", args.lengths, "--attention", "own"])
    ours("coda, documents of 1000", ["--lengths", "8192", "--documents", "1000"])
    peer = [sys.executable, KIT / "torch_step.py", "--lengths", args.lengths, "--tokens", str(args.tokens),
            "--passes", str(args.passes), "--timed", str(args.timed)]  # fmt: skip
    for weights in args.torch_weights.split(","):
        out = runner.run(f"speed-torch-{weights}", [*peer, "--weights", weights])
        found[f"PyTorch, {weights} weights"] = [json.loads(line) for line in out.splitlines() if line[:1] == "{"]
    return found


def table(found: dict[str, list[dict[str, object]]]) -> str:
    """The measurements in Markdown."""
    lines = ["| | length | step s | tokens/s | TFLOP/s | MFU | memory GiB |", "|---|---|---|---|---|---|---|"]
    for name, lengths in found.items():
        for of in lengths:
            memory = of["memory"]
            bytes_of = memory[0] if isinstance(memory, list) else memory
            gib = "" if bytes_of is None else f"{float(bytes_of) / 2**30:.1f}"  # type: ignore[arg-type]
            mfu = "" if of["mfu"] is None else f"{100 * float(of['mfu']):.1f} %"  # type: ignore[arg-type]
            lines.append(
                f"| {name} | {of['length']} | {of['median']:.4f} | {of['tokens_per_second']:.0f} | "
                f"{float(of['flops']) / 1e12:.0f} | {mfu} | {gib} |"  # type: ignore[arg-type]
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for what is found")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of them, with commas between")
    parser.add_argument("--seeds", type=int, default=4, help="how often kernels are tried at drawn sizes")
    parser.add_argument("--lengths", default="1024,2048,4096,8192", help="tokens per row")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of one forward and backward pass")
    parser.add_argument("--passes", type=int, default=4, help="passes of a step")
    parser.add_argument("--timed", type=int, default=10, help="steps that are timed")
    parser.add_argument("--torch-weights", default="f32,bf16", help="PyTorch's weights: f32, bf16")
    args = parser.parse_args()
    unknown = set(args.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if shutil.which("nvidia-smi") is None:
        parser.exit(2, "error: there is no nvidia-smi here\nhint: run this on a machine with an NVIDIA card\n")
    args.out.mkdir(parents=True, exist_ok=True)
    runner, parts = Runner(args.out), args.parts.split(",")
    results: dict[str, object] = {"machine": machine()}
    print(json.dumps(results["machine"]), flush=True)
    if "kernels" in parts:
        kernels(runner, args.seeds)
    if "sanitizer" in parts:
        sanitizer(runner)
    if "engine" in parts:
        engine(runner)
    if "gradients" in parts:
        command = [sys.executable, KIT / "gradients.py", KIT / "coda-trainer", args.out / "gradients"]
        out = runner.run("gradients", command)
        shutil.rmtree(args.out / "gradients", ignore_errors=True)
        results["gradients"] = [json.loads(line) for line in out.splitlines() if line[:1] == "{"]
    if "speed" in parts:
        found = speed(runner, args)
        results["speed"] = found
        (args.out / "results.md").write_text(table(found))
        print(table(found))
    results["failed"] = runner.failed
    (args.out / "results.json").write_text(json.dumps(results, indent=1))
    return 1 if runner.failed else 0


if __name__ == "__main__":
    sys.exit(main())
