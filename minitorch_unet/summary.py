"""A network's modules as a tree: output shapes, parameters, multiplications, bytes. `print(summary(network, size))`.

The network runs once on zeros, dry where it can (see backend/dry.py): the engine's own code says what there is, the
large maps are asked for and never filled. So the paper's network at 572 x 572 pixels takes seconds and little memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from .backend import dry_run, is_array
from .nn import Module
from .ops import Op
from .ops.flops import products
from .tables import format_table, shape_text, size_text
from .tensor import Tensor, enable_grad
from .tensor.state import changed, state
from .tensor.walk import memory_of, not_seen, reverse_topological, saved_arrays

Shape = tuple[int, ...]


@dataclasses.dataclass
class Layer:
    """A module and what it did."""

    path: str
    depth: int  # 0: the network itself
    kind: str  # name of its class
    parameters: int  # values, those of the modules below included
    output: Shape | None = None  # of its last result; None where it computed nothing
    macs: int = 0  # multiplications with an addition in convolutions and matrix products, below included
    output_bytes: int = 0
    kept: int = 0  # bytes of maps kept for the backward pass, below included; each map with the first that keeps it


@dataclasses.dataclass
class Summary:
    """What `summary` found; printed, it is a table."""

    layers: list[Layer]  # in the order in which they ran, each behind the one that holds it
    total_params: int
    trainable_params: int
    parameter_bytes: int
    total_mult_adds: int
    total_kept: int

    def table(self, depth: int = 3, html: bool = False) -> str:
        """The layers down to `depth` levels below the network, as text."""
        small = max(layer.output_bytes for layer in self.layers) < 2**20
        unit, name = (2**10, "KiB") if small else (2**20, "MiB")
        head = ["module", "kind", "output", "parameters", "MAC", f"{name} out", f"{name} kept"]
        lines = [
            [
                "  " * layer.depth + (layer.path.rsplit(".", 1)[-1] if layer.depth > 1 else layer.path or "network"),
                layer.kind, shape_text(layer.output) if layer.output is not None else "-",
                f"{layer.parameters:,}", f"{layer.macs:,}",
                f"{layer.output_bytes / unit:,.2f}", f"{layer.kept / unit:,.2f}",
            ]
            for layer in self.layers if layer.depth <= depth
        ]  # fmt: skip
        return format_table(head, lines, html)

    def totals(self) -> str:
        """The sums as text."""
        frozen = self.total_params - self.trainable_params
        unit, prefix = (1e9, "G") if self.total_mult_adds >= 1e8 else (1e6, "M")
        return "\n".join([
            f"parameters: {self.total_params:,} ({size_text(self.parameter_bytes)})"
            + (f", {frozen:,} of them not trained" if frozen else ""),
            f"MAC, forward: {self.total_mult_adds:,} ({self.total_mult_adds / unit:.2f} {prefix}MAC)",
            f"maps kept for the backward pass: {size_text(self.total_kept)}",
        ])  # fmt: skip

    def __str__(self) -> str:
        return f"{self.table()}\n\n{self.totals()}"

    def _repr_html_(self) -> str:
        return f"{self.table(html=True)}<pre>{self.totals()}</pre>"


class _Tracer:
    """In the place of a profiler: notes what each operation makes, multiplies and keeps."""

    def __init__(self, network: Module) -> None:
        self.root = type(network).__name__
        # An operation may do the work of several modules: whose a product is, its weight says.
        self.owners = {memory_of(p.data): name.rpartition(".")[0] for name, p in network.named_parameters()}
        self.results: list[tuple[str, Shape, int]] = []  # module, shape and bytes
        self.macs: list[tuple[str, int]] = []
        self.kept: list[tuple[str, int]] = []

    def run_forward(self, op: type[Op], ctx: Any, arrays: Sequence[Any], params: Mapping[str, Any]) -> Any:
        """`op.forward(ctx, *arrays, **params)`, noted."""
        made = op.forward(ctx, *arrays, **params)
        path = "" if state.module_path == self.root else state.module_path
        for product in products(op.name, [a.shape if is_array(a) else None for a in arrays], made.shape, params):
            owner = self.owners.get(memory_of(arrays[product.weight]), path)
            self.macs.append((owner, product.macs))
            if owner != path:
                self.results.append((owner, product.shape, prod(product.shape) * made.itemsize))
        self.results.append((path, made.shape, made.nbytes))
        return made

    def note_kept(self, result: Any) -> None:
        """Note what the history of the network's result keeps, parameters apart."""
        tensors = [t for t in (result if isinstance(result, list | tuple) else [result]) if isinstance(t, Tensor)]
        seen = set(self.owners)
        for node in reversed(reverse_topological([t.node for t in tensors if t.node is not None])):
            for array in not_seen(saved_arrays(node.ctx.saved if node.ctx is not None else {}), seen):
                self.kept.append(("" if node.path == self.root else node.path, array.nbytes))


def summary(network: Module, input_size: Sequence[int]) -> Summary:
    """Run the network on zeros of shape `input_size` and list its modules.

    As if in training, but with running statistics, and dropout off. Operations that belong to no module but the
    network (poolings, crops) count in its line. Raises what the network raises for this size.
    """
    tracer = _Tracer(network)
    with changed(profiler=tracer, naming=True):
        _, result = traced(network, input_size)
    tracer.note_kept(result)
    parameters = network.parameters()
    layers = [_layer(tracer, *found) for found in _ordered(tracer, network, "", 0)]
    return Summary(
        layers, sum(p.size for p in parameters), sum(p.size for p in parameters if p.requires_grad),
        sum(p.data.nbytes for p in parameters), layers[0].macs, layers[0].kept,
    )  # fmt: skip


def traced(network: Module, input_size: Sequence[int]) -> tuple[Tensor, Any]:
    """zeros and `network(zeros)` with its history, run dry on the processor, for real elsewhere; in evaluation mode."""
    size = tuple(input_size)
    if not size or not all(isinstance(n, int | np.integer) and n > 0 for n in size):
        raise ValueError(f"input_size is {input_size!r}; it must be the input's shape, such as (1, 1, 572, 572)")
    tensors = [*network.parameters(), *(buffer for _, buffer in network.named_buffers())]
    device = tensors[0].device if tensors else "cpu"
    modes = [(module, module.training) for _, module in network.named_modules()]
    network.eval()
    try:
        with dry_run() if device == "cpu" else contextlib.nullcontext(), enable_grad(), changed(naming=True):
            given = Tensor(np.zeros(size, np.float32), device=device)
            return given, network(given)
    finally:
        for module, training in modes:
            module.training = training


def _ordered(tracer: _Tracer, module: Module, path: str, depth: int) -> Iterator[tuple[str, int, Module]]:
    """Modules in the order of their first results, each before its own; those without results last."""
    yield path, depth, module
    children = [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]

    def first(child: tuple[str, Module]) -> int:
        return next((i for i, (owner, *_) in enumerate(tracer.results) if _within(owner, child[0])), 1 << 60)

    for name, child in sorted(children, key=first):
        yield from _ordered(tracer, child, name, depth + 1)


def _within(path: str, outer: str) -> bool:
    return not outer or path == outer or path.startswith(outer + ".")


def _layer(tracer: _Tracer, path: str, depth: int, module: Module) -> Layer:
    layer = Layer(path, depth, type(module).__name__, module.parameter_count())
    layer.macs = sum(macs for owner, macs in tracer.macs if _within(owner, path))
    layer.kept = sum(size for owner, size in tracer.kept if _within(owner, path))
    for owner, shape, size in tracer.results:
        if _within(owner, path):
            layer.output, layer.output_bytes = shape, size
    return layer
