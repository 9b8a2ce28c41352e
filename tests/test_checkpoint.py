"""Checkpoints: round trips, equal bytes, damage of every kind noticed, no way to lose the previous file."""

import errno
import io
import json
import math
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

from minitorch_unet import files
from minitorch_unet.checkpoint import load_checkpoint, read_metadata, save_checkpoint
from minitorch_unet.errors import DataError
from minitorch_unet.files import atomic_write

DTYPES = ["?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8", ">f4", ">i8"]
ARRAYS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "step": np.array(7, dtype=np.int64),
    "mask": np.array([True, False, True]),
    "empty": np.zeros((0, 4), np.float64),
}
METADATA = {"epoch": 3, "rng": {"state": 2**127 + 1}, "best": math.inf, "name": "Größe"}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype.newbyteorder("=")
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()


@st.composite
def strided(draw: st.DrawFn) -> np.ndarray:
    """Draw an array of any dtype and rank: contiguous, transposed, Fortran-ordered, reversed or with gaps."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    content = draw(st.integers(0, 2**32 - 1))
    array = np.frombuffer(np.random.default_rng(content).bytes(dtype.itemsize * math.prod(shape)), dtype)
    if dtype.kind == "b":  # other bytes than 0 and 1 are no booleans
        array = array.view(np.uint8) % 2 == 1
    array = np.asarray(array).reshape(shape)
    kind = draw(st.sampled_from(["plain", "transposed", "fortran", "reversed", "gaps"]))
    if kind == "transposed":
        return array.T
    if kind == "fortran":
        return np.asarray(array, order="F")
    if kind == "reversed":
        return np.asarray(np.flip(array))
    if kind == "gaps" and array.ndim:
        return np.repeat(array, 3, axis=-1)[..., ::3]
    return array


@settings(max_examples=150)
@given(st.dictionaries(st.text(min_size=1, max_size=5), strided(), max_size=4))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray]) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.safetensors"
    save_checkpoint(path, arrays, METADATA)
    found = load_checkpoint(path)
    assert_same(found.arrays, arrays)
    assert found.metadata == METADATA
    assert all(array.flags.writeable for array in found.arrays.values())


def test_plain_readers_of_the_format_agree(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, ARRAYS, METADATA)
    assert_same(dict(sorted(load_file(path).items())), ARRAYS)
    assert read_metadata(path) == METADATA


def test_nan_payloads_and_negative_zero_survive(tmp_path: Path) -> None:
    bits = np.array([0x7FC00001, 0xFFC12345, 0x80000000], np.uint32)
    save_checkpoint(tmp_path / "a", {"x": bits.view(np.float32)}, {"loss": math.nan})
    found = load_checkpoint(tmp_path / "a")
    assert found.arrays["x"].view(np.uint32).tolist() == bits.tolist()
    assert math.isnan(found.metadata["loss"])


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", ARRAYS, METADATA)
    turned = {name: np.asarray(array, order="F") for name, array in reversed(ARRAYS.items())}
    save_checkpoint(tmp_path / "b", turned, dict(reversed(METADATA.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, ARRAYS, METADATA)
    whole = path.read_bytes()
    draw = random.Random(0)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        assert_refused(path)


def test_every_truncation_and_trailing_bytes_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, ARRAYS, METADATA)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert_refused(path)
    path.write_bytes(whole + b"\0")
    assert_refused(path)


def test_a_header_written_differently_is_noticed(tmp_path: Path) -> None:
    """A header may be changed without changing its meaning: the parsed contents alone would not tell."""
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, ARRAYS, METADATA)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = whole[8 : 8 + length].rstrip() + b"\n"
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + whole[8 + length :])
    assert_same(dict(sorted(load_file(path).items())), ARRAYS)
    assert_refused(path)


def assert_refused(path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_foreign_files_are_refused_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"w": np.ones(3, np.float32)}, path, metadata={"format": "pt"})
    with pytest.raises(DataError, match="verify=False"):
        load_checkpoint(path)
    found = load_checkpoint(path, verify=False)
    assert found.arrays["w"].tolist() == [1, 1, 1]
    assert found.metadata == {"format": "pt"}


def test_verify_false_reads_checkpoints_too(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", ARRAYS, METADATA)
    found = load_checkpoint(tmp_path / "a", verify=False)
    assert_same(found.arrays, ARRAYS)
    assert found.metadata == METADATA


def test_missing_files_folders_and_newer_formats(tmp_path: Path) -> None:
    assert_refused(tmp_path / "absent")
    assert_refused(tmp_path)
    fields = {"format": "minitorch_unet checkpoint 2", "metadata": "{}", "sha256": "0"}
    save_file(ARRAYS, tmp_path / "newer", metadata=fields)
    with pytest.raises(DataError, match="unsupported checkpoint format 'minitorch_unet checkpoint 2'"):
        load_checkpoint(tmp_path / "newer")


@pytest.mark.parametrize(
    ("arrays", "metadata", "error", "text"),
    [
        ({"x": [1.0]}, {}, TypeError, "'x' is a list"),
        ({"x": np.zeros(1, np.complex64)}, {}, TypeError, "'x' has dtype complex64"),
        ({"x": np.array(["a"])}, {}, TypeError, "'x' has dtype <U1"),
        ({"x": np.array([None])}, {}, TypeError, "'x' has dtype object"),
        ({"": np.zeros(1)}, {}, ValueError, "no legal array name"),
        ({"__metadata__": np.zeros(1)}, {}, ValueError, "no legal array name"),
        ({"\ud800": np.zeros(1)}, {}, ValueError, "no legal array name"),
        ({}, {"x": np.float32(1)}, TypeError, "metadata must be a JSON value"),
        ({}, {"x": {1: 2}}, TypeError, "metadata must be a JSON value"),
    ],
)
def test_illegal_contents_leave_no_file(
    tmp_path: Path, arrays: dict[str, Any], metadata: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        save_checkpoint(tmp_path / "a", arrays, metadata)
    assert not any(tmp_path.iterdir())


class Disk:
    """Stands between `files` and the system: numbers every open, write, fsync and rename.

    Runs `before(number)` ahead of each. Raw writes are cut to 64 bytes, so that a file takes several of them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.before: Any = lambda number: None
        for name in ("fsync", "replace", "open"):
            monkeypatch.setattr(files.os, name, self.counted(name, getattr(os, name)))
        monkeypatch.setattr(files, "open", self.open, raising=False)

    def count(self, name: str) -> None:
        self.calls.append(name)
        self.before(len(self.calls) - 1)

    def counted(self, name: str, function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.count(name)
            return function(*arguments, **options)

        return call

    def open(self, path: Path, mode: str) -> io.BufferedWriter:
        self.count("open file")
        disk = self

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                disk.count("write")
                return super().write(memoryview(data)[:64])

        return io.BufferedWriter(Raw(path, mode), buffer_size=100)


class Killed(BaseException):
    """Stands for the end of the process: no `except Exception` may swallow it."""


OLD = {"w": np.zeros(5, np.float32)}
NEW = {"w": np.arange(40, dtype=np.float32)}


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    save_checkpoint(tmp_path / "last", OLD, {"step": 1})
    return Disk(monkeypatch)


def content(path: Path) -> str:
    """Return which of the two versions `path` holds."""
    found = load_checkpoint(path)
    for name, arrays, step in (("old", OLD, 1), ("new", NEW, 2)):
        if found.metadata == {"step": step} and found.arrays["w"].tolist() == arrays["w"].tolist():
            return name
    raise AssertionError("neither the old nor the new checkpoint")


def count_calls(disk: Disk, path: Path) -> list[str]:
    """Save once without faults, put the old version back, and return the calls that it took."""
    old = path.read_bytes()
    save_checkpoint(path, NEW, {"step": 2})
    path.write_bytes(old)
    calls, disk.calls = disk.calls, []
    return calls


def test_order_of_calls(tmp_path: Path, disk: Disk) -> None:
    calls = count_calls(disk, tmp_path / "last")
    assert calls.count("write") >= 4
    assert [call for call in calls if call != "write"] == ["open file", "fsync", "replace", "open", "fsync"]
    assert calls.index("fsync") > max(i for i, call in enumerate(calls) if call == "write")


def test_what_lies_on_the_disk_before_each_call_is_loadable(tmp_path: Path, disk: Disk) -> None:
    """A process killed with no chance to clean up leaves exactly what lies there between two calls."""
    path = tmp_path / "last"
    calls = count_calls(disk, path)
    seen: list[str] = []
    disk.before = lambda number: seen.append(content(path))
    save_checkpoint(path, NEW, {"step": 2})
    replaced = calls.index("replace")
    assert seen == ["old"] * (replaced + 1) + ["new"] * (len(calls) - replaced - 1)


def test_leftovers_of_a_killed_writer_are_replaced(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / ".last.partial").write_bytes(b"x" * 10_000)
    save_checkpoint(tmp_path / "last", NEW, {"step": 2})
    assert content(tmp_path / "last") == "new"
    assert os.listdir(tmp_path) == ["last"]


@pytest.mark.parametrize(
    "fault",
    [
        Killed(),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EIO, "Input/output error"),
    ],
    ids=["killed", "disk full", "I/O error"],
)
def test_a_fault_before_each_call_loses_nothing(tmp_path: Path, disk: Disk, fault: BaseException) -> None:
    path = tmp_path / "last"
    old = path.read_bytes()
    calls = count_calls(disk, path)
    for number in range(len(calls)):

        def fail(called: int, number: int = number) -> None:
            if called == number:
                raise fault

        path.write_bytes(old)
        disk.calls, disk.before = [], fail
        expected = Killed if isinstance(fault, Killed) else DataError
        with pytest.raises(expected) as caught:
            save_checkpoint(path, NEW, {"step": 2})
        replaced = number > calls.index("replace")
        assert content(path) == ("new" if replaced else "old")
        assert os.listdir(tmp_path) == ["last"]
        if isinstance(fault, OSError):
            start = f"wrote {path}, but its folder" if replaced else f"cannot write {path}: {fault.strerror}"
            assert str(caught.value).startswith(start)
            assert replaced or str(caught.value).endswith("; the previous file is unchanged")
            assert "\n" not in str(caught.value)


def test_file_systems_without_flushing_of_folders(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "last"
    last = len(count_calls(disk, path)) - 1

    def fail(called: int) -> None:
        if called == last:
            raise OSError(errno.EINVAL, "Invalid argument")

    disk.before = fail
    save_checkpoint(path, NEW, {"step": 2})
    assert content(path) == "new"


def test_atomic_write_of_bytes_and_errors_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    atomic_write(path, b"[1]")
    assert json.loads(path.read_bytes()) == [1]

    def broken(stream: Any) -> None:
        stream.write(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        atomic_write(path, broken)
    assert path.read_bytes() == b"[1]"
    assert os.listdir(tmp_path) == ["log.json"]


def test_atomic_write_without_a_previous_file_does_not_speak_of_one(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        atomic_write(tmp_path / "absent" / "a", b"")
    assert str(caught.value) == f"cannot write {tmp_path / 'absent' / 'a'}: No such file or directory"
