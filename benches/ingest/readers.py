"""Random rows in batches of 64 through other readers: SHARD_SET WORK ROUNDS READER…

Rows per CPU-second, as JSON.
"""

import json
import pathlib
import resource
import shutil
import statistics
import sys
from collections.abc import Callable

import numpy as np
import pyarrow as pa

BATCH = 64
LONG_ENOUGH = 1.0

Reader = Callable[[np.ndarray], object]


def shard_tokens(directory: pathlib.Path) -> np.ndarray:
    """All rows of a shard set."""
    parts = []
    for path in sorted(directory.glob("shard-*.arrow")):
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        for chunk in table["tokens"].chunks:
            parts.append(chunk.flatten().to_numpy().reshape(len(chunk), -1))
    return np.concatenate(parts)


def numpy_memmap(rows: np.ndarray, work: pathlib.Path) -> Reader:
    path = work / "rows.bin"
    rows.tofile(path)
    mapped = np.memmap(path, dtype=np.uint32, mode="r").reshape(rows.shape)
    batch = np.empty((BATCH, rows.shape[1]), np.uint32)
    return lambda numbers: np.take(mapped, numbers, axis=0, out=batch, mode="clip")


def pyarrow_file(rows: np.ndarray, work: pathlib.Path) -> Reader:
    path = str(work / "rows.arrow")
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
    table = pa.table({"tokens": column})
    with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    mapped = pa.ipc.open_file(pa.memory_map(path)).read_all()["tokens"].combine_chunks()
    batch = np.empty((BATCH, rows.shape[1]), np.uint32)

    def read(numbers: np.ndarray) -> object:
        for place, number in enumerate(numbers):
            batch[place] = mapped[int(number)].values.to_numpy()
        return batch

    return read


def megatron(rows: np.ndarray, work: pathlib.Path) -> Reader:
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

    path = str(work / "megatron")
    builder = IndexedDatasetBuilder(path + ".bin", dtype=np.int32)
    for row in rows:
        builder.add_document(torch.from_numpy(row.astype(np.int32)), [len(row)])
    builder.finalize(path + ".idx")
    loaded = IndexedDataset(path)
    batch = np.empty((BATCH, rows.shape[1]), np.int32)

    def read(numbers: np.ndarray) -> object:
        for place, number in enumerate(numbers):
            batch[place] = loaded[int(number)]
        return batch

    return read


def hf_datasets(rows: np.ndarray, work: pathlib.Path) -> Reader:
    import datasets

    path = str(work / "hf")
    shutil.rmtree(path, ignore_errors=True)
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
    datasets.Dataset(pa.table({"tokens": column})).save_to_disk(path)
    loaded = datasets.load_from_disk(path).with_format("numpy")
    return lambda numbers: loaded[numbers.tolist()]["tokens"]


def mosaic(rows: np.ndarray, work: pathlib.Path) -> Reader:
    import streaming

    path = str(work / "mds")
    shutil.rmtree(path, ignore_errors=True)
    with streaming.MDSWriter(out=path, columns={"tokens": f"ndarray:int32:{rows.shape[1]}"}) as out:
        for row in rows:
            out.write({"tokens": row.astype(np.int32)})
    loaded = streaming.StreamingDataset(local=path, shuffle=False, batch_size=BATCH)
    return lambda numbers: np.stack([loaded[int(number)]["tokens"] for number in numbers])


READERS = {
    "numpy": ("numpy memmap, np.take", numpy_memmap),
    "pyarrow": ("pyarrow IPC, mapped, copied out", pyarrow_file),
    "megatron": ("Megatron IndexedDataset, mapped, copied out", megatron),
    "datasets": ("HF datasets, numpy format", hf_datasets),
    "streaming": ("MosaicML streaming", mosaic),
}


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(read: Reader, count: int, seed: int) -> float:
    draw = np.random.default_rng(seed)
    start, done = cpu_seconds(), 0
    while True:
        for _ in range(4):
            read(draw.integers(0, count, BATCH))
            done += BATCH
        if (seconds := cpu_seconds() - start) > LONG_ENOUGH:
            return done / seconds


def main() -> None:
    directory, work, rounds = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
    rows = shard_tokens(directory)
    readers = dict(READERS[name] for name in sys.argv[4:])
    readers = {title: make(rows, work) for title, make in readers.items()}
    rates: dict[str, list[float]] = {name: [] for name in readers}
    for round_number in range(rounds + 1):
        for name, read in readers.items():
            rate = measure(read, len(rows), round_number)
            # The first round brings the files into memory.
            if round_number > 0:
                rates[name].append(rate)
    print(json.dumps({name: statistics.median(found) for name, found in rates.items()}))


if __name__ == "__main__":
    main()
