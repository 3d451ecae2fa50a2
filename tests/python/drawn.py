"""`coda-curriculum draw --json`, held against the masks that this folder works out by itself."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import repeat
from typing import Any

from corpus import GLOBAL_BATCH, HELD_OUT, SEED, SPAN_RATIO, STEPS
from noising import batch_of, check_coda, coda
from coda_shards import BySource
from coda_shards.difference import holds, same, same_sequence
from coda_shards.masks import Plan, Settings, plan
from coda_shards.order import Order, SourceRows
from coda_shards.shard_set import ShardSet

Draw = Callable[[Sequence[str]], str]


@dataclass(frozen=True)
class Case:
    """One call of `draw`."""

    name: str
    manifest: str
    profile: str
    step: int
    curriculum: Mapping[str, Any]
    score_pads: bool = False
    weights: Sequence[float] | None = None
    rows: tuple[int, int] | None = None
    by_source: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def arguments(self) -> list[str]:
        """The command line after `coda-curriculum draw`."""
        overrides = [f"curriculum.{k}={json.dumps(v)}" for k, v in self.curriculum.items()]
        for name, own in self.by_source.items():
            overrides += [f"curriculum.sources.{name}.{k}={json.dumps(v)}" for k, v in own.items()]
        rows = [] if self.rows is None else ["--rows", f"{self.rows[0]}..{self.rows[1]}"]
        return [
            *("--json", "--manifest", self.manifest, "--step", str(self.step), *rows),
            *(f"profile={self.profile}", f"train.score_pads={json.dumps(self.score_pads)}"),
            *overrides,
        ]

    def settings(self, conditioned: bool, source: str | None = None) -> Settings:
        """What the mask plans of the step depend on, for the rows of a source with its own."""
        ratio = min(1.0, self.step / max(1.0, STEPS * SPAN_RATIO)) if conditioned else 1.0
        return Settings(
            profile=self.profile,
            seed=SEED,
            step=self.step,
            span_ratio=ratio,
            score_pads=self.score_pads,
            **{**self.curriculum, **self.by_source.get(source or "", {})},
        )


def _rates(p1: float, p2: float, p3: float, eps: float, sizes: list[int]) -> dict[str, Any]:
    return {"p1": p1, "p2": p2, "p3": p3, "sampling_eps": eps, "block_sizes": sizes}


WEIGHTS = (1.0, 2.0, 0.5)
_MIXED = _rates(0.3, 0.45, 0.5, 0.001, [2, 4, 8])
_PADS = _rates(0.25, 0.0, 0.4, 0.01, [4, 16, 32])

_SPANS = {"mask_blocks": "lines", "block_sizes": [6, 24, 200], "p3": 0.8}

_OWN: dict[str, dict[str, Any]] = {
    "code": {"p1": 0.9, "p3": 0.9, "block_sizes": [3, 5, 7]},
    "odd": {"p2": 0.0, "sampling_eps": 0.5},
}

CASES = [
    Case("paper, packed", "packed.yaml", "coda-paper", 0, _MIXED),
    Case("paper, packed, later epoch", "packed.yaml", "coda-paper", 399, _MIXED),
    Case("paper, weighted", "weighted.yaml", "coda-paper", 250, _MIXED, weights=WEIGHTS),
    Case("paper, rows", "packed.yaml", "coda-paper", 3, _MIXED, rows=(500, 530)),
    Case("paper, weighted, rows", "weighted.yaml", "coda-paper", 9, _MIXED, weights=WEIGHTS,
         rows=(0, 20)),
    Case("paper, by source", "packed.yaml", "coda-paper", 30, _MIXED, by_source=_OWN),
    Case("repo, by source", "packed.yaml", "coda-repo", 31, _MIXED, by_source=_OWN),
    Case("repo, packed, blocks", "packed.yaml", "coda-repo", 5, _rates(0.3, 0.3, 0.01, 0.001, [3])),
    Case("repo, packed, batch block", "packed.yaml", "coda-repo", 77, _MIXED),
    Case("repo, packed, no blocks", "packed.yaml", "coda-repo", 6, _rates(0.3, 0.3, 0.0, 0.2, [3])),
    Case("paper, lines", "packed.yaml", "coda-paper", 11, {**_MIXED, **_SPANS}),
    Case("paper, brackets", "packed.yaml", "coda-paper", 300,
         {**_MIXED, **_SPANS, "mask_blocks": "brackets"}),
    Case("repo, both, weighted", "weighted.yaml", "coda-repo", 90,
         {**_MIXED, **_SPANS, "mask_blocks": ["lines", "brackets"]}, weights=WEIGHTS),
    Case("paper, lines of one source", "packed.yaml", "coda-paper", 33, _MIXED,
         by_source={"code": _SPANS}),
    Case("paper, pairs with pads", "pairs.yaml", "coda-paper", 61, _PADS, score_pads=True),
    Case("paper, pairs without pads", "pairs.yaml", "coda-paper", 199, _MIXED, score_pads=True),
    Case("repo, pairs with pads", "pairs.yaml", "coda-repo", 40, _PADS, score_pads=True),
]  # fmt: skip


def check_drawn(draw: Draw, packed: ShardSet, pairs: ShardSet) -> tuple[int, int]:
    """All cases. How many rows and how many masked positions were compared."""
    compared = masked = 0
    strategies: set[str] = set()
    for case in CASES:
        shards = pairs if case.manifest == "pairs.yaml" else packed
        report = json.loads(draw(case.arguments()))
        check_case(case, shards, report)
        compared += len(report["rows"])
        masked += sum(len(row["masked"]) for row in report["rows"])
        for row in report["rows"]:
            strategies.add("+".join(row["strategies"]))
    # A case that never draws a strategy would prove nothing about it.
    wanted = {"", "S1", "S2", "S3", "S1+S3", "S2+S3"}
    same("strategies that the cases drew", sorted(strategies), sorted(wanted))
    return compared, masked


def check_case(case: Case, shards: ShardSet, report: dict[str, Any]) -> None:
    """One report, row by row."""
    same(f"{case.name}: step", report["step"], case.step)
    same(f"{case.name}: fingerprint", report["fingerprint"], shards.index["fingerprint"])
    visits = _visits(case, shards)
    rows = report["rows"]
    same_sequence(f"{case.name}: rows", [r["row"] for r in rows], [v[0] for v in visits])
    holds(f"{case.name}: there are rows", bool(rows))
    conditioned = case.manifest == "pairs.yaml"
    names = tuple(source.name for source in shards.sources)
    own = {name: case.settings(conditioned, name) for name in names}
    together = [shards[number] for number, _, _ in visits]
    epochs = [epoch for _, epoch, _ in visits]
    batch = batch_of(together, epochs, case.step, SEED, shards.specials, names)
    common = coda(case.settings(conditioned))
    noise = BySource({name: coda(own[name]) for name in case.by_source}, common)
    settings = [own[names[row.source]] for row in together]
    check_coda(case.name, batch, together, noise if case.by_source else common, settings)
    for found, (number, epoch, step) in zip(rows, visits):
        where = f"{case.name}, row {number}"
        row = shards[number]
        same(f"{where}: epoch", found["epoch"], epoch)
        same(f"{where}: visited_at_step", found["visited_at_step"], step)
        same(f"{where}: key", found["key"], f"{row.shape.row_key:016x}")
        same(f"{where}: source", found["source"], shards.index["sources"][row.source]["name"])
        wanted = plan(own[names[row.source]], row.shape, epoch)
        same(f"{where}: bits of sigma", _bits(found["sigma"]), _bits(wanted.sigma))
        blocks = own[names[row.source]].mask_blocks
        same(f"{where}: what blocks are", found.get("mask_blocks", "tokens"), blocks)
        for name in (f.name for f in fields(Plan) if f.name != "masked"):
            same(f"{where}: {name}", found[name], getattr(wanted, name))
        same_sequence(f"{where}: masked", found["masked"], wanted.masked)


def _visits(case: Case, shards: ShardSet) -> list[tuple[int, int, int]]:
    """(row, epoch, step) of what the call has to show."""
    sources = [
        SourceRows(source["first_row"], source["rows"], weight)
        for source, weight in zip(shards.index["sources"], case.weights or repeat(None))
    ]
    order = Order(SEED, sources, HELD_OUT)
    first = case.step * GLOBAL_BATCH
    if case.rows is None:
        turns = order.at(range(first, first + GLOBAL_BATCH))
        return [(row, epoch, case.step) for row, epoch in turns]
    # The first turn of each row from the step on, found by looking at all of them.
    trained = order.training_rows()
    wanted = [row for row in range(*case.rows) if row in trained]
    seen: dict[int, tuple[int, int]] = {}
    while any(row not in seen for row in wanted):
        for position, (row, epoch) in enumerate(order.at(range(first, first + 1000)), start=first):
            seen.setdefault(row, (epoch, position // GLOBAL_BATCH))
        first += 1000
    return [(row, *seen[row]) for row in wanted]


def _bits(number: float) -> str:
    return struct.pack(">d", number).hex()
