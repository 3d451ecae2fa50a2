"""What every judge uses: running our programs, and saying what differs."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coda_shards.difference import Difference


@dataclass(frozen=True)
class Bench:
    """Where a judge finds the release programs and may write."""

    programs: Path
    work: Path

    def run(
        self, name: str, arguments: Sequence[str | Path], env: Mapping[str, str] | None = None
    ) -> str:
        """What the program prints on stdout; a Difference when it does not end with 0."""
        code, out, err = self.outcome(name, arguments, env)
        if code != 0:
            raise Difference(f"`{name} {' '.join(map(str, arguments))}` ended with {code}:\n{err}")
        return out

    def outcome(
        self, name: str, arguments: Sequence[str | Path], env: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a program that may fail."""
        command = [str(self.programs / name), *map(str, arguments)]
        done = subprocess.run(command, cwd=self.work, env=env, capture_output=True, check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace")


def same(what: str, ours: object, theirs: object) -> None:
    """Ours has to equal theirs."""
    if ours != theirs:
        raise Difference(f"{what}: ours {ours!r}, theirs {theirs!r}")


def within(what: str, error: float, limit: float) -> float:
    """An error has to be a number of at most `limit`; returns it."""
    if not error <= limit:  # also when it is not a number
        raise Difference(f"{what}: off by {error:.3g}, allowed {limit:.1g}")
    return error
