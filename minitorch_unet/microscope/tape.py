"""The tape: every operation of one training step, and after each of them which arrays are alive and how large they are.

While the step runs, this stands where the engine looks for a profiler (`state.profiler`): it is handed every rule of an
operation, runs it, and follows the arrays that come out by weak references, which keep nothing alive.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..backend import is_array, memory
from ..ops import Op, Part, Recipe
from ..tensor import Node, Tensor
from ..tensor.state import changed, state

MAP, BESIDE, GRADIENT = "map", "beside", "gradient"  # results of stages; what rules keep besides; gradients of anything


@dataclasses.dataclass
class Moment:
    """One operation on the tape. Bytes are those alive after it; `inside` what large arrays took besides, within it."""

    phase: str  # "forward" or "backward"
    stage: str
    op: str
    shapes: str
    seconds: float = 0.0
    maps: list[str] = dataclasses.field(default_factory=list)  # stages whose map is alive
    gradients: list[str] = dataclasses.field(default_factory=list)  # stages whose map's gradient is alive
    weights: list[str] = dataclasses.field(default_factory=list)  # stages whose parameters have their gradient
    kept: int = 0
    held: int = 0  # bytes of gradients
    inside: int = 0


@dataclasses.dataclass
class _Held:
    """Memory that something lives in: what kind of array was found in it first, and the stages it belongs to."""

    kind: str
    size: int
    maps: set[str] = dataclasses.field(default_factory=set)
    gradients: set[str] = dataclasses.field(default_factory=set)
    weights: set[str] = dataclasses.field(default_factory=set)


class Tape:
    """Records what runs within `with tape.running():`, its operations belonging to stages by `tape.step`.

    `seen(name, tensor)` is called with each stage's result, `arrived(name, gradient)` with its finished gradient.
    """

    def __init__(self, seen: Callable[[str, Tensor], None], arrived: Callable[[str, Any], None]) -> None:
        self.moments: list[Moment] = []
        self._seen, self._arrived = seen, arrived
        self._held: dict[int, _Held] = {}
        self._results: dict[int, str] = {}  # stages by the numbers of the nodes that give their maps
        self._large = self._most = 0  # bytes of large arrays now, and the most since the operation began

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Within it everything is recorded."""
        with changed(profiler=self, module_path="loss", naming=False), memory.watched(self._watch):
            yield
            self._settle()

    def step(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """`compute()`, whose operations belong to the stage `name` and whose result is its map."""
        with changed(module_path=name):
            result = compute()
        self._settle()
        if result.node is not None:
            self._results[id(result.node)] = name
        self._follow(result.data, MAP, maps=name)
        self._seen(name, result)
        return result

    # ------------------------------------------------------------- called by the engine

    def run_forward(self, op: type[Op], ctx: Any, arrays: Sequence[Any], params: Mapping[str, Any]) -> Any:
        """`op.forward(ctx, *arrays, **params)`, recorded."""
        moment = self._begin("forward", state.module_path, op.name)
        made = op.forward(ctx, *arrays, **params)
        self._end(moment)
        moment.shapes = f"{_shapes(a for a in arrays if is_array(a))} → {_shapes([made])}"
        if is_array(made):
            self._follow(made, MAP)
        given = {id(_owner(a)) for a in arrays if is_array(a)}
        for array in _arrays(ctx.saved.values()):
            if id(_owner(array)) not in given:
                self._follow(array, BESIDE)
        return made

    def run_backward(self, node: Node, kept: Any, given: list[Any]) -> Sequence[Any]:
        """`node.op.backward(kept, given.pop())`, recorded."""
        if id(node) in self._results:
            self._arrived(self._results[id(node)], given[0])
        moment = self._begin("backward", node.path, node.op.name)
        moment.shapes = _shapes(given)
        found = node.op.backward(kept, given.pop())
        self._end(moment)
        moment.shapes += f" → {_shapes(g for g in found if g is not None)}"
        for parent, gradient in zip(node.parents, found, strict=True):
            if parent is not None and gradient is not None:
                array = gradient.array if isinstance(gradient, Part) else gradient
                if isinstance(parent, Tensor):
                    self._follow(array, GRADIENT, weights=node.path)
                else:
                    self._follow(array, GRADIENT, gradients=self._results.get(id(parent), ""))
        return found

    def run_update(self, optimizer: Any, kernels: Any, *given: Any) -> None:
        """An optimiser's update, which a tape does not record."""
        optimizer.update_all(*given)

    # ------------------------------------------------------------------------------------------ bookkeeping

    def _begin(self, phase: str, stage: str, op: str) -> Moment:
        self._settle()
        self.moments.append(Moment(phase, stage, op, ""))
        self._most = self._large
        self.moments[-1].seconds = -time.perf_counter()
        return self.moments[-1]

    def _end(self, moment: Moment) -> None:
        moment.seconds += time.perf_counter()

    def _settle(self) -> None:
        """Enter what is alive into the last moment: asked for as late as possible, when its leftovers are gone."""
        if not self.moments:
            return
        moment = self.moments[-1]
        alive = list(self._held.values())
        moment.maps = sorted(set().union(*(held.maps for held in alive)))
        moment.gradients = sorted(set().union(*(held.gradients for held in alive)) - {""})
        moment.weights = sorted(set().union(*(held.weights for held in alive)))
        moment.kept = sum(held.size for held in alive if held.kind != GRADIENT)
        moment.held = sum(held.size for held in alive if held.kind == GRADIENT)
        moment.inside = max(moment.inside, self._most - self._large)

    def _follow(self, array: Any, kind: str, maps: str = "", gradients: str = "", weights: str = "") -> None:
        """Note what is in an array's memory, which may be known already, and strike it out when it dies."""
        owner = _owner(array)
        held = self._held.get(id(owner))
        if held is None:
            held = self._held[id(owner)] = _Held(kind, int(getattr(owner, "nbytes", 0) or owner.size))
            weakref.finalize(owner, self._held.pop, id(owner), None).atexit = False
        for name, found in ((maps, held.maps), (gradients, held.gradients), (weights, held.weights)):
            if name:
                found.add(name)

    def _watch(self, number: int, change: int) -> None:
        """A large array was made, or died."""
        self._large += change
        self._most = max(self._most, self._large)


def _owner(array: Any) -> Any:
    """What the array's memory belongs to: the array itself, the one it is a view of, or a lease of the heap."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


def _arrays(values: Any) -> Iterator[Any]:
    """The arrays among what an operation keeps, also those in tuples."""
    for value in values:
        if isinstance(value, tuple | list):
            yield from _arrays(value)
        elif is_array(value) and value.ndim:
            yield value
        elif isinstance(value, Recipe):
            yield from _arrays(value.arrays)


def _shapes(arrays: Any) -> str:
    return ", ".join("×".join(map(str, getattr(a, "shape", ()))) or "1 value" for a in arrays)
