"""The sampler of method §6 in numpy, f64 throughout: the judge of `coda_trainer::sample`.

One thing is ours and not the method's: the mask id itself is never chosen, its logit counts as
minus infinity. (The released code can choose it; the position then stays masked and is chosen
again.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
# Ids to the outputs of every position, unshifted: [L, V].
Model = Callable[[list[int]], Reals]

RANKED = ("maskgit_plus", "topk_margin", "entropy")


@dataclass(frozen=True)
class Settings:
    """The inputs of method §6."""

    steps: int
    algorithm: str
    eps: float = 1e-3
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    alg_temp: float = 0.0


def share(settings: Settings, step: int) -> float:
    """1 - s/t between two of the evenly spaced times; everything on the last step."""
    times = np.linspace(1.0, settings.eps, settings.steps + 1)
    return 1.0 if step == settings.steps - 1 else float(1.0 - times[step + 1] / times[step])


def quota(settings: Settings, step: int, masked: int) -> int:
    """How many positions a step of the ranked algorithms reveals."""
    return masked if step == settings.steps - 1 else math.floor(masked * share(settings, step))


def distribution(logits: Reals, settings: Settings) -> Reals:
    """Temperature, then top-p, then top-k, then softmax. Equal logits rank by their id."""
    logits = np.array(logits, dtype=np.float64)
    if settings.temperature > 0:
        logits /= settings.temperature
    order = np.argsort(-logits, kind="stable")
    if settings.top_p is not None and settings.top_p < 1:
        sums = np.cumsum(_softmax(logits)[order])
        # What comes after the token that crosses the threshold goes; the first always stays.
        gone = np.concatenate(([False], sums[:-1] > settings.top_p))
        logits[order[gone]] = -np.inf
    if settings.top_k is not None:
        logits[order[settings.top_k :]] = -np.inf
    return _softmax(logits)


def _softmax(logits: Reals) -> Reals:
    values = np.exp(logits - logits.max())
    return values / values.sum()


def confidence(probabilities: Reals, algorithm: str, token: int) -> float:
    """How sure the model is of a position; `token` is what was chosen there."""
    if algorithm == "maskgit_plus":
        return float(probabilities[token])
    if algorithm == "topk_margin":
        second, first = np.sort(probabilities)[-2:]
        return float(first - second)
    return float((probabilities * np.log(probabilities + 1e-10)).sum())


def positions(ids: list[int], mask: int, outputs: Reals, settings: Settings) -> dict[int, Reals]:
    """The distribution at every masked position, after the shift."""
    found = {}
    for position in (p for p, token in enumerate(ids) if token == mask):
        logits = np.array(outputs[max(position - 1, 0)], dtype=np.float64)
        logits[mask] = -np.inf
        found[position] = distribution(logits, settings)
    return found


def greedy(
    ids: list[int], mask: int, model: Model, settings: Settings
) -> Iterator[list[tuple[int, int]]]:
    """What each step of a ranked algorithm reveals at temperature 0: (position, token)."""
    assert settings.temperature == 0 and settings.alg_temp == 0
    ids = list(ids)
    for step in range(settings.steps):
        choices = positions(ids, mask, model(ids), settings)
        ranked = []
        for position, probabilities in choices.items():
            token = int(np.argmax(probabilities))  # the first of the largest
            ranked.append((-confidence(probabilities, settings.algorithm, token), position, token))
        ranked.sort()
        count = quota(settings, step, len(ranked))
        _clear(ranked, count)
        revealed = sorted((position, token) for _, position, token in ranked[:count])
        for position, token in revealed:
            ids[position] = token
        yield revealed


def _clear(ranked: list[tuple[float, int, int]], count: int) -> None:
    """The last that is revealed and the first that is not are one tie, or clearly apart: a fixture
    whose outcome hangs on the last bit of a float would judge nothing."""
    if 0 < count < len(ranked):
        gap = ranked[count][0] - ranked[count - 1][0]
        assert gap == 0 or gap > 1e-5, f"an unclear order: {gap}"


def chosen_sets(confidences: list[float], count: int, temperature: float) -> dict[str, float]:
    """The probability of each set of positions drawn without replacement from a softmax."""
    weights = _softmax(np.array(confidences) / temperature)
    sets: dict[str, float] = {}
    for order in permutations(range(len(weights)), count):
        probability, left = 1.0, 1.0
        for index in order:
            probability *= weights[index] / left
            left -= weights[index]
        name = ",".join(map(str, sorted(order)))
        sets[name] = sets.get(name, 0.0) + probability
    return sets
