"""Noise that depends on where a row comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from coda_shards.feed import Batch
from coda_shards.noise.base import Noise, Noised


@dataclass(frozen=True)
class BySource:
    """A noise for the rows of each named source, and one for all others; all of one kind.

    With `Coda` it draws what `curriculum.sources` of a manifest says.
    """

    named: Mapping[str, Noise]
    others: Noise

    def __call__(self, batch: Batch) -> Noised:
        """The batch, noised."""
        if unknown := set(self.named) - set(batch.sources):
            raise ValueError(f"no source {sorted(unknown)[0]}, only {', '.join(batch.sources)}")
        # All unnamed sources together: a batch may have rows of many.
        numbers = {name: batch.sources.index(name) for name in self.named}
        rest = ~np.isin(batch.rows.source, list(numbers.values()))
        groups = [(self.others, rest)]
        groups += [(self.named[name], batch.rows.source == n) for name, n in numbers.items()]
        places = [(noise, np.flatnonzero(here)) for noise, here in groups if here.any()]
        parts = [noise(batch.of(here)) for noise, here in places]
        kinds = {type(part).__name__ for part in parts}
        if len(kinds) > 1:
            raise ValueError(f"the noises of one batch are of several kinds: {sorted(kinds)}")
        back = np.argsort(np.concatenate([here for _, here in places]))
        names = [field.name for field in fields(parts[0])]
        joined = {n: np.concatenate([getattr(part, n) for part in parts])[back] for n in names}
        return type(parts[0])(**joined)
