"""Remote sources against a real S3-compatible server on loopback: moto, from PyPI.

The same files from a bucket and from the disk must give the same rows; a large object that is cut off
by a kill is taken up where it broke.
"""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import boto3
from coda_shards import Row, ShardSet
from coda_shards.difference import holds, same
from coda_shards.verify import verify
from moto.server import ThreadedMotoServer

BUCKET = "corpora"
SECRET = "open-sesame-0123456789"
#: Bytes of the large object: several chunks of any client.
LARGE = 6 << 20


def check_remote(program: Path, work: Path, local: ShardSet, manifest: dict[str, Any]) -> str:
    """Builds from a bucket and holds it against `local`; says what was seen."""
    requests = _Requests()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        return _check(program, work, local, manifest, f"http://{host}:{port}", requests)
    finally:
        server.stop()


class _Requests(logging.Handler):
    """Takes the server's lines from the screen, and keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        log = logging.getLogger("werkzeug")
        log.setLevel(logging.INFO)
        log.propagate = False
        log.handlers = [self]

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _check(
    program: Path,
    work: Path,
    local: ShardSet,
    manifest: dict[str, Any],
    endpoint: str,
    requests: _Requests,
) -> str:
    keys = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": SECRET}
    env = {**os.environ, **keys, "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true"}
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="reader",
        aws_secret_access_key=SECRET,
    )
    client.create_bucket(Bucket=BUCKET)
    for path in sorted((work / "inputs").iterdir()):
        client.upload_file(str(path), BUCKET, f"set/{path.name}")
    client.put_object(Bucket=BUCKET, Key="set/.hidden.jsonl", Body=b'{"text": "left out"}')
    client.put_object(Bucket=BUCKET, Key="set/deep/", Body=b"")

    # The same sources by key, by pattern, and by a pattern over folders.
    places = ["set/code.jsonl.zst", "set/pro*.parquet", "**/odd.arrow"]
    for source, place in zip(manifest["data"]["sources"], places):
        source["paths"] = [f"s3://{BUCKET}/{place}"]
    manifest["data"]["out"] = "from-s3"
    (work / "from-s3.yaml").write_text(json.dumps(manifest))
    told = _run(program, work, env, ["--manifest", "from-s3.yaml", "--progress", "plain"], 0)
    remote = verify(work / "from-s3")
    same("rows from a bucket", len(remote), len(local))
    for ours, theirs in zip(remote, local):
        same("a row from a bucket", _content(ours), _content(theirs))
    origins = [source["origins"] for source in remote.index["sources"]]
    same("origins", origins, [[f"s3://{BUCKET}/{place}"] for place in places])

    told += _taken_up(program, work, env, client, requests)
    missing = ["--manifest", "from-s3.yaml", f"data.sources.0.paths=[s3://{BUCKET}/none/*]"]
    told += _run(program, work, env, [*missing, "--out", "none"], 2)
    nowhere = {**env, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    told += _run(program, work, nowhere, [*missing, "--dry-run"], 0)
    holds("the secret is in no output", SECRET not in told)
    notes = [path for path in (work / ".cache").rglob("*") if path.is_file()]
    notes += [path for path in (work / "from-s3").iterdir() if path.suffix != ".arrow"]
    holds("the secret is in no file", all(SECRET.encode() not in p.read_bytes() for p in notes))
    return f"{len(remote)} rows from a bucket are those from the disk; half an object is taken up"


def _content(row: Row) -> tuple[object, ...]:
    return (row.tokens.tolist(), row.segments.tolist(), row.source, row.shape)


def _taken_up(
    program: Path, work: Path, env: dict[str, str], client: Any, requests: _Requests
) -> str:
    """A fetch that is killed, the same again, and one that finds the first half."""
    draw = random.Random(7)
    lines = []
    while sum(map(len, lines)) < LARGE:
        lines.append(json.dumps({"text": draw.randbytes(4096).hex()}).encode() + b"\n")
    content = b"".join(lines)
    client.put_object(Bucket=BUCKET, Key="large/a.jsonl", Body=content)
    manifest = json.loads((work / "from-s3.yaml").read_text())
    manifest["data"]["sources"] = [{"name": "large", "paths": [f"s3://{BUCKET}/large/"]}]
    manifest["data"]["cache"] = "cache-large"
    (work / "large.yaml").write_text(json.dumps(manifest))
    fetch = ["fetch", "--manifest", "large.yaml", "--progress", "plain"]
    cache = work / "cache-large"
    child = subprocess.Popen([program, *fetch], cwd=work, env=env, stderr=subprocess.DEVNULL)
    while child.poll() is None and not list(cache.rglob("*.part")):
        time.sleep(0)
    child.kill()
    child.wait()
    told = _run(program, work, env, fetch, 0)
    fetched = (cache / "files").rglob("*")
    whole = [p for p in fetched if p.is_file() and not p.name.startswith(".")]
    same("files of the large object", len(whole), 1)
    holds("the large object is whole", whole[0].read_bytes() == content)
    whole[0].unlink()
    whole[0].with_name(f"{whole[0].name}.part").write_bytes(content[: LARGE // 2])
    requests.lines.clear()
    told += _run(program, work, env, fetch, 0)
    parts = [line for line in requests.lines if "/large/a.jsonl" in line]
    same("answers with a part of the object", [" 206 " in line for line in parts], [True])
    holds("the object is whole again", whole[0].read_bytes() == content)
    holds("nothing half is left", not list(cache.rglob("*.part")))
    return told


def _run(program: Path, work: Path, env: dict[str, str], arguments: list[str], code: int) -> str:
    done = subprocess.run([program, *arguments], cwd=work, env=env, capture_output=True, check=False)
    told = (done.stdout + done.stderr).decode()
    same(f"exit code of {' '.join(arguments)} ({told})", done.returncode, code)
    return told
