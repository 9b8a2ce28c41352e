"""Which operations of a graph belong together because one module did them in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .nn import Module
from .tensor import Node


def module_groups(nodes: Sequence[Node], network: Module, levels: int) -> dict[int, tuple[int, str]]:
    """(number, path) of the group of each node that belongs to a module: neighbours of one module, `levels` deep."""
    paths = _paths(network, levels)
    of: dict[int, tuple[int, str]] = {}
    for node in nodes:  # in order of computation
        path = next((p for p in paths if node.path == p or node.path.startswith(p + ".")), "")
        if path:
            of[id(node)] = (id(node), path)
            for parent in node.parents:
                old = of.get(id(parent))
                if old is not None and old[1] == path and old[0] != of[id(node)][0]:
                    merged = of[id(node)][0]
                    of = {key: (merged, p) if number == old[0] else (number, p) for key, (number, p) in of.items()}
    while circle := _in_circles(nodes, of):  # a way out of a module and back into it: then each operation by itself
        of = {key: group for key, group in of.items() if group[0] not in circle}
    return of


def _paths(module: Module, levels: int, prefix: str = "") -> list[str]:
    """Paths of the modules at most `levels` below, the deepest first."""
    found: list[str] = []
    for name, child in module.named_children() if levels else ():
        found += [*_paths(child, levels - 1, f"{prefix}{name}."), f"{prefix}{name}"]
    return found


def _in_circles(nodes: Sequence[Node], of: Mapping[int, tuple[int, str]]) -> set[int]:
    """Groups on a circle: those that are left when what nothing (left) leads to, or nothing follows, is taken away."""
    def number(node: Any) -> int:
        return of[id(node)][0] if id(node) in of else id(node)

    edges = {(number(p), number(n)) for n in nodes for p in n.parents if isinstance(p, Node) and number(p) != number(n)}
    while True:
        sources, targets = {a for a, _ in edges}, {b for _, b in edges}
        kept = {(a, b) for a, b in edges if a in targets and b in sources}
        if kept == edges:
            return {n for n, _ in of.values()} & sources
        edges = kept
