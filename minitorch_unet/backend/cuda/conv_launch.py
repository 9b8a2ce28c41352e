"""How a pass of a convolution gets to a kernel: the choice of the rung, the weight as that reads it, the launches."""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

from ..precision import named_dtype
from ..reference import Array
from .base import CudaBase, type_name
from .conv_plan import ENGINES, Tiling, tiling
from .conv_shapes import LARGEST, Convolution
from .launcher import DTYPES, Strided

ALGORITHMS = ("auto", "naive", "tiled", "gemm", "mma", "hopper")
VARIABLE = "MINITORCH_UNET_CUDA_CONV"
MOST_TAPS = 32  # of all rungs but the naive one, which keep a bit for each
STAGES = 3  # of the pipeline in conv_mma.cu
THREADS = 256


class Pass(NamedTuple):
    """One pass of one convolution, whichever rung computes it."""

    direction: str  # "forward", "input_grad" or "weight_grad": the end of the kernel's name
    kind: str  # the maps' C type
    plain: Convolution  # as the naive rung sees it
    product: Convolution | None  # as the higher rungs do; None if they cannot compute it
    depths: list[int]  # how many products make a value, for each source
    vector: int  # bytes of the pieces that all channels fall into: 16, 8 or 0


class ConvLauncher(CudaBase):
    """The choice between the engines and their launches; `algorithm` is a rung's name or "auto"."""

    def __init__(self, xp: Any) -> None:
        super().__init__(xp)
        self.algorithm = os.environ.get(VARIABLE, "auto")
        self.splits: int | None = None  # how many blocks share a tile; None: by estimate. For measurements and tests
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"{VARIABLE} is {self.algorithm!r}; legal are {', '.join(ALGORITHMS)}")

    @property
    def prefers_hopper(self) -> bool:
        """Whether rung 5 (hopper.py) is to serve what it can."""
        return self.algorithm in ("auto", "hopper")

    def run_pass(
        self, job: Pass, inputs: dict[str, Array | None], output: dict[str, Array], bias: Array | None = None,
        mask: Array | None = None,
    ) -> None:  # fmt: skip
        """Compute `output` with the kernel's `inputs`, among them perhaps a "weight" (K, C, R, S) of any layout."""
        name, plan = self.choose_rung(job)
        engine, ((output_name, y),) = ENGINES[name], output.items()
        conv = job.plain if name == "naive" or job.product is None else job.product
        inputs = dict(inputs)
        if "weight" in inputs:
            kind = job.kind if engine.source == "conv_mma" else "float"
            inputs["weight"] = self._weight_for(inputs["weight"], kind, conv, job.vector > 0)
        ends: dict[str, Any] = {}
        if job.direction != "weight_grad":
            ends["bias"] = None if bias is None else self.xp.ascontiguousarray(bias, "float32")
        if job.direction == "input_grad":
            ends["mask"] = mask
        grid = (math.ceil(conv.rows / plan.m), math.ceil(conv.columns / plan.n), plan.splits)
        threads, shared, defines = THREADS, 0, {"T": job.kind}
        parts: dict[str, Any] = {}
        if engine.splits:
            shape = (plan.splits, conv.rows, conv.columns)
            parts["parts"] = self.xp.empty(shape, "float32") if plan.splits > 1 else None
            defines |= {side: str(size) for side, size in (("BM", plan.m), ("BN", plan.n)) if size != 128}
        if name == "naive":
            grid = (math.ceil(conv.rows * conv.columns / THREADS), 1, 1)
        elif name == "gemm":
            threads = plan.m * plan.n // 64
            defines |= {} if job.vector >= 4 * _bytes(job.kind) else {"VEC": "1"}
        elif engine.source == "conv_mma":
            threads, shared = 256 if name == "3xtf32" else 128, STAGES * (plan.m + plan.n) * 128
            defines |= {"EXACT": "1"} if name == "3xtf32" else {}
        arrays: dict[str, Any] = {key: None if value is None else Strided(value) for key, value in inputs.items()}
        arrays[output_name] = y
        self.launch(
            f"{engine.source}.cu", f"{engine.source}_{job.direction}", grid, threads, defines, shared,
            **arrays, **ends, **parts, conv=bytes(conv),
        )  # fmt: skip
        if plan.splits > 1:
            self.add_up_parts(conv, parts["parts"], y, {"bias": None, "mask": None} | ends)

    def add_up_parts(self, conv: Convolution, parts: Array, y: Array, ends: dict[str, Any]) -> None:
        """The second pass over sums that were split: add the parts up, then the epilogue."""
        width = 4 if conv.columns // (conv.patch_r * conv.patch_s) % 4 == 0 else 1
        self.launch(
            "conv_finish.cu", "conv_finish", math.ceil(conv.rows * conv.columns / (width * THREADS)), THREADS,
            {"T": type_name(y) or ""} | ({} if width == 4 else {"VEC": "1"}),
            parts=parts, splits=parts.shape[0], y=y, conv=bytes(conv), **ends,
        )  # fmt: skip

    def choose_rung(self, job: Pass) -> tuple[str, Tiling]:
        """The engine that `algorithm` asks for, or a lower one that can, and how it cuts the product up."""
        conv = job.product
        few = conv is not None and (job.direction == "weight_grad" or conv.r * conv.s <= MOST_TAPS)
        cores = ("tf32" if self.tf32_allowed else "3xtf32") if job.kind == "float" else "16 bits"
        cores_can = few and job.vector == 16 and self.compute_capability >= 80
        can = {cores: cores_can, "gemm": few, "tiled": few}
        rungs = {"gemm": ("gemm",), "tiled": ("tiled",), "naive": ()}
        names = [name for name in rungs.get(self.algorithm, (cores, "gemm")) if can[name]] or ["naive"]
        plans = [(name, self._tiling(name, job)) for name in names]
        return min(plans, key=lambda pair: pair[1].clocks) if self.algorithm == "auto" else plans[0]

    def _tiling(self, name: str, job: Pass) -> Tiling:
        steps = sum(math.ceil(depth / ENGINES[name].depth) for depth in job.depths)
        conv = job.product or job.plain
        return tiling(name, conv.rows, conv.columns, steps, self.multiprocessors, self.splits)

    def _weight_for(self, weight: Array, kind: str, conv: Convolution, vectors: bool) -> Array:
        """weight (K, C, R, S) as type `kind` in (K, R, S, C) memory; tells `conv` how it lies.

        Used as it is, view or not, if it is of the type and its taps are evenly spaced (of patches: a filter's taps
        without gaps) and, where it is read in vectors, begin at multiples of 16 bytes. Else packed.
        """
        (_, c, r, s), size = weight.shape, weight.itemsize
        steps = [stride // size for stride in weight.strides]
        tap = steps[3] if s > 1 else steps[2] if r > 1 else c
        neighbours = (steps[1] == 1 or c == 1) and 0 <= min(steps) <= max(steps) <= LARGEST
        even = (r == 1 or s == 1 or steps[2] == s * tap) and (conv.patch_r * conv.patch_s == 1 or tap == c)
        begins = not vectors or weight.data.ptr % 16 == steps[0] * size % 16 == tap * size % 16 == 0
        if type_name(weight) == kind and neighbours and even and begins:
            conv.filter, conv.tap = steps[0], tap
            return weight
        conv.filter, conv.tap = r * s * c, c
        return self.packed_weight(weight, kind).transpose(0, 3, 1, 2)

    def packed_weight(self, weight: Array, kind: str) -> Array:
        """A copy of weight (K, C, R, S) as (K, R, S, C) of the C type `kind`."""
        weight = weight if weight.dtype == "float32" else weight.astype("float32")
        k, c, r, s = weight.shape
        packed = self.xp.empty((k, r, s, c), named_dtype(DTYPES[kind]))
        steps = {f"stride_{axis}": stride // 4 for axis, stride in zip("kcrs", weight.strides, strict=True)}
        self.launch(
            "conv_finish.cu", "conv_pack_weight", math.ceil(weight.size / THREADS), THREADS, {"T": kind},
            weight=Strided(weight), k=k, c=c, r=r, s=s, packed=packed, **steps,
        )  # fmt: skip
        return packed


def _bytes(kind: str) -> int:
    """Bytes of a C type."""
    return named_dtype(DTYPES[kind]).itemsize
