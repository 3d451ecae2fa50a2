"""Writes plans.json: mask plans drawn by an implementation that shares nothing with the Rust one.

Follows the page `draws` of coda-curriculum word for word, in plain Python (no packages).
Run it only to extend the cases: `python3 make.py > plans.json`. The committed file is frozen,
since shard sets and runs in the field depend on these draws.
"""

import itertools
import json
import struct

M32 = 0xFFFFFFFF
SIGMA, PREFIX_GATE, PREFIX_CUT, SUFFIX_GATE, SUFFIX_CUT = 3, 4, 5, 6, 7
BLOCK_GATE, BLOCK_SIZE, BLOCK_START, TOKEN_MASK, BATCH_BLOCK_SIZE = 8, 9, 10, 11, 12


def philox(counter, key):
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & M32, (a >> 32) ^ c3 ^ k1, a & M32
        k0, k1 = (k0 + 0x9E3779B9) & M32, (k1 + 0xBB67AE85) & M32
    return c0, c1, c2, c3


def stream(seed, row_key, epoch, purpose):
    key = seed & M32, seed >> 32
    lanes = epoch | purpose << 24, row_key & M32, row_key >> 32
    return lambda i: philox((i // 4, *lanes), key)[i % 4]


def bits(x):
    """The 64 bits of a double: not every JSON reader gets decimals back exactly."""
    return struct.unpack("<Q", struct.pack("<d", x))[0]


def bernoulli(p):
    return int(min(max(p, 0.0), 1.0) * 2**32)


def survival(keep, k):
    def fits(s):
        result, square, rest = 1.0, s / 2**32, k
        while rest:
            if rest & 1:
                result *= square
            square *= square
            rest >>= 1
        return result <= keep

    if fits(2**32):
        return 2**32
    low, high = 0, 2**32
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def plan(settings, context, row):
    length = row["length"]
    draw = lambda purpose: stream(context["seed"], row["row_key"], row["epoch"], purpose)
    gate = lambda purpose, p: draw(purpose)(0) < bernoulli(p)
    cut = lambda purpose: 1 + (draw(purpose)(0) * (length - 1) >> 32)
    pick = lambda word: settings["block_sizes"][word * len(settings["block_sizes"]) >> 32]

    eps = settings["sampling_eps"]
    sigma = eps + (1.0 - eps) * (draw(SIGMA)(0) / 2**32)
    s1 = length >= 2 and gate(PREFIX_GATE, settings["p1"])
    s2 = length >= 2 and not s1 and gate(SUFFIX_GATE, settings["p2"])
    protected = int(settings["span_ratio"] * row["prefix_len"])
    prefix = max(protected, cut(PREFIX_CUT)) if s1 else protected
    valid = min(row["valid_len"], cut(SUFFIX_CUT)) if s2 else row["valid_len"]

    def maskable(i):
        if i < prefix:
            return False
        if i >= valid:
            return context["score_pads"] and settings["p2"] == 0
        in_span = any(start <= i < start + n for start, n in row["maskable"])
        return protected <= i < row["prefix_len"] or in_span

    if context["profile"] == "coda-paper":
        k = pick(draw(BLOCK_SIZE)(0)) if gate(BLOCK_GATE, settings["p3"]) else None
    else:
        batch = stream(context["seed"], context["step"], 0, BATCH_BLOCK_SIZE)
        k = pick(batch(0)) if settings["p3"] > 0 else None
    open_ = [maskable(i) for i in range(length)]
    masked = set()
    if k is None:
        words = draw(TOKEN_MASK)
        masked = {i for i in range(length) if open_[i] and words(i) < bernoulli(sigma)}
    elif "mask_blocks" in settings:
        words, first = draw(TOKEN_MASK), list(range(length))
        free = 0
        for start, n, kind in row["spans"]:
            wanted = ["lines", "brackets"][kind] in settings["mask_blocks"]
            # Open positions side by side are one run.
            if wanted and n <= k and start >= free and all(open_[start : start + n]):
                first[start : start + n] = [start] * n
                free = start + n
        masked = {i for i in range(length) if open_[i] and words(first[i]) < bernoulli(sigma)}
    else:
        words, threshold = draw(BLOCK_START), survival(1.0 - sigma, k)
        for i in range(length - k + 1):
            if all(open_[i : i + k]) and words(i) >= threshold:
                masked.update(range(i, i + k))
    return {
        "row_key": row["row_key"], "sigma_bits": bits(sigma), "s1": s1, "s2": s2, "s3": k is not None,
        "prefix_len": prefix, "valid_len": valid, "block_size": k, "masked": sorted(masked),
    }


SETTINGS = [
    dict(p1=0.01, p2=0.01, p3=0.01, block_sizes=[2, 4, 8], sampling_eps=0.001, span_ratio=1.0),
    dict(p1=0.4, p2=0.6, p3=0.5, block_sizes=[2, 4, 8], sampling_eps=0.001, span_ratio=1.0),
    dict(p1=0.0, p2=0.0, p3=0.7, block_sizes=[3, 40], sampling_eps=0.25, span_ratio=0.3),
    dict(p1=0.5, p2=0.0, p3=0.0, block_sizes=[4], sampling_eps=0.001, span_ratio=0.5),
]
SHAPES = [
    dict(length=48, prefix_len=0, valid_len=48, maskable=[[0, 48]]),
    dict(length=61, prefix_len=17, valid_len=50, maskable=[[17, 33]]),
    dict(length=33, prefix_len=0, valid_len=30, maskable=[[2, 9], [11, 4], [15, 12]]),
    dict(length=1, prefix_len=0, valid_len=1, maskable=[[0, 1]]),
]

SPANS = [  # start, tokens, kind (0: a line, 1: brackets); by start, the longest first
    [0, 9, 0], [1, 7, 1], [3, 3, 1], [9, 12, 0], [10, 40, 1], [12, 5, 1], [12, 3, 1], [17, 4, 1],
    [21, 5, 0], [26, 7, 0], [27, 5, 1], [33, 15, 0], [34, 2, 1], [36, 9, 1],
]
OVER_SPANS = [
    dict(p1=0.3, p2=0.3, p3=1.0, block_sizes=[8, 64], mask_blocks="lines", sampling_eps=0.001, span_ratio=1.0),
    dict(p1=0.1, p2=0.0, p3=0.8, block_sizes=[4, 8, 64], mask_blocks="brackets", sampling_eps=0.25, span_ratio=0.3),
    dict(p1=0.0, p2=0.5, p3=0.9, block_sizes=[6, 16], mask_blocks=["lines", "brackets"], sampling_eps=0.1, span_ratio=1.0),
]


def cases():
    number = 0
    for settings, shape, profile in itertools.product(SETTINGS, SHAPES, ["coda-paper", "coda-repo"]):
        for score_pads in (True, False):
            number += 1
            row = dict(row_key=number * 0x9E3779B97F4A7C15 % 2**64, epoch=number % 5, **shape)
            seed = 17 if number % 2 else 2**63 + 5
            context = dict(profile=profile, seed=seed, step=number * 101, score_pads=score_pads)
            yield dict(settings=settings, context=context, row=row, plan=plan(settings, context, row))
    for settings, shape, profile in itertools.product(OVER_SPANS, SHAPES[:3], ["coda-paper", "coda-repo"]):
        for score_pads in (True, False):
            number += 1
            spans = [span for span in SPANS if span[0] + span[1] <= shape["valid_len"]]
            row = dict(row_key=number * 0x9E3779B97F4A7C15 % 2**64, epoch=number % 5, **shape, spans=spans)
            seed = 17 if number % 2 else 2**63 + 5
            context = dict(profile=profile, seed=seed, step=number * 101, score_pads=score_pads)
            yield dict(settings=settings, context=context, row=row, plan=plan(settings, context, row))


print("[\n" + ",\n".join(json.dumps(case) for case in cases()) + "\n]")
