"""Checkpoints in both directions: `transformers` writes and we read, we write and it reads.

`transformers` runs its own Qwen3 with a mask that lets everything see everything, so its logits
judge ours. Files that no loader should trust are made byte by byte and must be refused by name.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import ModelCard
from model import Shape, distance
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen3Config, Qwen3ForCausalLM,
)  # fmt: skip
from verdict import Bench, Difference, same, within

LOGITS = 1e-5
# The names that the sampler of the released model knows, and ours.
ALGORITHMS = ("origin", "maskgit_plus", "topk_margin", "entropy")
transformers.utils.logging.disable_progress_bar()
ROWS, LENGTH = 2, 37
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Case:
    """A directory as `transformers` writes it."""

    name: str
    tied: bool
    dtype: torch.dtype
    shards: bool


CASES = [
    Case(f"{'tied' if tied else 'untied'} {'bf16' if dtype == torch.bfloat16 else 'f32'} "
         f"{'sharded' if shards else 'single'}", tied, dtype, shards)
    for tied in (True, False)
    for dtype in (torch.float32, torch.bfloat16)
    for shards in (False, True)
]  # fmt: skip


def shape_of(case: Case) -> Shape:
    """A small model whose head dimension is not width over heads, as Qwen3's need not be."""
    return Shape(48, 100, 4, 2, 16, 512, 2, case.tied, rope_theta=1e4)


def logits_of(folder: Path, ids: Tensor) -> Tensor:
    """`transformers`' logits with full attention in both directions, in f32.

    The model is loaded as f32: casting one would round its rotary frequencies on the way.
    """
    model = Qwen3ForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    everything = torch.zeros(ids.shape[0], 1, ids.shape[1], ids.shape[1])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=everything).logits


def write(case: Case, folder: Path, tokenizer: Path) -> None:
    """A random model saved by `transformers`, with the ids that a diffusion model adds."""
    torch.manual_seed(CASES.index(case))
    config = Qwen3Config(**shape_of(case).config(), attn_implementation="eager")
    model = Qwen3ForCausalLM(config).to(case.dtype).eval()
    for name, weight in model.named_parameters():
        with torch.no_grad():
            weight.copy_(1 + 0.3 * torch.randn(weight.shape) if "norm" in name else weight * 3)
    model.save_pretrained(folder, max_shard_size="60KB" if case.shards else "5GB")
    shutil.copy(tokenizer, folder / "tokenizer.json")


def tensors(folder: Path) -> dict[str, Tensor]:
    """All weights of a directory."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def same_bits(what: str, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Names, types and every bit."""
    same(f"{what}: tensors", sorted(ours), sorted(theirs))
    for name, tensor in theirs.items():
        same(f"{what}: type of {name}", ours[name].dtype, tensor.dtype)
        same(f"{what}: bits of {name}", bool(torch.equal(ours[name], tensor)), True)


def our_logits(bench: Bench, folder: Path, ids: Tensor) -> Tensor:
    """Ours, by `coda-trainer check`."""
    mask = shape_of(CASES[0]).mask
    noised = ids.clone()
    noised[:, -1] = mask
    batch = {"input_ids": ids.int(), "noised_ids": noised.int(), "sigma": torch.full((ROWS,), 0.5)}
    save_file(batch, bench.work / "batch.safetensors")
    out = bench.work / "out.safetensors"
    more = ["--batch", bench.work / "batch.safetensors", "--out", out, "--logits"]
    bench.run("coda-trainer", ["check", "--checkpoint", folder, *more])
    return load_file(out)["logits"]


def judge(bench: Bench) -> Iterator[str]:
    """Reading, exporting, refusing."""
    tokenizer = bench.work / "tokenizer.json"
    source = REPOSITORY / "curriculum" / "src"
    train = ["train-tokenizer", "--quiet", "--vocab-size", "512", "--input", source]
    bench.run("coda-ingest", [*train, "--out", tokenizer])
    ids = torch.randint(0, 511, (ROWS, LENGTH), generator=torch.Generator().manual_seed(3))
    ids[:, -1] = shape_of(CASES[0]).mask
    for case in CASES:
        yield read_and_export(bench, case, tokenizer, ids)
    yield config_is_not_believed(bench, tokenizer, ids)
    yield model_card(bench)
    yield refused(bench, tokenizer)


def read_and_export(bench: Bench, case: Case, tokenizer: Path, ids: Tensor) -> str:
    """Read theirs, export it in both types, load that with theirs."""
    folder = bench.work / case.name.replace(" ", "-")
    write(case, folder, tokenizer)
    theirs = tensors(folder)
    files = len(list(folder.glob("*.safetensors")))
    same(f"{case.name}: several files", files > 1, case.shards)
    same(f"{case.name}: a head of its own", "lm_head.weight" in theirs, not case.tied)
    right = logits_of(folder, ids)
    read = within(f"{case.name}: logits", distance(our_logits(bench, folder, ids), right), LOGITS)

    for dtype in ("f32", "bf16"):
        out = bench.work / f"{folder.name}-{dtype}"
        bench.run("coda-trainer", ["export", folder, "--hf", out, "--dtype", dtype])
        wanted = torch.float32 if dtype == "f32" else torch.bfloat16
        same_bits(f"{case.name} to {dtype}", tensors(out), {n: t.to(wanted) for n, t in theirs.items()})
        back, report = AutoModelForCausalLM.from_pretrained(
            out, dtype="auto", attn_implementation="eager", output_loading_info=True
        )
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            same(f"{case.name} to {dtype}: {kind}", sorted(report[kind]), [])
        same(f"{case.name} to {dtype}: type", back.dtype, wanted)
        same(f"{case.name} to {dtype}: tied", back.config.tie_word_embeddings, case.tied)
        if wanted == torch.float32 or case.dtype == torch.bfloat16:
            same(f"{case.name} to {dtype}: transformers' logits",
                 bool(torch.equal(logits_of(out, ids), right)), True)  # fmt: skip
        text = "fn main() { let x = 1; }"
        same(f"{case.name} to {dtype}: tokens", AutoTokenizer.from_pretrained(out)(text)["input_ids"],
             Tokenizer.from_file(str(tokenizer)).encode(text).ids)  # fmt: skip
        sampling = GenerationConfig.from_pretrained(out)
        same(f"{case.name} to {dtype}: algorithm", sampling.alg in ALGORITHMS, True)
        same(f"{case.name} to {dtype}: mask", sampling.mask_token_id, shape_of(case).mask)
        again = distance(our_logits(bench, out, ids), logits_of(out, ids))
        within(f"{case.name} to {dtype}: our logits of the export", again, LOGITS)
    return f"{case.name}, {files} files: logits {read:.1e}, both exports bit for bit"


def config_is_not_believed(bench: Bench, tokenizer: Path, ids: Tensor) -> str:
    """A head of its own under a config that says tied, as the released model has it."""
    case = next(c for c in CASES if not c.tied)
    folder = bench.work / "says-tied"
    write(case, folder, tokenizer)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    honest = bench.work / case.name.replace(" ", "-")
    error = distance(our_logits(bench, folder, ids), logits_of(honest, ids))
    within("a config that says tied: logits", error, LOGITS)
    out = bench.work / "says-tied-export"
    bench.run("coda-trainer", ["export", folder, "--hf", out])
    said = json.loads((out / "config.json").read_text())["tie_word_embeddings"]
    same("a config that says tied: the export's config", said, False)
    same("a config that says tied: transformers' logits of the export",
         bool(torch.equal(logits_of(out, ids), logits_of(honest, ids))), True)  # fmt: skip
    return "a config that says tied over weights that are not is corrected"


def model_card(bench: Bench) -> str:
    """The card of an export, as the hub's own library reads it."""
    results = {
        "evaluation": {"benchmark": "humaneval+", "data": {"hash": "abc"}}, "base": {"1": 0.5},
        "plus": {"1": 0.25}, "problems": 4, "samples": 4, "tasks": [],
    }  # fmt: skip
    (bench.work / "results.json").write_text(json.dumps(results))
    folder, out = bench.work / CASES[0].name.replace(" ", "-"), bench.work / "with-card"
    more = ["--name", "A: model", "--license", "apache-2.0", "--results", bench.work / "results.json"]
    bench.run("coda-trainer", ["export", folder, "--hf", out, *more])
    card = ModelCard.load(out / "README.md", ignore_metadata_errors=False)
    same("card: library", card.data.library_name, "transformers")
    same("card: licence", card.data.license, "apache-2.0")
    [result] = card.data.eval_results
    found = card.data.model_name, result.dataset_name, result.metric_type, result.metric_value
    same("card: results", found, ("A: model", "humaneval+", "pass@1", 25.0))
    return "a card with results, read by huggingface_hub"


def container(header: bytes, data: bytes) -> bytes:
    """A safetensors file with this header, whatever it says."""
    return struct.pack("<Q", len(header)) + header + data


def refused(bench: Bench, tokenizer: Path) -> str:
    """Damaged and hostile directories: exit code 4 and the fault's name."""
    case = next(c for c in CASES if not c.tied and c.dtype == torch.float32)
    good = bench.work / "good"
    write(case, good, tokenizer)
    path = "model.safetensors"
    whole = (good / path).read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header, data = whole[8 : 8 + size], whole[8 + size :]
    entries: dict[str, Any] = json.loads(header)
    norm = "model.norm.weight"

    def edited(change: dict[str, Any], drop: str = "") -> bytes:
        return json.dumps({n: e for n, e in {**entries, **change}.items() if n != drop}).encode()

    twice = header.rstrip()[:-1] + f', "{norm}": {json.dumps(entries[norm])}}}'.encode()
    begin, end = entries[norm]["data_offsets"]
    wrong_size = {norm: {**entries[norm], "shape": [47]}}
    overlap = {norm: {**entries[norm], "data_offsets": [begin - 4, end - 4]}}
    strange = {norm: {**entries[norm], "dtype": "F8_E5M2"}}
    weights = load_file(good / path)
    turned = {**weights, "model.embed_tokens.weight": weights["model.embed_tokens.weight"].T.contiguous()}
    index = {"metadata": {}, "weight_map": {name: "../good/model.safetensors" for name in weights}}
    faults: dict[str, tuple[bytes, str]] = {
        "trailing bytes": (whole + b"\0\0\0\0", "bytes"),
        "truncated": (whole[:-4], "bytes"),
        "a name twice": (container(twice, data), norm),
        "a shape that is not its size": (container(edited(wrong_size), data), norm),
        "overlapping tensors": (container(edited(overlap), data), "model"),
        "an unknown type": (container(edited(strange), data), "F8_E5M2"),
        "an oversized header": (struct.pack("<Q", 2**40) + header + data, "header"),
        "a header past the end": (struct.pack("<Q", len(whole)) + header + data, "header"),
        "no JSON": (container(b"{" + b"x" * 63, data), "model.safetensors"),
        "nothing": (b"", "model.safetensors"),
    }
    for name, (content, word) in faults.items():
        must_refuse(bench, good, name, word, {path: content})
    for name, changed, word in (
        ("a missing tensor", {n: w for n, w in weights.items() if n != norm}, norm),
        ("a surplus tensor", {**weights, "model.bias": torch.ones(2)}, "model.bias"),
        ("a wrong shape", turned, "model.embed_tokens.weight"),
        ("a tensor of integers", {**weights, norm: weights[norm].int()}, norm),
    ):
        save_file(changed, bench.work / "changed.safetensors")
        content = (bench.work / "changed.safetensors").read_bytes()
        must_refuse(bench, good, name, word, {path: content})
    outside = json.dumps(index).encode()
    must_refuse(bench, good, "a path outside", "../good", {path: None, f"{path}.index.json": outside})
    return f"{len(faults) + 5} damaged or hostile directories are refused by name"


def must_refuse(
    bench: Bench, good: Path, fault: str, word: str, files: dict[str, bytes | None]
) -> None:
    """Exit code 4, a message with the word, no output."""
    folder = bench.work / "bad" / "model"
    shutil.rmtree(folder.parent, ignore_errors=True)
    shutil.copytree(good, folder)
    for name, content in files.items():
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
    out = folder.parent / "out"
    code, _, err = bench.outcome("coda-trainer", ["export", folder, "--hf", out])
    if code != 4 or word not in err or out.exists():
        raise Difference(f"{fault}: exit code {code}, output {out.exists()}, told: {err}")
