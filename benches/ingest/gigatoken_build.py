"""Files to packed rows of 8192 ids with gigatoken, as its users write it: TOKENIZER GLOB FIELD OUT."""

import glob
import pathlib
import sys

import awkward
import gigatoken
import numpy as np

EOS = 151_645
ROW = 8192


def main() -> None:
    tokenizer, paths, field, out = sys.argv[1:]
    files = sorted(glob.glob(paths))
    if files[0].endswith(".parquet"):
        source = gigatoken.ParquetFileSource(files, column=field)
    else:
        source = gigatoken.JsonlFileSource(files, field=field)
    ids = gigatoken.Tokenizer(tokenizer).encode_files(source)
    ends = np.cumsum(awkward.num(ids, axis=1).to_numpy())
    flat = awkward.flatten(ids, axis=1).to_numpy()
    flat = np.insert(flat, ends, EOS).astype(np.uint32)
    rows = len(flat) // ROW
    flat[: rows * ROW].tofile(pathlib.Path(out) / "gigatoken.bin")


if __name__ == "__main__":
    main()
