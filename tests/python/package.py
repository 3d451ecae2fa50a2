"""The package as others get it: a wheel, its types, and the start that its README shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from coda_shards.difference import Difference, holds, same


def check_package(folder: Path, packed: Path, work: Path) -> str:
    """Builds and installs the wheel, runs the README's start on a set, and has mypy read it all."""
    work.mkdir()
    # A copy: building leaves files beside the sources, and an earlier build's may lie there.
    source = work / "source"
    left = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    shutil.copytree(folder, source, ignore=left)
    pip = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(work)]
    _run([*build, str(source)], work)
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        told = archive.read(metadata).decode()
    here = [
        p for p in (folder / "coda_shards").rglob("*") if p.suffix == ".py" or p.name == "py.typed"
    ]
    same("files of the wheel", sorted(inside), sorted(str(p.relative_to(folder)) for p in here))
    needed = re.findall(r"^Requires-Dist: (\w+)[^;\n]*$", told, re.MULTILINE)
    same("what the wheel needs", needed, ["numpy", "pyarrow"])

    installed = work / "installed"
    _run([*pip, "install", "--no-deps", "--target", str(installed), str(wheel)], work)
    start = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    if start is None:
        raise Difference("the README of the package shows no start")
    sets = work / "runs" / "quickstart" / "shards"
    sets.mkdir(parents=True)
    (sets / "pre").symlink_to(packed, target_is_directory=True)
    # The start is for a set of any sources; it may need nothing that only the checks need.
    script = f"{start[1]}\nimport sys\nprint(*sorted({{'blake3', 'torch'}} & {{*sys.modules}}))\n"
    env = {**os.environ, "PYTHONPATH": str(installed)}
    output = _run(["-c", script], work, env).splitlines()
    holds(f"the README's start prints something: {output}", len(output) > 1)
    same("heavy imports of the README's start", output[-1], "")

    # `torch.py` is read by the judges, whose environment has PyTorch.
    checked = ["-m", "mypy", "--cache-dir", str(work.parents[1] / "mypy-cache")]
    checked += ["--config-file", str(folder / "pyproject.toml"), "--exclude", r"torch\.py$"]
    _run([*checked, str(folder / "coda_shards")], work)
    return f"{wheel.name}: {len(here)} files, its README's start runs, mypy --strict is content"


def _run(arguments: Sequence[str], work: Path, env: Mapping[str, str] | None = None) -> str:
    """What Python prints; a Difference when it does not end with 0."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=work, env=env, capture_output=True, check=False
    )
    if done.returncode != 0:
        told = (done.stdout + done.stderr).decode(errors="replace")
        raise Difference(f"python {' '.join(arguments)} ended with {done.returncode}:\n{told}")
    return done.stdout.decode()
