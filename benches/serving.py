"""Requests per second of `coda-serve` at several numbers of clients, over loopback.

    python3 benches/serving.py target/release/coda-serve runs/quickstart/post [--requests 128]

Every client asks for holes of 8 tokens in a short function, one after the other, each with a seed of its own.
All numbers of clients are measured against one server, in turns; the first of each is the warm-up.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

BODY = {"prompt": "pub fn len(&self) -> usize {", "suffix": "}", "max_tokens": 8}


def measure(address: str, clients: int, requests: int) -> tuple[float, float]:
    """Requests per second, and the median seconds of one."""
    own = threading.local()
    seconds: list[float] = []

    def ask(seed: int) -> None:
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPConnection(address, timeout=120)
        started = time.perf_counter()
        body = json.dumps({**BODY, "seed": seed})
        own.connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
        answer = own.connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        seconds.append(time.perf_counter() - started)

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask, range(requests)))
    return requests / (time.perf_counter() - started), statistics.median(seconds)


def main() -> None:
    """A line for every number of clients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("checkpoint")
    parser.add_argument("--engine", default="cpu")
    parser.add_argument("--clients", default="1,8,64")
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    command = [args.program, "--checkpoint", args.checkpoint, "--listen", "127.0.0.1:0", "--engine", args.engine]
    server = subprocess.Popen([*command, "--max-rows", "64"], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        told = (line for line in server.stderr if " at http://" in line)
        address = next(told).split("http://")[-1].strip()
        numbers = [int(number) for number in args.clients.split(",")]
        found: dict[int, list[tuple[float, float]]] = {number: [] for number in numbers}
        for _ in range(args.rounds + 1):
            for number in numbers:
                found[number].append(measure(address, number, args.requests))
        for number in numbers:
            rates, medians = zip(*found[number][1:])
            rate, median = statistics.median(rates), statistics.median(medians)
            print(f"{number} at once: {rate:.1f} requests/s, {1e3 * median:.0f} ms each")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
