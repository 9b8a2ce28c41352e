"""Which convolutions rung 5 takes, how it cuts them, and what a tensor map refuses. Nothing is launched here."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minitorch_unet.backend.cuda import hopper_plan, tensor_map
from minitorch_unet.backend.cuda.conv_shapes import Window
from minitorch_unet.backend.cuda.hopper_plan import can_forward, can_input_grad, can_weight_grad
from minitorch_unet.backend.cuda.kernels import CudaKernels
from minitorch_unet.backend.cuda.sources import source
from minitorch_unet.backend.cuda.tensor_map import Axis, TensorMap, of_map, of_weight
from minitorch_unet.backend.precision import set_float32_matmul_precision
from minitorch_unet.simulator import cuda_api, standin

KERNELS = CudaKernels(standin)
VALID = Window((3, 3))


def array(n: int, c: int, h: int, w: int, dtype: str = "float16") -> Any:
    """(N, C, H, W) on the device, channels innermost."""
    return standin.zeros((n, h, w, c), dtype).transpose(0, 3, 1, 2)


@pytest.fixture
def tf32() -> Iterator[None]:
    set_float32_matmul_precision("high")
    yield
    set_float32_matmul_precision("highest")


# ------------------------------------------------------------------------------------------------ what it takes


@pytest.mark.parametrize(("c", "k"), [(64, 64), (64, 128), (512, 1024), (96, 64)])
def test_takes_layers_of_16_bits(c: int, k: int) -> None:
    x, weight, gy = array(2, c, 12, 12), array(k, c, 3, 3, "float32"), array(2, k, 10, 10)
    assert can_forward(KERNELS, [x], weight, VALID)
    assert can_forward(KERNELS, [x, array(2, c, 16, 14)[:, :, 2:14, 1:13]], array(k, 2 * c, 3, 3, "float32"), VALID)
    assert can_input_grad(KERNELS, gy, weight, (12, 12), VALID)
    assert can_weight_grad(KERNELS, [x, x], gy, VALID)


def test_takes_windows_that_touch() -> None:
    window, weight = Window((2, 2), (2, 2)), array(128, 64, 2, 2, "float32")
    x, gy = array(1, 64, 11, 11), array(1, 128, 5, 5)
    assert can_forward(KERNELS, [x], weight, window)
    assert can_weight_grad(KERNELS, [x], gy, window)
    assert can_input_grad(KERNELS, gy, weight, (10, 10), window)
    assert not can_input_grad(KERNELS, gy, weight, (11, 11), window)  # the last row is in no window
    assert not can_forward(KERNELS, [x, x], array(128, 128, 2, 2, "float32"), window)


def test_takes_float32_only_as_tf32(tf32: None) -> None:
    x, weight, gy = (array(*shape, "float32") for shape in ((1, 64, 9, 9), (64, 64, 3, 3), (1, 64, 7, 7)))
    assert can_forward(KERNELS, [x], weight, VALID)
    assert can_input_grad(KERNELS, gy, weight, (9, 9), VALID)
    assert not can_weight_grad(KERNELS, [x], gy, VALID)
    set_float32_matmul_precision("highest")
    assert not can_forward(KERNELS, [x], weight, VALID)


X, WEIGHT = array(1, 64, 9, 9), array(64, 64, 3, 3, "float32")


@pytest.mark.parametrize(
    ("sources", "weight", "window", "groups"),
    [
        pytest.param([X], WEIGHT, VALID, 2, id="groups"),
        pytest.param([X], WEIGHT, Window((3, 3), (2, 2)), 1, id="stride"),
        pytest.param([X], WEIGHT, Window((3, 3), (1, 1), (0, -1)), 1, id="cropping"),
        pytest.param([X[:, :, :2]], WEIGHT, VALID, 1, id="no output"),
        pytest.param([X[:0]], WEIGHT, VALID, 1, id="no image"),
        pytest.param([array(1, 3, 9, 9)], array(64, 3, 3, 3, "float32"), VALID, 1, id="3 channels"),
        pytest.param([array(1, 8, 9, 9)], array(64, 8, 3, 3, "float32"), VALID, 1, id="8 of 64 channels used"),
        pytest.param([X], array(2, 64, 3, 3, "float32"), VALID, 1, id="2 filters"),
        pytest.param([array(1, 68, 9, 9)[:, 4:]], WEIGHT, VALID, 1, id="view not aligned"),
        pytest.param([standin.zeros((1, 64, 9, 9), "float16")], WEIGHT, VALID, 1, id="NCHW"),
        pytest.param([X, array(1, 64, 9, 9, "float32")], WEIGHT, VALID, 1, id="two types"),
        pytest.param([array(1, 64, 9, 9, "float64")], WEIGHT, VALID, 1, id="float64"),
    ],
)
def test_leaves_to_others(sources: list[Any], weight: Any, window: Window, groups: int) -> None:
    assert not can_forward(KERNELS, sources, weight, window, groups)


def test_leaves_other_devices_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_forward(KERNELS, [X], WEIGHT, VALID)
    monkeypatch.setitem(cuda_api.properties, "major", 8)
    assert not can_forward(KERNELS, [X], WEIGHT, VALID)


# ------------------------------------------------------------------------------------------------ how it cuts


@pytest.mark.parametrize("pixels", [(1, 1, 1), (1, 28, 28), (1, 196, 196), (2, 568, 568), (8, 64, 64)])
@pytest.mark.parametrize("outputs", [32, 64, 72, 256, 1024])
@pytest.mark.parametrize(("boxes", "share", "copies"), [(1, 1, 1), (3, 3, 1), (48, 3, 1), (8, 1, 4)])
def test_plans_fill_the_device_or_have_nothing_left_to_split(
    pixels: tuple[int, int, int], outputs: int, boxes: int, share: int, copies: int
) -> None:
    plan = hopper_plan.conv_plan(KERNELS, pixels, outputs, boxes, share, copies)
    n, p, q = pixels
    tiles = n * -(-p // plan.tile.rows) * -(-q // 8) * -(-outputs // plan.tile.filters) * copies
    room = 132 * plan.tile.blocks
    assert 1 <= plan.splits <= boxes
    assert plan.blocks == min(tiles * plan.splits, room)
    assert plan.splits == 1 or boxes * share // plan.splits >= hopper_plan.LEAST_STEPS
    assert plan.splits == 1 or tiles * plan.splits <= room
    if plan.blocks <= room / 2 and copies == 1:
        assert plan.splits == boxes or boxes * share // (plan.splits + 1) < hopper_plan.LEAST_STEPS


@pytest.mark.parametrize("tile", [hopper_plan.NARROW, hopper_plan.SMALL, hopper_plan.LARGE])
def test_shared_memory_is_as_the_kernels_have_it(tile: hopper_plan.Tile) -> None:
    """The constants are in the source once more, by the same names; as many blocks as are meant fit."""
    assert tile.blocks * (tile.shared + 1024) <= 228 << 10
    values = {"FILTERS": tile.filters, "ROWS": tile.rows}
    for name, text in re.findall(r"(\w+) = ([^,;]+)[,;]", source("conv_hopper.cu")):
        if name in ("BOXES", "STAGES", "PIECES", "BLOCKS", "HALO", "ALIGNMENT"):
            values[name] = constant(text, values)
    found = tuple(values[name] for name in ("FILTERS", "ROWS", "BOXES", "STAGES", "PIECES", "BLOCKS"))
    assert found == tuple(tile)
    assert (values["HALO"], values["ALIGNMENT"]) == (hopper_plan.HALO, hopper_plan.ALIGNMENT)


@pytest.mark.parametrize("filters", [64, 128])
def test_shared_memory_of_weight_gradients_is_as_the_kernels_have_it(filters: int) -> None:
    text = source("conv_hopper_weights.cu")
    values = {"FILTERS": filters}
    for name in ("STAGES", "ALIGNMENT"):
        values[name] = constant(re.findall(rf"{name} = ([^,;]+)[,;]", text)[0], values)
    assert hopper_plan.weights_shared(filters) == values["ALIGNMENT"] + values["STAGES"] * (filters // 64 + 3) * 8192
    assert hopper_plan.weights_shared(filters) <= 227 << 10


def constant(text: str, values: dict[str, int]) -> int:
    """A C expression of numbers, names and `a ? b : c`."""
    test, question, rest = text.partition("?")
    if not question:
        return int(eval(text, {}, dict(values)))
    yes, _, no = rest.partition(":")
    return constant(yes if eval(test, {}, dict(values)) else no, values)


def test_which_taps_share_a_box() -> None:
    assert hopper_plan.shared_taps(Window((3, 3))) == 3
    assert hopper_plan.shared_taps(Window((2, 3), dilation=(2, 1))) == 2
    assert hopper_plan.shared_taps(Window((3, 3), dilation=(2, 1))) == 1
    assert hopper_plan.shared_taps(Window((2, 2), (2, 2))) == 1
    assert hopper_plan.weight_columns(Window((3, 3)), 128) == 6
    assert hopper_plan.weight_columns(Window((2, 2)), 128) == 3


# ------------------------------------------------------------------------------------------------ tensor maps


def test_map_of_a_cropped_view() -> None:
    whole = array(2, 64, 12, 10)
    record = np.frombuffer(bytes(of_map(standin, whole[:, 16:, 2:11, 1:9], (64, 8, 16), "x")), tensor_map.SIMULATED)[0]
    assert record["base"] == whole.data.ptr + 2 * (16 + 64 * (1 + 10 * 2))
    assert (record["rank"], record["element"], record["rounds"]) == (4, 2, 0)
    assert record["size"].tolist() == [48, 8, 9, 2, 0]
    assert record["stride"].tolist() == [2, 128, 1280, 15360, 0]
    assert record["box"].tolist() == [64, 8, 16, 1, 0]


def test_map_of_a_weight() -> None:
    weight = array(128, 96, 3, 2, "float32")
    record = np.frombuffer(bytes(of_weight(standin, weight[:, 32:], (32, 64), "w", True)), tensor_map.SIMULATED)[0]
    assert record["size"].tolist() == [64, 6, 128, 0, 0]
    assert record["stride"].tolist() == [4, 384, 2304, 0, 0]
    assert record["box"].tolist() == [32, 1, 64, 0, 0]
    assert record["rounds"] == 1
    with pytest.raises(ValueError, match=r"w has strides .* must lie 2 taps apart"):
        of_weight(standin, weight[:, :, ::2], (32, 64), "w")


FLAT = standin.zeros((1024,), "float16")


@pytest.mark.parametrize(
    ("view", "axes", "message"),
    [
        (FLAT[4:], [Axis(64, 2, 64)], "x starts 8 bytes past a multiple of 16"),
        (FLAT, [], "x has 0 axes; legal are 1 to 5"),
        (FLAT, [Axis(8, 2, 8)] * 6, "x has 6 axes"),
        (FLAT, [Axis(64, 4, 64)], "x has 4 bytes between neighbours of axis 0; they must be 2"),
        (FLAT, [Axis(64, 2, 64), Axis(4, 136, 4)], "stride of 136 bytes in axis 1; legal are multiples of 16"),
        (FLAT, [Axis(64, 2, 64), Axis(4, 0, 4)], "stride of 0 bytes in axis 1"),
        (FLAT, [Axis(64, 2, 64), Axis(0, 128, 4)], "length 0 in axis 1; legal are 1 to"),
        (FLAT, [Axis(64, 2, 64), Axis(4, 128, 257)], "boxes of 257 in axis 1; legal are 1 to 256"),
        (FLAT, [Axis(64, 2, 68)], "rows of 136 bytes; legal are multiples of 16 up to 128"),
        (FLAT, [Axis(64, 2, 60)], "rows of 120 bytes"),
        (standin.zeros((8,), "int16"), [Axis(8, 2, 8)], "dtype int16; legal are float16, bfloat16, float32"),
    ],
)
def test_map_names_what_is_illegal(view: Any, axes: list[Axis], message: str) -> None:
    with pytest.raises(ValueError, match=f"TensorMap: .*{message}"):
        TensorMap(standin, view, axes, "x")


def test_the_driver_is_told_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU cuTensorMapEncodeTiled writes the 128 bytes; here a function of the same signature stands for it."""
    told: list[Any] = []

    class Driver:
        error = 0

        def cuTensorMapEncodeTiled(self, out: Any, *values: Any) -> int:
            assert out.value % 64 == 0
            told.append([list(v) if isinstance(v, ctypes.Array) else getattr(v, "value", v) for v in values])
            ctypes.memmove(out.value, bytes(range(128)), 128)
            return self.error

    driver = Driver()
    monkeypatch.setattr(tensor_map, "_driver", lambda: driver)
    axes = (Axis(64, 4, 32), Axis(10, 256, 8), Axis(3, 2560, 1))
    assert tensor_map._encoded(4096, "tf32", 4, axes) == bytes(range(128))
    # TFLOAT32, rank, address, sizes, strides without the first, box, steps; not interleaved, swizzle 128, L2 128, zeros
    assert told == [[11, 3, 4096, [64, 10, 3], [256, 2560], [32, 8, 1], [1, 1, 1], 0, 3, 2, 0]]
    driver.error = 1
    with pytest.raises(RuntimeError, match="cuTensorMapEncodeTiled: error 1 for a map at address 0x2000"):
        tensor_map._encoded(8192, "float16", 2, axes)
