"""The stand-in for CuPy: what it offers exists in CuPy, and what both do is the same.

The first part compares names and parameters with a CuPy that can be imported (no GPU needed). The second runs every
test on the stand-in and, where there is a GPU, on CuPy itself. The third is about what only the stand-in has.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
import warnings
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from minitorch_unet import simulator
from minitorch_unet.backend import cuda_unavailable_reason, simulator_unavailable_reason
from minitorch_unet.simulator import capture, cuda_api, memory, standin, tables

CUPY_MISSING = importlib.util.find_spec("cupy") is None
NO_GPU = cuda_unavailable_reason()
needs_compiler = pytest.mark.skipif(
    simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason())
)
# What the stand-in adds.
OWN_NAMES = {"stats", "counting", "dry", "dry_running", "install", "uninstall", "installed", "cupyx"}
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


# ------------------------------------------------------- the names exist in CuPy


@pytest.fixture(scope="module")
def cupy() -> Any:
    if CUPY_MISSING:
        pytest.skip("CuPy is not installed: names cannot be compared")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import cupy
    assert cupy is not standin
    return cupy


def names_of(text: str) -> list[str]:
    """The parameters in a line such as `f(self, axis=None, *shape, int n=3) -> T`."""
    found = []
    for part in text[text.index("(") + 1 : text.rindex(")")].split(","):
        name = part.split("=")[0].split(":")[0].replace("*", "").split()
        found += name[-1:]
    return found


def parameters(function: Any) -> list[str]:
    """A function's parameters by its signature, or (compiled functions) by the first line of its text."""
    try:
        found = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        found = names_of(function.__doc__.splitlines()[0] or function.__doc__.splitlines()[1])
    return [name for name in found if name not in ("self", "/")]


def in_order(mine: list[str], theirs: list[str]) -> bool:
    """Whether mine are among theirs, in the same order."""
    return [name for name in theirs if name in mine] == mine


def test_elementwise_functions_exist(cupy: Any) -> None:
    for count, names in ((1, tables.UNARY), (2, tables.BINARY)):
        for name in names:
            theirs = getattr(cupy, name)
            assert isinstance(theirs, cupy.ufunc), name
            assert theirs.nin == count, name
            for parameter in ("out=None", "casting=", "dtype=None"):
                assert parameter in theirs.__doc__.splitlines()[0], name
    assert callable(cupy.add.at)


@pytest.mark.parametrize("name", [name for name in tables.FUNCTIONS if name != "matmul"])
def test_functions_exist_with_their_parameters(name: str, cupy: Any) -> None:
    assert in_order(tables.FUNCTIONS[name].replace("/", "").split(), parameters(getattr(cupy, name)))


def test_matmul_takes_an_out_parameter(cupy: Any) -> None:
    assert "out" in parameters(cupy.matmul)


@pytest.mark.parametrize("name", list(tables.METHODS))
def test_methods_exist_with_their_parameters(name: str, cupy: Any) -> None:
    assert in_order(tables.METHODS[name].split(), parameters(getattr(cupy.ndarray, name)))


def own_functions(module: Any) -> list[str]:
    functions = inspect.getmembers(module, lambda f: inspect.isfunction(f) and f.__module__ == module.__name__)
    return [name for name, _ in functions if not name.startswith("_") and name not in OWN_NAMES]


@pytest.mark.parametrize("name", own_functions(standin))
def test_functions_with_bodies_exist_with_their_parameters(name: str, cupy: Any) -> None:
    assert in_order(parameters(getattr(standin, name)), parameters(getattr(cupy, name)))


def test_types_and_constants_are_the_same(cupy: Any) -> None:
    for name in tables.CONSTANTS:
        mine, theirs = getattr(standin, name), getattr(cupy, name)
        assert mine is theirs or mine == theirs or np.isnan(mine), name


def test_attributes_of_arrays_exist(cupy: Any) -> None:
    mine = {name for name in vars(standin.ndarray) if not name.startswith("_")} | {"base"}
    assert len(mine) > 30
    assert mine <= set(dir(cupy.ndarray))
    for name in ("get", "set", "astype", "copy", "fill", "item", "reshape", "transpose", "view"):
        theirs = ["shape" if n == "shape_" else n for n in parameters(getattr(cupy.ndarray, name))]
        assert in_order(parameters(getattr(standin.ndarray, name)), theirs), name
    operators = {name for name in vars(standin.ndarray) if re.fullmatch(r"__[ri]?(add|sub|mul|matmul|pow|and)__", name)}
    assert operators <= set(dir(cupy.ndarray))


def test_the_cuda_module_exists(cupy: Any) -> None:
    for name, mine in vars(standin.cuda).items():
        if name.startswith("__"):
            continue
        theirs = getattr(cupy.cuda, name)
        inner = vars(mine) if inspect.ismodule(mine) or inspect.isclass(mine) else ()
        for part in (part for part in inner if not part.startswith("_")):
            assert hasattr(theirs, part), f"cuda.{name}.{part}"
        if inspect.isfunction(mine):
            assert in_order(parameters(mine), parameters(theirs)), name
    for mine, theirs in ((standin.RawModule, cupy.RawModule), (standin.RawKernel, cupy.RawKernel)):
        assert {name for name in vars(mine) if not name.startswith("_")} <= set(dir(theirs))
        assert in_order(parameters(mine), names_of(theirs.__doc__.splitlines()[0]))
    for mine, base in ((cuda_api.CUDARuntimeError, RuntimeError), (memory.OutOfMemoryError, MemoryError)):
        assert issubclass(mine, base)
    assert issubclass(cupy.cuda.runtime.CUDARuntimeError, RuntimeError)
    assert issubclass(cupy.cuda.driver.CUDADriverError, RuntimeError)
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)


def test_device_attributes_have_the_names_of_the_runtime(cupy: Any) -> None:
    assert all(hasattr(cupy.cuda.runtime, f"cudaDevAttr{name}") for name in standin.cuda.Device().attributes
               if not name.startswith("ComputeCapability"))  # fmt: skip


def test_submodules_exist(cupy: Any) -> None:
    assert in_order(["x", "shape", "strides"], parameters(cupy.lib.stride_tricks.as_strided))
    assert importlib.util.find_spec("cupyx.scipy.special") is not None


def test_what_is_not_listed_does_not_exist() -> None:
    for name in ("vectorize", "linalg", "random", "save", "einsum"):
        with pytest.raises(AttributeError, match=f"stand-in: '{name}' is not among the names of CuPy"):
            getattr(standin, name)


# --------------------------------------------------- both behave in the same way


@pytest.fixture(
    params=[
        "stand-in",
        pytest.param("cupy", marks=pytest.mark.skipif(NO_GPU is not None, reason=str(NO_GPU))),
    ]
)  # fmt: skip
def xp(request: pytest.FixtureRequest) -> Any:
    if request.param == "stand-in":
        return standin
    import cupy

    return cupy


def test_numpy_arrays_are_refused(xp: Any) -> None:
    a, h = xp.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    for mixing in (
        lambda: a + h, lambda: h + a, lambda: a * h, lambda: h @ a.T, lambda: a == h, lambda: xp.add(a, h),
        lambda: xp.concatenate([a, h]), lambda: xp.where(a > 0, a, h), lambda: a.__iadd__(h), lambda: xp.maximum(h, a),
        lambda: xp.copyto(a, h), lambda: np.asarray(a), lambda: np.array(a), lambda: xp.sum(h),
    ):  # fmt: skip
        with pytest.raises((TypeError, AttributeError)):
            mixing()
    with pytest.raises((TypeError, ValueError)):
        a[...] = h
    with pytest.raises((TypeError, ValueError)):
        a[0] = [1, 2, 3]
    assert a.get().tolist() == h.tolist()


def test_what_numpy_has_and_cupy_has_not_is_refused(xp: Any) -> None:
    a = xp.ones((2, 3))
    for call in (
        lambda: a.sum(where=a > 0), lambda: xp.add(a, a, where=a > 0), lambda: a.max(initial=3), lambda: a.item(0, 0),
        lambda: xp.exp(a, order="K"), lambda: hash(a), lambda: xp.empty(3, np.longdouble), lambda: a.ctypes,
        lambda: a.flags.writeable, lambda: a.tofile_nowhere,
    ):  # fmt: skip
        with pytest.raises((TypeError, AttributeError, ValueError)):
            call()
    with pytest.raises((IndexError, ValueError)):
        a[a > 0, xp.arange(2)]  # one boolean array, or none
    with pytest.raises(IndexError):
        a[xp.ones(2)]


def test_reductions_give_arrays(xp: Any) -> None:
    a = xp.arange(6, dtype=np.float32).reshape(2, 3)
    for result, value in (
        (a.sum(), 15), (a.max(), 5), (a.mean(), 2.5), (xp.sum(a), 15), (a.argmax(), 5), ((a > 1).any(), True),
        ((a > 1).all(), False), (xp.isfinite(a).all(), True), (xp.count_nonzero(a), 5), (a[1, 2], 5),
    ):  # fmt: skip
        assert isinstance(result, xp.ndarray)
        assert result.shape == ()
        assert result.item() == value
        assert result.tolist() == value
    assert float(a.sum()) == 15.0
    assert int(a[0, 1]) == 1
    assert bool(a[0, 0]) is False
    assert a.sum(axis=0).tolist() == [3, 5, 7]
    assert a.sum(axis=(0, 1), keepdims=True).shape == (1, 1)
    assert isinstance(xp.array_equal(a, a), xp.ndarray | bool | np.bool_)


PROMOTIONS = [
    ("float32", "float32", "float32"), ("float32", "float64", "float64"), ("float16", "float32", "float32"),
    ("int64", "float32", "float64"), ("uint8", "int32", "int32"), ("bool", "float32", "float32"),
    ("bool", "int64", "int64"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "expected"), PROMOTIONS)
def test_types_are_promoted_by_numpys_rules(one: str, other: str, expected: str, xp: Any) -> None:
    a, b = xp.ones(3, one), xp.ones(3, other)
    assert (a * b).dtype == expected
    assert xp.result_type(a, b) == expected
    assert xp.where(a > 0, a, b).dtype == expected


def test_numbers_are_weak_and_numpy_scalars_are_not(xp: Any) -> None:
    for kind in (np.float16, np.float32, np.float64):
        a = xp.ones(3, kind)
        results = (a * 2, 2.5 * a, a + 1, a / 3, xp.maximum(a, 0))
        assert {result.dtype for result in results} == {np.dtype(kind)}
        assert (a**2).dtype == kind
        assert xp.where(a > 0, a, 0).dtype == kind
    a = xp.ones(3, np.float32)
    assert (a * np.float64(2)).dtype == np.float64
    assert (np.float32(2) * a).dtype == np.float32
    assert (a * xp.asarray(2.0)).dtype == np.float64  # an array without axes counts as an array
    assert (xp.ones(3, np.int64) / 2).dtype == np.float64
    assert (xp.ones(3, bool).sum()).dtype == np.int64
    assert (a > 0).dtype == bool
    assert a.argmax().dtype == np.int64


def test_bfloat16(xp: Any) -> None:
    a = xp.asarray(np.array([1.0, 2.5, -3.0], np.float32)).astype(BFLOAT16)
    assert a.dtype == BFLOAT16
    for result in (a + a, a * a, a * 2, xp.maximum(a, 0), -a, a.copy(), xp.empty_like(a), a[1:], xp.exp(a)):
        assert result.dtype == BFLOAT16
    assert (a * 2.0).dtype == np.float32  # a Python float is not weak here: NumPy's rule for types that are not its own
    assert (a + xp.ones(3, np.float32)).dtype == np.float32
    assert (a > 0).tolist() == [True, True, False]
    a *= 2.0
    assert a.astype(np.float32).tolist() == [2.0, 5.0, -6.0]
    assert np.array_equal(a.get().astype(np.float32), [2.0, 5.0, -6.0])


def channels_last(xp: Any) -> Any:
    return xp.arange(120, dtype=np.float32).reshape(2, 4, 5, 3).transpose(0, 3, 1, 2)


def test_elementwise_results_are_in_c_order_whatever_their_operands(xp: Any) -> None:
    a = channels_last(xp)
    assert not a.flags.c_contiguous
    for result in (
        a * 2, a + a, -a, xp.exp(a), xp.maximum(a, 0), xp.where(a > 3, a, 0), a.clip(0, 9), a.sum(axis=0), a.copy(),
        xp.concatenate([a, a], axis=1), xp.matmul(a, a.swapaxes(2, 3)), xp.stack([a, a]), a > 3,
    ):  # fmt: skip
        assert result.flags.c_contiguous


def test_these_keep_the_memory_order(xp: Any) -> None:
    a = channels_last(xp)
    for result in (
        a.copy(order="K"), a.astype(np.float64), xp.empty_like(a), xp.zeros_like(a), xp.ones_like(a), xp.array(a),
        xp.full_like(a, 3), xp.multiply(a, 2, out=xp.empty_like(a)),
    ):  # fmt: skip
        assert result.transpose(0, 2, 3, 1).flags.c_contiguous
        assert not result.flags.c_contiguous
    a *= 2
    assert a.transpose(0, 2, 3, 1).flags.c_contiguous


def test_transfers_are_in_c_or_f_order(xp: Any) -> None:
    h = np.arange(24.0).reshape(2, 3, 4)
    assert xp.asarray(h.transpose(0, 2, 1)).flags.c_contiguous
    assert xp.asarray(h.T).flags.f_contiguous
    assert channels_last(xp).get().flags.c_contiguous
    assert np.array_equal(xp.asnumpy(xp.asarray(h[:, ::-1, ::2])), h[:, ::-1, ::2])


def test_views_share_memory_and_name_their_base(xp: Any) -> None:
    a = xp.zeros((3, 4))
    for view in (
        a[1:], a[:, ::-1], a.T, a.reshape(4, 3), a.ravel(), a[None], a[..., 0], a[1, 2], xp.broadcast_to(a, (2, 3, 4)),
        a.swapaxes(0, 1), a[None].squeeze(), a.view(), xp.flip(a, 0), xp.moveaxis(a, 0, 1), a[1:][:, 1:],
        xp.lib.stride_tricks.as_strided(a, (2, 2), (8, 8)),
    ):  # fmt: skip
        assert view.base is a
    assert a.base is None
    for new in (a.copy(), a + 0, a.T.reshape(-1), a[[0, 1]], a.flatten(), xp.roll(a, 1), a[a == 0]):
        assert new.base is None
    a[1:][0, 1:3] = 7
    a[:, ::-1][2] += 1
    assert a.tolist() == [[0, 0, 0, 0], [0, 7, 7, 0], [1, 1, 1, 1]]
    assert a.T.data.ptr == a.data.ptr
    assert a[1].data.ptr == a.data.ptr + a.strides[0]


def test_assignment_and_in_place_operators(xp: Any) -> None:
    a = xp.zeros((2, 3), np.float32)
    kept = a
    a += 1
    a -= 0.5
    a *= xp.full((3,), 4.0, np.float32)
    a /= 2
    assert kept is a
    assert a.dtype == np.float32
    a[0, 0] = xp.asarray(5.0)
    a[1] = xp.arange(3)
    a[:, 2] = 9
    assert a.tolist() == [[5, 1, 9], [0, 1, 9]]
    a[a > 4] = -1
    xp.copyto(a, 0, where=a == 1)
    assert a.tolist() == [[-1, 0, -1], [0, 0, -1]]
    out = xp.empty((2, 3), np.float32)
    assert xp.add(a, 1, out=out) is out
    assert xp.sum(a, axis=0, out=out[0]) is not None
    assert out[0].tolist() == [-1, 0, -2]
    integers = xp.zeros(3, np.int64)
    with pytest.raises(TypeError):
        integers += 1.5
    with pytest.raises(ValueError):
        a += xp.ones((4, 2, 3), np.float32)


def test_indices(xp: Any) -> None:
    a, h = xp.arange(24).reshape(2, 3, 4), np.arange(24).reshape(2, 3, 4)
    for index in (
        np.s_[1], np.s_[-1, ..., 0], np.s_[:, [2, 0, -1]], np.s_[None, 1:, ::-1], np.s_[[0, 1], [1, 1]],
        np.s_[..., 1:1], h > 5, np.s_[1, h[0] % 2 == 0], np.array([1, 0]),
    ):  # fmt: skip
        assert np.array_equal(a[index].get(), h[index])
    on_device = xp.asarray(np.array([1, 0, 1]))
    assert np.array_equal(a[on_device].get(), h[[1, 0, 1]])
    assert np.array_equal(xp.take(a, on_device, 1).get(), h.take([1, 0, 1], 1))
    low = a[:, :, :1] % 3
    assert np.array_equal(xp.take_along_axis(a, low, 1).get(), np.take_along_axis(h, h[:, :, :1] % 3, 1))
    b = xp.zeros(3)
    xp.add.at(b, xp.asarray(np.array([2, 0, 2])), xp.ones(3))
    assert b.tolist() == [1, 0, 2]
    with pytest.raises(IndexError):
        a[2]
    with pytest.raises(IndexError):
        a[0, 0, 0, 0]
    assert [row.tolist() for row in xp.arange(4).reshape(2, 2)] == [[0, 1], [2, 3]]
    assert len(a) == 2


def test_values_against_numpy(xp: Any) -> None:
    h = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    a = xp.asarray(h)
    for name in ("exp", "log1p", "sqrt", "tanh", "sign", "abs", "isfinite", "negative", "square"):
        with np.errstate(invalid="ignore"):
            expected = getattr(np, name)(abs(h))
        np.testing.assert_allclose(getattr(xp, name)(xp.abs(a)).get(), expected, rtol=1e-5)
    for name in ("sum", "mean", "max", "min", "argmax", "argmin", "std", "var", "cumsum", "prod"):
        np.testing.assert_allclose(getattr(a, name)(axis=1).get(), getattr(h, name)(axis=1), rtol=1e-4)
    np.testing.assert_allclose((a @ a.T).get(), h @ h.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(xp.tensordot(a, a, axes=(0, 0)).get(), h.T @ h, rtol=1e-5, atol=1e-5)
    assert np.array_equal(xp.roll(a, (1, -1), (0, 1)).get(), np.roll(h, (1, -1), (0, 1)))
    assert np.array_equal(xp.clip(a, None, 0.1).get(), np.clip(h, None, np.float32(0.1)))
    assert np.isnan(xp.log(xp.asarray(-1.0)).get())  # without a warning


def test_library_of_arrays(xp: Any) -> None:
    a = xp.ones(2)
    assert xp.get_array_module(a, np.ones(2)) is xp
    assert xp.get_array_module(np.ones(2)) is np
    assert type(xp.asnumpy(a)) is np.ndarray
    assert xp.asarray(a) is a
    assert xp.ascontiguousarray(a) is a
    assert xp.array(a) is not a
    assert a.astype(np.float64, copy=False) is a
    assert a.device == xp.cuda.Device(0)


CODE = r"""
extern "C" __global__ void axpy(float* y, const float* x, float a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += a * x[i];
}
extern "C" __global__ void filled(SCALAR* y, int n, SCALAR value) {
    extern __shared__ SCALAR row[];
    row[threadIdx.x] = value;
    __syncthreads();
    if (threadIdx.x < n) y[threadIdx.x] = row[blockDim.x - 1 - threadIdx.x];
}
struct Pair { int first; float second; };
extern "C" __global__ void from_struct(float* y, Pair pair) { y[pair.first] = pair.second; }
"""


@pytest.fixture
def module(xp: Any) -> Any:
    if xp is standin and simulator_unavailable_reason():
        pytest.skip(str(simulator_unavailable_reason()))
    return xp.RawModule(code=CODE, options=("-std=c++17", "-DSCALAR=float"))


def test_raw_kernels(xp: Any, module: Any) -> None:
    axpy = module.get_function("axpy")
    x, y = xp.arange(100, dtype=np.float32), xp.ones(100, np.float32)
    axpy((4,), (32,), (y, x, np.float32(2), np.int32(100)))
    assert xp.array_equal(y, 2 * x + 1)
    axpy((1,), (32,), (y[50:], x, np.float32(1), np.int32(10)))
    assert y[50:62].tolist() == [101 + 2 * i + i for i in range(10)] + [121, 123]
    with pytest.raises((RuntimeError, KeyError, AttributeError)):
        module.get_function("missing")
    with pytest.raises(Exception, match="error"):
        xp.RawModule(code='extern "C" __global__ void broken() { return 1 +; }').compile()
    y = xp.zeros(4, np.float32)
    record = np.zeros(1, np.dtype([("first", np.int32), ("second", np.float32)]))
    record["first"], record["second"] = 2, 1.5
    module.get_function("from_struct")((1,), (1,), (y, record))
    assert y.tolist() == [0, 0, 1.5, 0]
    kernel = xp.RawKernel(CODE.replace("SCALAR", "double"), "filled")
    z = xp.zeros(8)
    kernel((1,), (8,), (z, np.int32(8), np.float64(3)), shared_mem=64)
    assert z.tolist() == [3.0] * 8


def test_more_shared_memory_must_be_asked_for(xp: Any, module: Any) -> None:
    filled, y = module.get_function("filled"), xp.zeros(8, np.float32)
    arguments = (y, np.int32(8), np.float32(1))
    with pytest.raises(RuntimeError, match="CUDA_ERROR_INVALID_VALUE"):
        filled((1,), (8,), arguments, shared_mem=60_000)
    filled.max_dynamic_shared_size_bytes = 60_000
    filled((1,), (8,), arguments, shared_mem=60_000)
    assert y.tolist() == [1.0] * 8
    with pytest.raises(RuntimeError, match="CUDA_ERROR_INVALID_VALUE"):
        filled.max_dynamic_shared_size_bytes = 1 << 20
    for grid, block in (((1,), (2048,)), ((1, 70_000), (1,)), ((1,), (1, 1, 128))):
        with pytest.raises(RuntimeError, match="CUDA_ERROR_INVALID_VALUE"):
            filled(grid, block, arguments)


def test_captured_work_is_replayed_on_the_same_memory(xp: Any, module: Any) -> None:
    axpy = module.get_function("axpy")
    x, y, total = xp.ones(10, np.float32), xp.zeros(10, np.float32), xp.zeros((), np.float32)

    def step() -> Any:
        axpy((1,), (32,), (y, x, np.float32(2), np.int32(10)))
        doubled = y * 2
        total[...] = total + doubled.sum()
        doubled[3:5] = -1
        return doubled

    step()  # compiles what the capture may not
    y.fill(0)
    total.fill(0)
    stream = xp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        assert stream.is_capturing()
        result = step()
        graph = stream.end_capture()
        assert not stream.is_capturing()
        assert y.tolist() == [0.0] * 10  # nothing has run
        graph.upload()
        for number in (1, 2, 3):
            graph.launch()
            assert y.tolist() == [2.0 * number] * 10
            assert result.tolist() == [4.0 * number] * 3 + [-1, -1] + [4.0 * number] * 5
        x.fill(10)
        graph.launch(stream)
        stream.synchronize()
    assert y[0].item() == 26
    assert total.item() == 40 * (1 + 2 + 3) + 520


def test_capture_refuses_what_waits_for_the_device(xp: Any) -> None:
    a, h, flags = xp.ones(4), np.ones(4), xp.ones(4, bool)
    a[flags]  # compiles its kernels
    with pytest.raises(RuntimeError):
        xp.cuda.Stream.null.begin_capture()
    for forbidden in (lambda: float(a[0]), lambda: a.get(), lambda: a.tolist(), lambda: bool(a.sum() > 3)):
        stream = xp.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            with pytest.raises(RuntimeError):
                forbidden()
            try:
                stream.end_capture()
            except RuntimeError:  # CUDA ends such a capture with an error of its own
                assert xp is not standin
    assert h.sum() == 4


def test_streams_events_and_properties(xp: Any) -> None:
    cuda = xp.cuda
    assert cuda.is_available()
    assert cuda.runtime.getDeviceCount() >= 1
    first, last = cuda.Event(), cuda.Event()
    stream = cuda.Stream()
    with stream:
        assert cuda.get_current_stream() == stream
        first.record()
        xp.ones(10) + 1
        last.record()
        last.synchronize()
    assert cuda.get_elapsed_time(first, last) >= 0
    assert stream != cuda.Stream.null
    free, total = cuda.runtime.memGetInfo()
    assert 0 < free <= total
    properties = cuda.runtime.getDeviceProperties(0)
    assert isinstance(properties["name"], bytes)
    assert properties["multiProcessorCount"] == cuda.Device().attributes["MultiProcessorCount"]
    assert cuda.Device().compute_capability == f"{properties['major']}{properties['minor']}"
    with pytest.raises(RuntimeError):
        cuda.runtime.getDeviceProperties(99)


def test_memory_pools(xp: Any) -> None:
    pool = xp.cuda.MemoryPool()
    with xp.cuda.using_allocator(pool.malloc):
        a = xp.empty(1000, np.float32)
        assert pool.used_bytes() == 4096  # whole pieces of 512 bytes
        view = a[10:]
        del a
        assert pool.used_bytes() == 4096
        assert a_pointer(view) % 8 == 0
        del view
    assert pool.used_bytes() == 0
    assert pool.total_bytes() >= 4096
    pool.free_all_blocks()
    assert pool.total_bytes() == 0
    outside = xp.empty(1000, np.float32)
    assert pool.used_bytes() == 0
    assert outside.data.ptr % 512 == 0
    pool.set_limit(size=1 << 20)
    with xp.cuda.using_allocator(pool.malloc), pytest.raises(MemoryError, match="Out of memory allocating"):
        xp.empty(1 << 20, np.float64)


def a_pointer(array: Any) -> int:
    return array.data.ptr


# ------------------------------------------------------ what the stand-in adds


def test_numpys_functions_are_refused() -> None:
    a = standin.ones(3)
    for call in (lambda: np.sum(a), lambda: np.exp(a), lambda: np.add(a, a), lambda: np.concatenate([a, a])):
        with pytest.raises(TypeError):
            call()


def test_indices_out_of_range_are_errors() -> None:
    """CuPy wraps them around without a word."""
    a, index = standin.arange(4), standin.asarray(np.array([0, 4]))
    for call in (
        lambda: a[index], lambda: standin.take(a, index), lambda: standin.take_along_axis(a, index, 0),
        lambda: a.__setitem__(index, 0), lambda: standin.add.at(a, index, index),
    ):  # fmt: skip
        with pytest.raises(IndexError):
            call()


def test_new_memory_holds_rubbish() -> None:
    assert np.isnan(standin.empty((2, 3), np.float32).get()).all()
    assert np.isnan(standin.empty(2, BFLOAT16).get().astype(np.float32)).all()
    assert (standin.empty(3, np.int32).get() == 0x7F7F7F7F).all()
    assert (standin.empty_like(standin.zeros(3, np.uint8)).get() == 0x7F).all()


def test_everything_that_costs_time_is_counted() -> None:
    h = np.ones((4, 5), np.float32)
    with standin.counting() as seen:
        a = standin.asarray(h)
        assert (seen.uploads, seen.upload_bytes, seen.allocations, seen.allocated_bytes) == (1, 80, 1, 80)
        b = a.T[1:] * 2
        total = b.sum()
        b += 1
        standin.maximum(b, 0, out=b)
        a.reshape(20)[::2]
        assert dict(seen.launches) == {"multiply": 1, "sum": 1, "add": 1, "maximum": 1}
        assert not seen.syncs
        assert float(total) == 32.0
        assert b[b > 3].size == 0
        b.get()
        standin.cuda.Device().synchronize()
        assert dict(seen.syncs) == {"float": 1, "boolean index": 1, "get": 1, "Device.synchronize": 1}
        assert (seen.downloads, seen.download_bytes) == (2, 4 + 64)
        a[[0, 1]]
        assert seen.uploads == 2
    before = seen.launches.copy()
    a + 1
    assert seen.launches == before
    standin.stats.reset()
    a + 1
    assert standin.stats.launches["add"] == 1
    assert standin.stats.uploads == 0


@needs_compiler
def test_launches_of_raw_kernels_and_graphs_are_counted_by_name() -> None:
    kernel = standin.RawModule(code=CODE, options=("-DSCALAR=float",)).get_function("axpy")
    x, y = standin.ones(4, np.float32), standin.zeros(4, np.float32)
    arguments = (y, x, np.float32(1), np.int32(4))
    stream = standin.cuda.Stream()
    with standin.counting() as seen, stream:
        kernel((1,), (4,), arguments)
        stream.begin_capture()
        kernel((1,), (4,), arguments)
        y * 2
        graph = stream.end_capture()
        graph.launch()
        graph.launch()
    assert dict(seen.raw_launches) == {"axpy": 1}
    assert dict(seen.launches) == {}
    assert dict(seen.captured) == {"axpy": 1, "multiply": 1}
    assert dict(seen.replayed) == {"axpy": 2, "multiply": 2}
    assert seen.graph_launches == 2
    assert y.tolist() == [3.0] * 4


@needs_compiler
@pytest.mark.parametrize("mode", ["fast", "check"])
def test_arguments_of_raw_kernels_are_checked(mode: str) -> None:
    simulator.set_mode(mode)
    try:
        kernel = standin.RawModule(code=CODE, options=("-DSCALAR=float",)).get_function("axpy")
        x, y = standin.ones(4, np.float32), standin.zeros(4, np.float32)
        good = [y, x, np.float32(1), np.int32(4)]
        kernel((1,), (4,), tuple(good))
        for position, wrong in (
            (2, 1.0), (3, 4), (3, np.int64(4)), (2, np.float64(1)), (1, x.get()), (1, x.astype(np.float64)), (1, None),
            (0, np.float32(0)),
        ):  # fmt: skip
            arguments = [*good]
            arguments[position] = wrong
            with pytest.raises((TypeError, ValueError)):
                kernel((1,), (4,), tuple(arguments))
        with pytest.raises(TypeError):
            kernel((1,), (4,), tuple(good[:3]))
        if mode == "check":
            with pytest.raises(simulator.KernelError, match="out of bounds"):
                kernel((1,), (4,), (y[:2], *good[1:]))
    finally:
        simulator.set_mode(None)


@needs_compiler
def test_memory_behind_addresses_in_arguments_may_be_used() -> None:
    code = 'extern "C" __global__ void many(float** all, int count) {\n' \
           "  for (int i = 0; i < count; ++i) all[i][threadIdx.x] += 1.0f; }"  # fmt: skip
    parts = [standin.zeros(3, np.float32) for _ in range(4)]
    addresses = standin.asarray(np.array([part.data.ptr for part in parts], np.uint64))
    simulator.set_mode("check")
    try:
        standin.RawKernel(code, "many")((1,), (3,), (addresses, np.int32(4)))
    finally:
        simulator.set_mode(None)
    assert all(part.tolist() == [1, 1, 1] for part in parts)


def test_results_in_a_capture_hold_nothing_yet() -> None:
    a, stream = standin.ones(3), standin.cuda.Stream()
    with stream:
        stream.begin_capture()
        b, index = a + 1, standin.arange(3)
        a += 1
        c = a[index]
        with pytest.raises(capture.CaptureError, match="not permitted while a stream is being captured"):
            standin.asarray(np.ones(3))
        graph = stream.end_capture()
    assert a.tolist() == [1, 1, 1]
    assert np.isnan(b.get()).all()
    graph.launch()
    assert (a.tolist(), b.tolist(), c.tolist(), index.tolist()) == ([2] * 3, [2] * 3, [2] * 3, [0, 1, 2])


def test_a_dry_run_touches_no_memory() -> None:
    a = standin.ones((2, 3))
    kernel = standin.RawKernel('extern "C" __global__ void wrong(float* p) { this is no C++ }', "wrong")
    with standin.counting() as seen, standin.dry():
        assert standin.dry_running()
        a += 1
        a[0] = 7
        standin.copyto(a, 9)
        kernel((1,), (1,), (a,))
        b = a.T * 2
        assert (b.shape, b.dtype, b.flags.c_contiguous) == ((3, 2), np.float64, True)
        standin.asarray(np.ones(1000))
        assert seen.allocated_bytes == 48 + 8000
    assert not standin.dry_running()
    assert not seen.launches
    assert not seen.raw_launches
    assert a.tolist() == [[1.0] * 3] * 2


def test_work_on_another_stream_while_capturing_is_refused() -> None:
    a, stream = standin.ones(3), standin.cuda.Stream()
    with stream:
        stream.begin_capture()
        with standin.cuda.Stream(), pytest.raises(capture.CaptureError, match="on a stream other than"):
            a + 1
        stream.end_capture()
    with pytest.raises(cuda_api.CUDARuntimeError):
        stream.end_capture()


def test_memory_is_handed_to_other_libraries_as_a_copy_only() -> None:
    a = standin.arange(3)
    with pytest.raises(BufferError, match="simulated device memory"):
        np.from_dlpack(a)
    copied = np.from_dlpack(a, device="cpu")
    assert copied.tolist() == [0, 1, 2]
    assert not np.shares_memory(copied, a._host)


@pytest.mark.skipif("cupy" in sys.modules, reason="CuPy is loaded")
def test_install_and_uninstall() -> None:
    assert standin.install() is standin
    try:
        import cupy
        from cupyx.scipy.special import erf

        assert cupy is standin
        assert sys.modules["cupy.cuda"] is standin.cuda
        assert erf(cupy.zeros(1)).tolist() == [0.0]
        assert standin.install() is standin
        assert cuda_unavailable_reason() is None
    finally:
        standin.uninstall()
    assert "cupy" not in sys.modules
    standin.uninstall()


@pytest.mark.parametrize("wrong", ["slow", ""])
def test_mode(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINITORCH_UNET_SIMULATOR", "check")
    assert simulator.mode() == "check"
    simulator.set_mode("fast")
    assert simulator.mode() == "fast"
    simulator.set_mode(None)
    monkeypatch.setenv("MINITORCH_UNET_SIMULATOR", wrong)
    if wrong:
        with pytest.raises(ValueError, match="MINITORCH_UNET_SIMULATOR is 'slow'; legal are 'fast', 'check'"):
            simulator.mode()
        with pytest.raises(ValueError, match="set_mode: mode is 'slow'"):
            simulator.set_mode(wrong)
    else:
        assert simulator.mode() == "fast"


