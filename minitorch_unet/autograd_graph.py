"""The autograd graph of a Tensor as boxes and edges, to be drawn or printed: `draw_graph(loss)`.

Nothing is drawn that is not there: boxes are the Nodes that the walk back would visit, edges their `parents`, texts
what their contexts hold. A network's boxes can be put together, module by module.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from . import svg
from .files import atomic_write
from .layered import layered
from .module_groups import module_groups
from .nn import Module, Parameter
from .ops import Recipe
from .summary import traced
from .tables import format_table, shape_text, size_text
from .tensor import Node, Tensor
from .tensor.walk import memory_of, not_seen, reverse_topological, saved_arrays

Shape = tuple[int, ...]
COLOURS = {
    "forward": "blue: operations", "module": "grey: modules",
    "leaf": "yellow: leaves", "parameter": "green: parameters", "constant": "dashed: kept, without gradient",
}  # fmt: skip
LINE, PADDING, SMALL = 15, 12, (4, 15)  # pixels: height of a line, of a box's padding; of an edge's label


@dataclasses.dataclass
class Box:
    """An operation, a module (with all its operations), a leaf, a parameter, or a constant that is kept."""

    kind: str  # "forward", "module", "leaf", "parameter" or "constant"
    title: str
    lines: list[str]
    hover: str
    nodes: list[Node] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Edge:
    """From box to box, by their numbers. `shape` is that of the gradient that comes back; None: none does."""

    source: int
    target: int
    shape: Shape | None


class AutogradGraph:
    """What `draw_graph` gives: `svg()`, `text()`, `save(path)`; a notebook shows the picture."""

    def __init__(self, boxes: list[Box], edges: list[Edge], kept: int, title: str) -> None:
        self.boxes, self.edges, self.kept, self.title = boxes, edges, kept, title

    def svg(self) -> str:
        """The picture, from the leaves at the top to the result at the bottom."""
        sizes = []
        for box in self.boxes:
            widest = max(map(len, [box.title + "  ", *box.lines]))
            sizes.append((widest * svg.LETTER + PADDING, (1 + len(box.lines)) * LINE + PADDING))
        labels = ["" if edge.shape is None else shape_text(edge.shape) for edge in self.edges]
        small = [(len(label) * svg.LETTER + SMALL[0], SMALL[1] if label else 0) for label in labels]
        place = layered(sizes, [(edge.source, edge.target) for edge in self.edges], small)
        kinds = dict.fromkeys(COLOURS[box.kind] for box in self.boxes)
        head = ["values flow down; back up each edge goes a gradient of the shape written on it",
                ", ".join(kinds), self._counts()]  # fmt: skip
        width = max(place.width, 28 + svg.LETTER * max(1.3 * len(self.title), *map(len, head)))
        parts, top, left = [svg.text(14, 22, self.title, "title")], 75, (width - place.width) / 2
        parts += [svg.text(14, 39 + 15 * i, line, "faint") for i, line in enumerate(head)]
        for edge, route, label, (x, y) in zip(self.edges, place.routes, labels, place.labels, strict=True):
            parts.append(svg.curve([(a + left, b + top) for a, b in route], edge.shape is None))
            if label:
                size = len(label) * svg.LETTER - 2
                parts.append(svg.plate(x + left - size / 2, y + top - 7, size, 14))
                parts.append(svg.text(x + left, y + top + 4, label, "middle faint"))
        for box, (x, y), (wide, high) in zip(self.boxes, place.corners, sizes, strict=True):
            middle, first = x + left + wide / 2, y + top + PADDING / 2 + 11
            texts = [svg.text(middle, first, box.title, "middle name")]
            texts += [svg.text(middle, first + LINE * (i + 1), line, "middle") for i, line in enumerate(box.lines)]
            parts.append(svg.box(x + left, y + top, wide, high, box.kind, box.hover, inside="".join(texts)))
        return svg.document(width, place.height + top, parts, f"autograd graph of {self.title}")

    def _counts(self) -> str:
        operations = sum(len(box.nodes) for box in self.boxes)
        plural = "" if operations == 1 else "s"
        return f"{operations} operation{plural}; kept for the backward pass besides leaves: {size_text(self.kept)}"

    def text(self) -> str:
        """The boxes as a table, in the order of computation: what leads to each, and what it says."""
        names = [f"{i} {box.title}" for i, box in enumerate(self.boxes)]
        lines = []
        for i, box in enumerate(self.boxes):
            sources = [
                f"{edge.source} ({'none' if edge.shape is None else shape_text(edge.shape)})"
                for edge in self.edges if edge.target == i
            ]  # fmt: skip
            kind = "operation" if box.kind == "forward" else box.kind
            lines.append([names[i], kind, ", ".join(sources) or "-", ", ".join(box.lines)])
        table = format_table(["box", "kind", "gradient goes to", "what it says"], lines)
        return f"{table}\n{self._counts()}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture."""
        atomic_write(path, self.svg().encode())

    def _repr_svg_(self) -> str:
        return self.svg()


def draw_graph(
    what: Tensor | Module, input_size: Sequence[int] | None = None, network: Module | None = None,
    names: Mapping[str, Tensor] | None = None, levels: int | None = 1, title: str | None = None,
) -> AutogradGraph:  # fmt: skip
    """The autograd graph of a Tensor, or of what a Module computes from an input of shape `input_size`.

    A Module runs once, dry, on zeros (see `summary`). Its operations are put together by modules, `levels` deep, each
    box standing for what one module did in one place; levels=None shows every operation. With a Tensor, `network` says
    whose modules and parameters they are; their operations are known where the Tensor was computed within `profile()`
    or `detect_anomaly()`, which name modules. `names`: of leaves. Raises ValueError for a Tensor without history.
    """
    constants: dict[int, str] = {}
    if isinstance(what, Module):
        if input_size is None:
            raise ValueError("draw_graph: a Module needs input_size, the shape of its input, such as (1, 1, 188, 188)")
        network, title = what, title or type(what).__name__
        given, what = traced(what, input_size)
        constants[memory_of(given.data)] = "input"
    if not isinstance(what, Tensor):
        raise TypeError(f"draw_graph: draws a Tensor's graph or a Module's, found {type(what).__name__}")
    if what.node is None:
        raise ValueError("draw_graph: this Tensor has no history; some input must have requires_grad=True")
    known = {} if network is None else {id(p): name for name, p in network.named_parameters()}
    known |= {id(tensor): name for name, tensor in (names or {}).items()}
    constants |= {memory_of(tensor.data): name for name, tensor in (names or {}).items()}
    return _Builder(what, known, constants, network, levels).build(title or what.node.op.name)


class _Builder:
    def __init__(
        self, tensor: Tensor, names: Mapping[int, str], constants: Mapping[int, str], network: Module | None,
        levels: int | None,
    ) -> None:  # fmt: skip
        assert tensor.node is not None
        self.names, self.constants = names, constants  # of leaves by id, of constants by their memory
        self.nodes = reverse_topological([tensor.node])[::-1]
        self.shapes: dict[int, Shape] = {id(tensor.node): tensor.shape}  # of each node's result: its users know it
        for node in self.nodes:
            for parent, shape in zip(node.parents, node.shapes, strict=True):
                if parent is not None and shape is not None:
                    self.shapes[id(parent)] = shape
        self.groups = {} if network is None or levels is None else module_groups(self.nodes, network, levels)
        self.leaves = {memory_of(t.data) for node in self.nodes for t in node.parents if isinstance(t, Tensor)}
        self.boxes: list[Box] = []
        self.edges: list[Edge] = []
        self.numbers: dict[int, int] = {}  # of the box that holds a node, leaf or constant

    def build(self, title: str) -> AutogradGraph:
        members: dict[int, list[Node]] = {}
        for node in self.nodes:
            members.setdefault(self.groups.get(id(node), (id(node), ""))[0], []).append(node)
        users: dict[int, set[int]] = {}  # groups that use a leaf
        for key, nodes in members.items():
            for parent in (parent for node in nodes for parent in node.parents if isinstance(parent, Tensor)):
                users.setdefault(id(parent), set()).add(key)
        for nodes in members.values():
            path = self.groups.get(id(nodes[0]), (0, ""))[1]
            inside = {id(node) for node in nodes}
            hidden = [] if not path else [
                t for t in _distinct(p for node in nodes for p in node.parents if isinstance(p, Tensor))
                if isinstance(t, Parameter) and len(users[id(t)]) == 1
            ]  # fmt: skip
            hide = inside | {id(t) for t in hidden}
            sources = [source for node in nodes for source in self._sources(node, hide)]
            box = self._module_box(path, nodes, hidden) if path else self._operation_box(nodes[0])
            number = self._add(box, nodes)
            for source, shape in sources:
                edge = Edge(source, number, shape)
                if edge not in self.edges or not path:
                    self.edges.append(edge)
        return AutogradGraph(self.boxes, self.edges, self._kept_bytes(self.nodes), title)

    def _kept_bytes(self, nodes: Sequence[Node]) -> int:
        """What these operations keep besides leaves."""
        arrays = (array for node in nodes for array in _kept(node))
        return sum(array.nbytes for array in not_seen(arrays, set(self.leaves)))

    def _add(self, box: Box, things: Sequence[Any]) -> int:
        self.boxes.append(box)
        self.numbers |= dict.fromkeys(map(id, things), len(self.boxes) - 1)
        return len(self.boxes) - 1

    def _sources(self, node: Node, hide: set[int]) -> list[tuple[int, Shape | None]]:
        """The boxes that lead to a node, with the shapes of its gradients; leaves and constants are added here."""
        found: list[tuple[int, Shape | None]] = []
        for i, parent in enumerate(node.parents):
            if parent is not None and id(parent) not in hide:
                if id(parent) not in self.numbers and isinstance(parent, Tensor):
                    self._add(self._leaf_box(parent), [parent])
                found.append((self.numbers[id(parent)], node.shapes[i]))
        for name, i in node.saved_inputs.items():
            array = node.ctx.saved[name] if node.ctx is not None else None
            if node.parents[i] is None and array is not None and not isinstance(array, Recipe):
                if memory_of(array) not in self.numbers:
                    shape = shape_text(array.shape)
                    hover = f"{shape}, {size_text(array.nbytes)}, no gradient"
                    self._add(Box("constant", self.constants.get(memory_of(array), "constant"), [shape], hover), [])
                    self.numbers[memory_of(array)] = len(self.boxes) - 1
                found.append((self.numbers[memory_of(array)], None))
        return found

    def _leaf_box(self, tensor: Tensor) -> Box:
        kind = "parameter" if isinstance(tensor, Parameter) else "leaf"
        shape = shape_text(tensor.shape)
        hover = f"{kind} {shape}, {tensor.dtype}, {size_text(tensor.data.nbytes)}; its gradient alike"
        return Box(kind, self.names.get(id(tensor), kind), [shape], hover)

    def _operation_box(self, node: Node) -> Box:
        shape = shape_text(self.shapes[id(node)])
        lines, hover = [shape], ""
        for name, value in ({} if node.ctx is None else node.ctx.saved).items():
            arrays = list(saved_arrays({name: value}))
            if arrays:
                lines.append(f"keeps {self._called(node, name)}: {size_text(sum(a.nbytes for a in arrays))}")
            elif isinstance(value, Recipe):
                lines.append(f"makes {self._called(node, name)} again")
            elif isinstance(value, float):
                lines.append(f"{name} = {value:.4g}")
            elif value is not None:
                hover += f"\n{name} = {value}"
        if node.ctx is None:
            lines.append("what it kept is gone")
        path = f" in {node.path}" if node.path else ""
        return Box("forward", node.op.name, lines, f"{node.op.name}{path} -> {shape}{hover}", [node])

    def _called(self, node: Node, name: str) -> str:
        """What to call a kept value: by where it comes from, else as the operation calls it."""
        if name in node.saved_output:
            return "its result"
        source = node.parents[node.saved_inputs[name]] if name in node.saved_inputs else None
        if isinstance(source, Node):
            return f"{source.op.name}'s result"
        if source is None and node.ctx is not None and name in node.saved_inputs:
            return self.constants.get(memory_of(node.ctx.saved[name]), name)
        return name if source is None or isinstance(source, Parameter) else self.names.get(id(source), name)

    def _module_box(self, path: str, nodes: list[Node], parameters: Sequence[Tensor]) -> Box:
        results = [shape_text(self.shapes[id(node)]) for node in nodes]
        lines = [results[-1]]
        if parameters:
            lines.append(f"{sum(p.size for p in parameters):,} parameters")
        lines.append(f"keeps {size_text(self._kept_bytes(nodes))}")
        hover = [f"{path}: {len(nodes)} operation{'s' * (len(nodes) > 1)}"]
        hover += [f"{node.op.name} -> {result}" for node, result in zip(nodes, results, strict=True)]
        hover += [f"{self.names.get(id(p), 'parameter')} {shape_text(p.shape)}" for p in parameters]
        return Box("module", path, lines, "\n".join(hover), nodes)


def _distinct(tensors: Any) -> list[Tensor]:
    return list({id(t): t for t in tensors}.values())


def _kept(node: Node) -> list[Any]:
    return [] if node.ctx is None else list(saved_arrays(node.ctx.saved))
