"""Compiles the published training steps for slices of TPUs that are not here, and prints what they take.

    cargo build --release -p coda-trainer
    python3 benches/aot/shapes.py [--only WORD] [--libtpu libtpu.so] [--trace]

The compiler is libtpu, Google's, under the Google Cloud Platform terms (https://cloud.google.com/terms);
without --libtpu it is fetched from PyPI into target/aot, after the licence was named. Nothing is run: the
figures are memory, program sizes and compile times, none of them a speed. --trace runs every compilation
under strace and ends with an error if anything was sent to the network.

Prints tables in Markdown. The second one is calculated: the products' operations over the peak rate
of the chips, for several shares of that rate.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "aot"
# stage, slice, mesh: the whole slice, weights and rows over all of it
SHAPES = [
    ("pre", "v5p:4x4x8", "fsdp=128"),
    ("pre", "v4:4x4x8", "fsdp=256"),
    ("pre", "v5e:16x16", "fsdp=256"),
    ("pre", "v6e:16x16", "fsdp=256"),
    ("mid", "v5p:4x4x4", "fsdp=64"),
    ("mid", "v4:4x4x8", "fsdp=256"),
    ("post", "v5p:2x2x4", "fsdp=16"),
    ("post", "v4:2x2x2", "fsdp=16"),
    ("post", "v5e:4x4", "fsdp=16"),
    ("post", "v6e:4x4", "fsdp=16"),
]
# bf16 operations per second of a chip at its peak, as Google publishes them, and devices of a chip as
# libtpu counts them
PEAK = {"v4": 275e12, "v5e": 197e12, "v5p": 459e12, "v6e": 918e12}
DEVICES = {"v4": 2}
SHARES = (0.3, 0.4, 0.5)
# everything that can send: `connect` fixes where a stream or later datagrams go
SENT = re.compile(r"\b(connect|sendto|sendmsg|sendmmsg)\(.*AF_INET6?\b")


def libtpu() -> pathlib.Path:
    """The library, fetched if it is not there yet."""
    library = WORK / "libtpu" / "libtpu.so"
    if not library.exists():
        requirements = HERE / "libtpu.txt"
        print("fetching libtpu: proprietary, Google Cloud Platform terms", file=sys.stderr)
        WORK.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        pip += ["--python-version", "3.12", "--only-binary=:all:", "--platform", "manylinux_2_31_x86_64"]
        with tempfile.TemporaryDirectory(dir=WORK) as folder:
            subprocess.run([*pip, "-r", requirements, "-d", folder], check=True)
            (wheel,) = pathlib.Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as parts:
                parts.extractall(pathlib.Path(folder) / "out")
            (pathlib.Path(folder) / "out" / "libtpu").rename(WORK / "libtpu")
    print((library.parent / "LICENSE").read_text().strip(), file=sys.stderr)
    return library


def compiled(program, library, shape, trace):
    """One step: the JSON of `plan`, or the words of its error."""
    stage, slice_, mesh = shape
    command = [program, "plan", "--stage", stage, "--train-rows", "100000", "--json"]
    command += ["--aot", slice_, "--mesh", mesh, "--plugin", library]
    log = WORK / "strace.log"
    if trace:
        # the filter in the kernel stops the process for these calls only
        strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=network", "-e", "signal=none"]
        command = [*strace, "-o", log, *command]
    started = time.monotonic()
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(f"{shape}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    if trace:
        sent = [line for line in log.read_text().splitlines() if SENT.search(line)]
        if sent:
            sys.exit("something was sent to the network:\n" + "\n".join(sent))
    if ran.returncode not in (0, 1):
        sys.exit(ran.stderr)
    # 1: it does not fit, which is an answer
    return json.loads(ran.stdout) if ran.returncode == 0 else ran.stderr.strip().splitlines()[0]


def gb(count) -> str:
    return f"{count / 1e9:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--program", default=ROOT / "target" / "release" / "coda-trainer")
    parser.add_argument("--libtpu", type=pathlib.Path)
    parser.add_argument("--only", default="", help="shapes whose name has this word, as in `post v5e`")
    parser.add_argument("--trace", action="store_true")
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    library = options.libtpu or libtpu()
    found = []
    for shape in SHAPES:
        if options.only in " ".join(shape):
            found.append((shape, compiled(options.program, library, shape, options.trace)))
            (WORK / "found.json").write_text(json.dumps(found, indent=1))
    print("| stage | slice | mesh | passes of rows | GB a device | of | program MB | compiled in s |")
    print("|---|---|---|---|---|---|---|---|")
    for (stage, slice_, mesh), plan in found:
        if isinstance(plan, str):
            print(f"| {stage} | {slice_} | {mesh} | {plan} | | | | |")
            continue
        ahead = plan["ahead"]
        limit = gb(ahead["limit"]) if ahead["limit"] else "?"
        passes = f"{ahead['passes']} of {ahead['rows_of_a_pass']}"
        print(
            f"| {stage} | {slice_} | {mesh} | {passes} | {gb(ahead['peak'])} | {limit} "
            f"| {ahead['serialized'] / 1e6:.1f} | {ahead['seconds']:.0f} |"
        )
    print("\n| stage | slice | chips | operations a step | for the model | "
          + " | ".join(f"tokens/s at {share:.0%}" for share in SHARES) + " |")
    print("|---" * (5 + len(SHARES)) + "|")
    for (stage, slice_, _), plan in found:
        if isinstance(plan, str):
            continue
        generation = slice_.split(":")[0]
        ahead = plan["ahead"]
        chips = ahead["slice_devices"] // DEVICES.get(generation, 1)
        # of the peak rate, for what the program computes, not for what the model needs
        rates = [plan["tokens_per_step"] * chips * PEAK[generation] * share / ahead["program_flops"]
                 for share in SHARES]
        print(
            f"| {stage} | {slice_} | {chips} | {ahead['program_flops']:.2e} | {plan['flops_per_step']:.2e} | "
            + " | ".join(f"{rate / 1e3:,.0f}k" for rate in rates) + " |"
        )


if __name__ == "__main__":
    main()
