"""A training step recorded once and replayed as one CUDA graph.

A step of the U-Net is some three hundred launches, each prepared by Python in more time than many of them run. A graph
holds them all: replaying it is one call. It works because nothing in a step depends on the host: the launches, the
addresses and the numbers handed over are the same every time; what changes (the batch, the learning rate, the number of
steps) lies in device memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .backend import NUMBERS_PER_BLOCK, Array, array_module, device_of, kernels_for, take_draws, to_device
from .functional.norm import default_generator
from .tensor import Tensor


class GraphedStep:
    """Calls `step` on device arrays of always the same shapes; from the third call on as one CUDA graph.

        def step(images, labels):
            loss = F.cross_entropy(network(Tensor(images)), labels)
            optimizer.backward_and_step(loss)
            return loss

        graphed = GraphedStep(step)
        loss = graphed(images, labels)    # NumPy or device arrays; every call is one step

    The first two calls run the step as it is, in a memory pool of its own, and compile what is not compiled. The third
    records it; from then on `step` itself is not called any more, so whatever it decides in Python stays as it was. The
    result is a Tensor whose values the next call overwrites. `before` is called before each step, outside the graph: it
    writes what changes (a learning rate) to the device. Dropout draws new numbers in each step, those that it would
    draw without a graph.

    Raises ValueError for arrays whose number, shapes, types or device differ from the first call's, and on the CPU,
    which has no graphs.
    """

    WARM_UP = 2

    def __init__(self, step: Callable[..., Tensor], before: Callable[[], None] = lambda: None) -> None:
        self._step, self._before = step, before
        self._inputs: list[Array] = []
        self._calls = 0
        self._graph: Any = None
        self._result: Tensor | None = None
        self._pool: Any = None
        self._stream: Any = None
        self._draws: Any = None  # where the numbers of dropout begin, and how many a step takes
        self._numbers = 0

    @property
    def captured(self) -> bool:
        """Whether steps are replayed from a graph by now."""
        return self._graph is not None

    def __call__(self, *arrays: Array, device: str | None = None) -> Tensor:
        """One step on these arrays; `device` says where to put them at first, by default where the first one is."""
        if self._stream is None:
            self._begin(arrays, device or device_of(arrays[0]))
        else:
            self._fill(arrays)
        self._before()
        xp = array_module(self._inputs[0])
        if self._calls < self.WARM_UP:
            with self._stream, xp.cuda.using_allocator(self._pool.malloc):
                self._result = self._step(*self._inputs)
        else:
            if self._graph is None:
                self._capture(xp)
            elif self._draws is not None:
                with self._stream:
                    self._draws.set(take_draws(default_generator, self._numbers))
            self._graph.launch(self._stream)
        self._calls += 1
        assert self._result is not None
        return self._result

    def _begin(self, arrays: tuple[Array, ...], device: str) -> None:
        if device == "cpu":
            raise ValueError("GraphedStep: the arrays are on the CPU, which has no graphs; give device='cuda'")
        self._inputs = [to_device(array, device) for array in arrays]
        xp = array_module(self._inputs[0])
        self._pool, self._stream = xp.cuda.MemoryPool(), xp.cuda.Stream()

    def _capture(self, xp: Any) -> None:
        self._result = None  # its memory goes back to the pool, whose blocks the recorded step will find
        start = take_draws(default_generator, 0)
        drawing = kernels_for(self._inputs[0]).record_draws(start)
        with self._stream, drawing as self._draws, xp.cuda.using_allocator(self._pool.malloc):
            self._stream.begin_capture()
            try:
                self._result = self._step(*self._inputs)
            finally:
                self._graph = self._stream.end_capture()
        self._numbers = NUMBERS_PER_BLOCK * take_draws(default_generator, 0).blocks_after(start)

    def _fill(self, arrays: tuple[Array, ...]) -> None:
        """Copy the arrays to where the step reads them."""
        if len(arrays) != len(self._inputs):
            raise ValueError(f"GraphedStep: {len(arrays)} arrays given; the first call had {len(self._inputs)}")
        for i, (given, held) in enumerate(zip(arrays, self._inputs, strict=True)):
            if given.shape != held.shape or given.dtype != held.dtype:
                raise ValueError(
                    f"GraphedStep: array {i} is {given.dtype.name} {given.shape}; the recorded step reads "
                    f"{held.dtype.name} {held.shape}"
                )
            if device_of(given) == "cpu":
                held.set(given)
            else:
                held[...] = given
