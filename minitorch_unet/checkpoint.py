"""Checkpoints: named arrays and a JSON value in one safetensors file, under a SHA-256 of everything in it.

The file is written here and not by the safetensors library, whose order of metadata changes from run to run
(equal contents must give equal bytes) and which writes non-contiguous arrays wrongly (0.8.0). The format:

    8 bytes  length of the header, little-endian
    header   JSON {"__metadata__": {name: text}, array: {"dtype", "shape", "data_offsets": [begin, end]}, ...}
    arrays   their bytes, C order, little-endian, without gaps

The library reads it back. A file is accepted only if its header is, byte for byte, the one that this module
would write for the contents just read, and if the digest is theirs: no change anywhere goes unnoticed.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from minitorch_unet.errors import DataError
from minitorch_unet.files import atomic_write

FORMAT = "minitorch_unet checkpoint 1"

_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "float16": "F16",
    "uint32": "U32",
    "int32": "I32",
    "float32": "F32",
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
}


class Checkpoint(NamedTuple):
    """What a checkpoint holds: `arrays` in the order of their names, and the JSON value `metadata`."""

    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]


def save_checkpoint(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Write arrays (any shape and memory order) and a JSON mapping to `path`, replacing it in one step.

    Equal contents give equal bytes. Tuples in `metadata` come back as lists; infinities and NaN are kept.

    Raises TypeError for what is no NumPy array, an unsupported dtype or a value that JSON cannot hold,
    ValueError for an illegal name, DataError where the file cannot be written (the previous one is then
    unchanged).
    """
    for name, array in arrays.items():
        _check(name, array)
    _check_keys(metadata)
    try:
        text = json.dumps(dict(metadata), sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise TypeError(f"save_checkpoint: metadata must be a JSON value: {error}") from None
    order = _file_order(arrays)
    digest = _digest(arrays, order, text)

    def write(stream: BinaryIO) -> None:
        stream.write(_header(arrays, order, text, digest))
        for name in order:
            stream.write(_raw(arrays[name]))

    atomic_write(path, write)


def load_checkpoint(path: str | os.PathLike[str], verify: bool = True) -> Checkpoint:
    """Read a checkpoint; nothing is returned before its digest has been found right.

    verify=False reads safetensors files of other programs as well: no digest is looked at, and for a file
    that is no checkpoint `metadata` is the file's own mapping from names to texts.

    Raises DataError (one line) for a file that is missing, truncated, damaged or no checkpoint.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint file")
    try:
        with safe_open(path, framework="numpy") as file:
            fields = file.metadata() or {}
            if verify:
                _check_format(path, fields)
            arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
        if verify:
            _verify(path, arrays, fields)
        if fields.get("format") == FORMAT:
            return Checkpoint(arrays, json.loads(fields["metadata"]))
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"{path}: damaged or not a safetensors file ({_one_line(error)})") from error
    return Checkpoint(arrays, dict(fields))


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a checkpoint's metadata; the whole file is read and verified for it.

    Raises DataError like `load_checkpoint`.
    """
    return load_checkpoint(path).metadata


def _check(name: object, array: object) -> None:
    # Lone surrogates cannot be written as UTF-8, so no reader of the format takes them.
    if not isinstance(name, str) or name in ("", "__metadata__") or re.search("[\ud800-\udfff]", name):
        raise ValueError(
            f"save_checkpoint: {name!r} is no legal array name: use a non-empty text, not '__metadata__'"
        )
    if not isinstance(array, np.ndarray):
        raise TypeError(f"save_checkpoint: {name!r} is a {type(array).__name__}, expected a NumPy array")
    if array.dtype.name not in _DTYPES:
        raise TypeError(f"save_checkpoint: {name!r} has dtype {array.dtype}, legal are {', '.join(_DTYPES)}")


def _check_keys(value: object) -> None:
    """Refuse keys that are no text: JSON would silently turn 1 into "1"."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"save_checkpoint: metadata must be a JSON value: key {key!r} is no text")
            _check_keys(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check_keys(inner)


def _file_order(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Sort by falling item size, then name: every array then begins at a multiple of its item size."""
    return sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))


def _raw(array: np.ndarray) -> memoryview:
    """Return the array's bytes in C order, little-endian (without a copy where they lie so already)."""
    little = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    return little.reshape(-1).view(np.uint8).data


def _header(arrays: Mapping[str, np.ndarray], order: list[str], metadata: str, digest: str) -> bytes:
    """Return the length and the JSON header, padded with spaces: the arrays begin at a multiple of 8."""
    header: dict[str, Any] = {"__metadata__": {"format": FORMAT, "metadata": metadata, "sha256": digest}}
    begin = 0
    for name in order:
        array = arrays[name]
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [begin, begin + array.nbytes],
        }
        begin += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _digest(arrays: Mapping[str, np.ndarray], order: list[str], metadata: str) -> str:
    """Return the SHA-256 of the whole file as it would be with an empty digest in its header."""
    digest = hashlib.sha256(_header(arrays, order, metadata, ""))
    for name in order:
        digest.update(_raw(arrays[name]))
    return digest.hexdigest()


def fingerprint(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> str:
    """The SHA-256 of what `save_checkpoint` would write: networks that share it predict the same."""
    return _digest(arrays, _file_order(arrays), json.dumps(metadata, sort_keys=True))


def _check_format(path: Path, fields: Mapping[str, str]) -> None:
    if "sha256" not in fields or "metadata" not in fields:
        raise DataError(
            f"{path}: not a minitorch_unet checkpoint (no SHA-256 in it); "
            "load_checkpoint(path, verify=False) reads foreign safetensors files unchecked"
        )
    if fields.get("format") != FORMAT:
        found = fields.get("format")
        raise DataError(f"{path}: unsupported checkpoint format {found!r}, expected {FORMAT!r}")


def _verify(path: Path, arrays: Mapping[str, np.ndarray], fields: Mapping[str, str]) -> None:
    order = _file_order(arrays)
    expected = _header(arrays, order, fields["metadata"], fields["sha256"])
    with open(path, "rb") as stream:
        found = stream.read(len(expected))
    if found != expected or _digest(arrays, order, fields["metadata"]) != fields["sha256"]:
        raise DataError(f"{path}: damaged checkpoint: its contents do not match the SHA-256 stored in it")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
