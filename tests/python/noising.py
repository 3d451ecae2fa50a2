"""The vectorised noise: against `masks.plan`, against plain loops, and against its own laws.

All seeds are fixed: a law that fails, fails always.
"""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coda_shards import (
    Batch, Batches, Bd3lm, BySource, Coda, CodaNoised, Llada, Mdlm, Noise, Rows, ShardSet,
    bd3lm_attention,
)  # fmt: skip
from coda_shards.difference import Difference, holds, same
from coda_shards.draws import Stream, survival_threshold, threshold
from coda_shards.index import Specials
from coda_shards.masks import Settings, plan
from coda_shards.rows import Row
from coda_shards.spans import KINDS
from coda_shards.streams import Streams, below, survival_thresholds, thresholds

SEED = 99
SPECIALS = Specials(eos=1, pad=2, mask=3)
LENGTHS = (1, 2, 3, 5, 8, 33, 257)
CASES = 150


def check_noise(packed: ShardSet, pairs: ShardSet) -> str:
    """All checks."""
    _check_streams()
    compared = sum(_check_case(random.Random(number)) for number in range(CASES))
    for shards in (packed, pairs):
        for noise in (Llada(), Llada(score_pads=False), Mdlm(), Bd3lm(24), Coda(p1=0.4, p3=0.5)):
            _check_split(shards, noise)
            _check_bounds(shards, noise)
    _check_laws()
    masks = _check_attention()
    _check_refusals()
    return (
        f"noise of {compared} random rows is that of the plain account; laws and splits hold; "
        f"{masks} attention masks of BD3LM are those of its definition"
    )


def _check_streams() -> None:
    draw = random.Random(1)
    keys = [draw.getrandbits(64) for _ in range(5)]
    epochs = [0, 1, 77, 2**24 - 1, 5]
    many = Streams(2**63 + 5, np.array(keys, dtype=np.uint64), np.array(epochs))
    for count in (1, 3, 4, 7, 40_001):
        found = many.words("TokenMask", count)
        for row, (key, epoch) in enumerate(zip(keys, epochs)):
            wanted = Stream(2**63 + 5, key, epoch, "TokenMask").words(count)
            holds(f"words of row {row}, {count} of them", np.array_equal(found[row], wanted))

    edges = [0.0, 1e-300, 2**-32, 0.5, 1 - 2**-33, 1.0, -1.0, 7.0, math.nextafter(1.0, 0.0)]
    reals = np.array(edges + [draw.random() for _ in range(200)])
    same("thresholds", thresholds(reals).tolist(), [threshold(p) for p in reals.tolist()])
    keep = np.array([min(max(p, 0.0), 1.0) for p in reals.tolist()] * 2)
    sizes = np.array([draw.choice([1, 2, 3, 8, 31, 1000]) for _ in keep])
    pairs = zip(keep.tolist(), sizes.tolist())
    wanted_limits = [survival_threshold(p, k) for p, k in pairs]
    same("survival thresholds", survival_thresholds(keep, sizes).tolist(), wanted_limits)
    words = np.array([0, 1, 2**32 - 1], dtype=np.uint32)
    for limit, under in [(0, 0), (1, 1), (2**32 - 1, 2), (2**32, 3)]:
        found_below = below(words, np.array(limit, dtype=np.uint64))
        same(f"words below {limit}", int(found_below.sum()), under)


def _random_rows(draw: random.Random, length: int, count: int) -> list[Row]:
    """Rows of all shapes that the format allows."""
    rows = []
    for number in range(count):
        valid = draw.randint(1, length)
        cuts = sorted(draw.sample(range(length + 1), min(length + 1, 2 * draw.randint(0, 3))))
        spans = [(a, b - a) for a, b in zip(cuts[0::2], cuts[1::2])]
        texts = [(a, draw.randint(2, 40), draw.randint(0, 1)) for a in _some(draw, valid)]
        texts = sorted({t for t in texts if sum(t[:2]) <= valid}, key=lambda t: (t[0], -t[1], t[2]))
        rows.append(Row(
            number=number,
            tokens=np.array([draw.randint(3, 9) for _ in range(length)], dtype=np.uint32),
            segments=np.zeros(1, dtype=np.uint32),
            row_key=draw.getrandbits(64),
            source=0,
            prefix_len=draw.choice([0, draw.randint(0, valid)]),
            valid_len=valid,
            maskable=np.array(spans, dtype=np.uint32).reshape(-1, 2),
            spans=np.array(texts, dtype=np.uint32).reshape(-1, 3),
        ))  # fmt: skip
        rows[-1].tokens[valid:] = SPECIALS.pad
    return rows


def _some(draw: random.Random, below: int) -> list[int]:
    return [draw.randrange(below) for _ in range(draw.choice([0, below // 3, below]))]


def batch_of(
    rows: list[Row],
    epochs: list[int],
    step: int,
    seed: int,
    specials: Specials,
    sources: tuple[str, ...] = ("all",),
) -> Batch:
    """Rows that were chosen by hand as a batch."""
    together = Rows(
        number=np.array([row.number for row in rows]),
        tokens=np.stack([row.tokens for row in rows]),
        row_key=np.array([row.row_key for row in rows], dtype=np.uint64),
        source=np.array([row.source for row in rows], dtype=np.uint16),
        prefix_len=np.array([row.prefix_len for row in rows], dtype=np.uint32),
        valid_len=np.array([row.valid_len for row in rows], dtype=np.uint32),
        segments=[row.segments for row in rows],
        maskable=[row.maskable for row in rows],
        spans=[row.spans for row in rows],
    )
    slots = np.arange(len(rows))
    epoch, size = np.array(epochs), len(rows)
    return Batch(together, epoch, slots, size, step, 0, seed, specials, sources, KINDS)


def coda(settings: Settings) -> Coda:
    """The noise of these settings."""
    names = "profile p1 p2 p3 block_sizes sampling_eps span_ratio score_pads mask_blocks".split()
    return Coda(**{name: getattr(settings, name) for name in names})


def check_coda(
    where: str, batch: Batch, rows: list[Row], noise: Noise, settings: list[Settings]
) -> None:
    """The noise of a batch says of each row what `plan` says of it alone."""
    noised = noise(batch)
    if not isinstance(noised, CodaNoised):
        raise Difference(f"{where}: {noise} is not CODA's")
    for i, (row, epoch) in enumerate(zip(rows, batch.epoch.tolist())):
        wanted = plan(settings[i], row.shape, epoch)
        here = f"{where}, row {row.number} of a batch"
        same(f"{here}: sigma", float(noised.sigma[i]).hex(), wanted.sigma.hex())
        taken = {"S1": noised.s1[i], "S2": noised.s2[i], "S3": noised.block_size[i] > 0}
        same(f"{here}: strategies", [n for n, is_so in taken.items() if is_so], wanted.strategies)
        same(f"{here}: prefix", int(noised.prefix_len[i]), wanted.prefix_len)
        same(f"{here}: valid", int(noised.valid_len[i]), wanted.valid_len)
        same(f"{here}: block size", int(noised.block_size[i]) or None, wanted.block_size)
        same(f"{here}: masked", np.flatnonzero(noised.masked[i]).tolist(), wanted.masked)
        clean = row.tokens.tolist()
        if "S2" in wanted.strategies:
            clean[wanted.valid_len :] = [batch.specials.pad] * (len(clean) - wanted.valid_len)
        same(f"{here}: clean", noised.clean[i].tolist(), clean)
        hidden = set(wanted.masked)
        seen = [batch.specials.mask if j in hidden else token for j, token in enumerate(clean)]
        same(f"{here}: noised", noised.noised[i].tolist(), seen)
        weight = float(np.float32(1.0 / wanted.sigma))
        scored = [j > 0 and token == batch.specials.mask for j, token in enumerate(seen)]
        same(f"{here}: weight", noised.weight[i].tolist(), [weight * s for s in scored])


def _check_case(draw: random.Random) -> int:
    """Rows and settings by chance, through all four kinds of noise."""
    rows = _random_rows(draw, draw.choice(LENGTHS), draw.randint(1, 6))
    epochs = [draw.choice([0, draw.randrange(2**24)]) for _ in rows]
    batch = batch_of(rows, epochs, draw.randrange(1000), draw.getrandbits(64), SPECIALS)

    def chance() -> float:
        return draw.choice([0.0, 0.5, 1.0, draw.random()])

    sizes = [draw.choice([1, 2, 3, 8, 300]) for _ in range(draw.randint(1, 4))]
    settings = Settings(
        draw.choice(["coda-paper", "coda-repo"]), batch.seed, batch.step, chance(), chance(),
        chance(), sizes, draw.choice([1e-3, 0.5, 1.0]), draw.choice([0.0, 0.3, 1.0, 2.0]),
        draw.random() < 0.5,
        draw.choice(["tokens", "lines", "brackets", ["lines", "brackets"]]),
    )  # fmt: skip
    check_coda("by chance", batch, rows, coda(settings), [settings] * len(rows))
    _check_short(draw, batch, rows)
    for stratified in (False, True):
        for pads in (False, True):
            _check_published(draw, batch, rows, stratified, pads)
    return len(rows)


def _check_short(draw: random.Random, batch: Batch, rows: list[Row]) -> None:
    """LLaDA's rows that end early are else those that do not."""
    share, pads = draw.choice([0.3, 1.0]), draw.random() < 0.5
    whole, noised = Llada(0.01, pads)(batch), Llada(0.01, pads, share)(batch)
    length = batch.rows.row_length
    for i, row in enumerate(rows):
        gate, word = (
            Stream(batch.seed, row.row_key, int(batch.epoch[i]), f"LladaShort{name}").first()
            for name in ("Gate", "Length")
        )
        short = gate < threshold(share) and row.prefix_len == 0
        end = 1 + (word * length >> 32) if short else length
        where = f"LLaDA, row {i} that ends at {end}"
        same(f"{where}: valid", int(noised.valid_len[i]), min(end, row.valid_len))
        for name, behind in [("clean", 2), ("noised", 2), ("masked", False), ("weight", 0.0)]:
            before = getattr(whole, name)[i].tolist()
            wanted = before[:end] + [behind] * (length - end)
            same(f"{where}: {name}", getattr(noised, name)[i].tolist(), wanted)


def _check_published(
    draw: random.Random, batch: Batch, rows: list[Row], stratified: bool, pads: bool
) -> None:
    """The formulas of docs/shard-format.md, position by position."""
    size = draw.choice([1, 2, 7, 100])
    length = batch.rows.row_length
    blocks = -(-length // size)
    kinds: list[tuple[Noise, str, int, bool]] = [
        (Llada(0.01, pads), "Llada", length, False),
        (Mdlm(0.02, 0.03, stratified, pads), "Mdlm", length, stratified),
        (Bd3lm(size, 0.3, 0.8, stratified, pads), "Bd3lm", size, stratified),
    ]
    for noise, name, per_time, strata in kinds:
        noised = noise(batch)
        times = blocks if name == "Bd3lm" else 1
        for i, row in enumerate(rows):
            words = {
                purpose: Stream(batch.seed, row.row_key, int(batch.epoch[i]), name + purpose)
                .words(length)
                .tolist()
                for purpose in ("Time", "Mask")
            }
            allowed = {p for s, n in row.maskable.tolist() for p in range(s, s + n)}
            for j in range(length):
                unit = words["Time"][j // per_time] / 2**32
                if strata:
                    unit = (i * times + j // per_time + unit) / (len(rows) * times)
                if name == "Llada":
                    p = 0.01 + (1.0 - 0.01) * unit
                    weight = 1.0 / p
                elif name == "Mdlm":
                    time = 0.02 + (1.0 - 0.02) * unit
                    p, weight = (1.0 - 0.03) * time, 1.0 / time
                else:
                    p = 0.3 + (0.8 - 0.3) * unit
                    weight = 1.0 / p
                if j < row.valid_len:
                    may = j in allowed and j >= row.prefix_len
                else:
                    may = pads
                masked = may and words["Mask"][j] < threshold(p)
                where = f"{name}, row {i}, position {j}"
                same(f"{where}: masked", bool(noised.masked[i, j]), masked)
                wanted = float(np.float32(weight)) if masked else 0.0
                same(f"{where}: weight", float(noised.weight[i, j]), wanted)
                token = SPECIALS.mask if masked else int(row.tokens[j])
                same(f"{where}: noised", int(noised.noised[i, j]), token)
            if length > 40:
                break  # slow, and the shorter rows say as much


def _check_split(shards: ShardSet, noise: Noise) -> None:
    """The ranks' parts together are the noise of the whole batch."""
    whole = noise(next(iter(Batches(shards, seed=SEED, batch_size=8, start=80))))
    for ranks in (2, 4, 8):
        parts = [
            noise(next(iter(Batches(
                shards, seed=SEED, batch_size=8, start=80, rank=rank, world_size=ranks
            ))))
            for rank in range(ranks)
        ]  # fmt: skip
        for name in ("clean", "noised", "masked", "sigma", "weight"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            same(
                f"{noise}: {name} of {ranks} ranks",
                np.array_equal(joined, getattr(whole, name)),
                True,
            )


def _check_bounds(shards: ShardSet, noise: Any) -> None:
    """Prompts are kept, and pads are masked only where they are scored."""
    batch = next(iter(Batches(shards, seed=SEED, batch_size=64)))
    noised = noise(batch)
    place = np.arange(shards.row_length)
    prompt = place < batch.rows.prefix_len[:, None]
    pads = place >= batch.rows.valid_len[:, None]
    holds(f"{noise}: prompts are kept", not noised.masked[prompt].any())
    if pads.any():
        same(f"{noise}: pads are masked", bool(noised.masked[pads].any()), noise.score_pads)
    holds(f"{noise}: something is masked", bool(noised.masked.any()))


def _plain_batch(count: int, length: int, seed: int) -> Batch:
    """Rows without prompt or pads, and random keys."""
    draw = random.Random(seed)
    row = _random_rows(draw, length, 1)[0]
    span = np.array([[0, length]], dtype=np.uint32)
    row = replace(row, prefix_len=0, valid_len=length, maskable=span)
    rows = [replace(row, row_key=draw.getrandbits(64)) for _ in range(count)]
    return batch_of(rows, [0] * count, 0, SEED, SPECIALS)


def _of_two_sources() -> Batch:
    """A batch whose second row is of another source."""
    batch = _plain_batch(2, 8, 1)
    rows = replace(batch.rows, source=np.array([0, 1], dtype=np.uint16))
    return replace(batch, rows=rows, sources=("all", "other"))


def _near(what: str, found: float, wanted: float, error: float) -> None:
    """Within five standard errors."""
    if not abs(found - wanted) <= 5 * error:
        raise Difference(f"{what}: {found}, expected {wanted} within 5 x {error:.2g}")


def _check_laws() -> None:
    """Shares, weights and independence, over a million positions each."""
    count, length = 4096, 256
    batch = _plain_batch(count, length, 3)
    residuals = {}
    for noise, low, high, factor, spread in [
        (Llada(), 1e-3, 1.0, 1.0, False),
        (Mdlm(stratified=False), 1e-3, 1.0, 1 - 1e-3, False),
        (Mdlm(), 1e-3, 1.0, 1 - 1e-3, True),
        (Bd3lm(16, 0.3, 0.8, stratified=False), 0.3, 0.8, 1.0, False),
        (Bd3lm(16, 0.3, 0.8), 0.3, 0.8, 1.0, True),
        (Bd3lm(300), 1e-3, 1.0, 1.0, True),
    ]:
        noised = noise(batch)
        p = noised.sigma.reshape(count, -1)
        units = (p.reshape(-1) / factor - low) / (high - low)
        _check_uniform(f"{noise}: times", units, spread)
        # Of a time, the share has the variance of p plus that of its draws.
        per_time = length / p.shape[1]
        wanted = factor * (low + high) / 2
        of_time = 0.0 if spread else (high - low) ** 2 / 12
        error = math.sqrt((of_time + 0.25 / per_time) / p.size)
        _near(f"{noise}: masked share", float(noised.masked.mean()), wanted, error)
        # The mean weight is factor; a draw's variance is E[(1 - p) / p] with p uniform.
        variance = math.log(high / low) / (high - low) - 1
        error = math.sqrt(variance / (count * length))
        mean = float(noised.weight.mean(dtype=np.float64))
        _near(f"{noise}: mean weight", mean, factor, error)

        chance = np.repeat(p, -(-length // p.shape[1]), axis=1)[:, :length]
        residual = (noised.masked - chance) / np.sqrt(chance * (1 - chance))
        middle = (chance > 0.1) & (chance < 0.9)
        _near(f"{noise}: variance of a mask", float((residual[middle] ** 2).mean()), 1.0,
              3.0 / math.sqrt(middle.sum()))  # fmt: skip
        residual[~middle] = 0.0
        for lag in (1, 2, 4, 16):
            _uncorrelated(f"{noise}: masks {lag} apart", residual[:, lag:], residual[:, :-lag])
        _uncorrelated(f"{noise}: masks of neighbouring rows", residual[1:], residual[:-1])
        other = noise(replace(batch, epoch=batch.epoch + 1)).masked
        _uncorrelated(f"{noise}: masks of two epochs", residual, other - other.mean())
        if p.shape[1] > 1 and not spread:
            times = p - p.mean()
            _uncorrelated(f"{noise}: times of neighbouring blocks", times[:, 1:], times[:, :-1])
        residuals[type(noise).__name__] = residual
    _uncorrelated("masks of LLaDA and MDLM", residuals["Llada"], residuals["Mdlm"])

    noised = Coda(p3=1.0, block_sizes=[4])(batch)
    inside = noised.masked[:, 8:-8].mean(axis=1)
    error = math.sqrt(4 * 0.25 / (count * 240))
    _near("CODA: masked share in blocks", float((inside - noised.sigma).mean()), 0.0, error)


def _check_uniform(what: str, units: NDArray[np.float64], spread: bool) -> None:
    """In [0, 1), and uniform: one in each stratum, or by Kolmogorov's distance."""
    holds(f"{what} are in [0, 1)", bool((units > -1e-12).all() and (units < 1).all()))
    ordered = np.sort(units)
    n = len(ordered)
    if spread:
        strata = np.floor(ordered * n + 1e-6).astype(np.int64)
        holds(f"{what}: one in each stratum", np.array_equal(strata, np.arange(n)))
        return
    distance = np.abs(ordered - (np.arange(n) + 0.5) / n).max()
    holds(f"{what} are uniform ({distance})", bool(distance < 1.95 / math.sqrt(n)))


def _uncorrelated(what: str, a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
    """The correlation of two sets of numbers of mean 0."""
    scale = math.sqrt(float((a**2).sum()) * float((b**2).sum()))
    _near(f"correlation of {what}", float((a * b).sum()) / scale, 0.0, 1 / math.sqrt(a.size / 2))


def _check_attention() -> int:
    """BD3LM's mask: by the words of its definition, and by what reaches a position through layers."""
    cases = 0
    for length, size in itertools.product(range(1, 15), (1, 2, 3, 5, 14, 20)):
        mask, where = bd3lm_attention(length, size), f"BD3LM's mask, {length} in blocks of {size}"
        same(f"{where}: shape", mask.shape, (2 * length, 2 * length))
        for query in range(2 * length):
            own = query % length // size
            inside = range(own * size, min((own + 1) * size, length))
            before = [length + place for place in range(own * size)]
            if query < length:
                seen = [*inside, *before]
            else:
                seen = [*before, *(length + place for place in inside)]
            same(f"{where}: query {query}", np.flatnonzero(mask[query]).tolist(), sorted(seen))
        # However many layers: nothing of the clean text that a noised block is to find reaches it.
        reach = mask
        for _ in range(5):
            reach = reach @ reach
        holds(f"{where}: layers bring nothing new", np.array_equal(reach, mask))
        cases += 1
    segments = np.array([[0, 0, 1, 1, 1, -1], [0, 0, 0, 0, 0, 0]])
    apart, whole = bd3lm_attention(6, 2, segments), bd3lm_attention(6, 2)
    holds("one document is as none", np.array_equal(apart[1], whole))
    for query, key in itertools.product(range(12), repeat=2):
        together = segments[0, query % 6] == segments[0, key % 6]
        same(f"documents, {query} to {key}", apart[0, query, key], whole[query, key] and together)
    holds("every position sees itself", bool(apart.diagonal(axis1=1, axis2=2).all()))
    return cases


def _check_refusals() -> None:
    for make in (
        lambda: bd3lm_attention(0, 4),
        lambda: bd3lm_attention(4, 0),
        lambda: bd3lm_attention(4, 2, np.zeros((2, 5), dtype=np.int32)),
        lambda: Llada(eps=0.0),
        lambda: Mdlm(noise_eps=1.0),
        lambda: Llada(short_share=1.5),
        lambda: Bd3lm(0),
        lambda: Bd3lm(4, 0.8, 0.3),
        lambda: Coda(profile="other"),
        lambda: Coda(p3=0.1, block_sizes=[]),
        lambda: Coda(mask_blocks="words"),
        lambda: Coda(mask_blocks=[]),
        lambda: Coda(p3=1.0, mask_blocks="lines")(replace(_plain_batch(2, 8, 1), spans=())),
        lambda: BySource({"none": Llada()}, Llada())(_plain_batch(2, 8, 1)),
        lambda: BySource({"all": Llada()}, Coda())(_of_two_sources()),
    ):
        try:
            make()
        except ValueError:
            continue
        raise Difference("settings without a meaning were taken")
