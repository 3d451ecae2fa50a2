"""What goes wrong when a set is opened or read, said so that it can be mended."""

from __future__ import annotations

from pathlib import Path


class ShardError(ValueError):
    """A set that cannot be used: which file, what was expected there, and what to do about it."""

    def __init__(self, path: Path, problem: str, hint: str) -> None:
        super().__init__(f"{path}: {problem}\nhint: {hint}")
        self.path = path
        self.problem = problem
        self.hint = hint

    def __reduce__(self) -> tuple[type[ShardError], tuple[Path, str, str]]:
        # A worker process has to be able to hand the error on.
        return ShardError, (self.path, self.problem, self.hint)
