"""Reads every tensor of a checkpoint with h5py and compares it with the bytes in the file.

Usage: read_checkpoint.py STEP_FOLDER
Prints the number of tensor parts that were read; any difference is an error.
"""
import json
import sys

import h5py
import numpy as np

# What h5py makes of each type: bf16 and f8e5m2 are converted by the HDF5 library.
READ_AS = {"f32": "float32", "f64": "float64", "bf16": "float32", "f16": "float16",
           "f8e5m2": "float16", "f8e4m3": "uint8", "i8": "int8", "u8": "uint8", "i16": "int16",
           "u16": "uint16", "i32": "int32", "u32": "uint32", "i64": "int64", "u64": "uint64"}
BITS = {"f32": "<u4", "f64": "<u8", "bf16": "<u2", "f16": "<u2", "i16": "<u2", "u16": "<u2",
        "i32": "<u4", "u32": "<u4", "i64": "<u8", "u64": "<u8"}


def expected(raw, dtype):
    """The values that these bytes stand for, worked out without HDF5."""
    bits = np.frombuffer(raw, BITS.get(dtype, "<u1"))
    if dtype == "bf16":
        return (bits.astype("<u4") << 16).view("<f4")
    if dtype == "f8e5m2":
        return (bits.astype("<u2") << 8).view("<f2")
    return bits.view(READ_AS[dtype])


def same(a, b):
    both_nan = (a != a) & (b != b)
    bits = f"<u{a.dtype.itemsize}"
    return bool(np.all(both_nan | (a.view(bits) == b.view(bits))))


def check_piece(file, raw, piece):
    name, dtype = piece["name"], piece["dtype"]
    dataset = file[piece["dataset"]]
    count = piece["end"] - piece["begin"]
    size = list(piece["shape"])
    if "rows" in piece:
        size = [sum(run[1] for run in piece["rows"]), piece["columns"][1]]
    whole = count == np.prod(size, dtype=int)
    shape = tuple(size) if whole and size else (count,)
    assert dataset.shape == shape, (name, dataset.shape, shape)
    assert dataset.dtype == READ_AS[dtype], (name, dataset.dtype, dtype)
    attributes = dataset.attrs
    text = attributes["dtype"]
    assert (text.decode() if isinstance(text, bytes) else text) == dtype, name
    assert attributes["begin"] == piece["begin"] and attributes["end"] == piece["end"], name
    if piece["shape"]:
        assert list(np.atleast_1d(attributes["global_shape"])) == piece["shape"], name
    if "rows" in piece:
        assert list(attributes["rows"]) == [n for run in piece["rows"] for n in run], name
        assert list(attributes["columns"]) == piece["columns"], name
    values = dataset[...].reshape(-1)
    assert same(values, expected(raw, dtype)), f"{name} has other values"
    if count:
        assert dataset.id.get_offset() == piece["offset"], name


def main():
    folder = sys.argv[1]
    manifest = json.load(open(f"{folder}/manifest.json"))
    parts = 0
    for entry in manifest["files"]:
        path = f"{folder}/{entry['name']}"
        content = open(path, "rb").read()
        with h5py.File(path, "r") as file:
            assert file.attrs["step"] == manifest["step"]
            assert file.attrs["rank"] == entry["rank"]
            found = []
            file.visititems(lambda name, item: found.append(name)
                            if isinstance(item, h5py.Dataset) else None)
            assert sorted(found) == sorted(p["dataset"] for p in entry["pieces"]), found
            for piece in entry["pieces"]:
                width = {"<u2": 2, "<u4": 4, "<u8": 8}.get(BITS.get(piece["dtype"]), 1)
                size = (piece["end"] - piece["begin"]) * width
                check_piece(file, content[piece["offset"]:piece["offset"] + size], piece)
                parts += 1
    print(f"{parts} parts read")


main()
