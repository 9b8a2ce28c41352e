"""Reading what gpu.py wrote: rows of stages, ceilings, layers by rung, and shares of the ceilings."""

from __future__ import annotations

from typing import Any, NamedTuple

PASSES = ("forward", "input_grad", "weight_grad")
PRECISIONS = ("float32", "tf32", "bfloat16")
Row = dict[str, Any]


class Ceilings(NamedTuple):
    """Bytes and operations per second that this device was seen to do; of products, by precision."""

    bandwidth: float
    flops: dict[str, float]

    def least_seconds(self, flops: float, moved: float, precision: str) -> float:
        """The time that the slower of both takes at its ceiling."""
        return max(flops / self.flops[precision], moved / self.bandwidth)


def rows(results: Row, stage: str) -> dict[str, Row]:
    """{item: row} of a stage, without the items that failed or were skipped."""
    items = results["stages"].get(stage, {}).get("items", {})
    return {name: row for name, row in items.items() if not {"failed", "skipped"} & set(row)}


def left_out(results: Row, stage: str) -> dict[str, str]:
    """{item: why} of those that failed or were skipped."""
    items = results["stages"].get(stage, {}).get("items", {})
    reasons = {name: row.get("failed", row.get("skipped")) for name, row in items.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def ceilings(results: Row) -> Ceilings | None:
    """What was measured; None unless bandwidth and both kinds of arithmetic were.

    In float32 accuracy a product can be made of multiply-adds, or of three TF32 products: the better of these counts.
    """
    found = rows(results, "ceilings")
    bandwidth = [row["bytes_per_second"] for name in ("copy", "triad") if (row := found.get(name))]
    adds = [row["flops"] for name in ("multiply-adds", "float32 product") if (row := found.get(name))]
    if not bandwidth or not adds:
        return None
    flops = {"float32": max(adds)}
    for precision in ("tf32", "bfloat16"):
        row = found.get(f"{precision} product")
        flops[precision] = row["flops"] if row else max(adds)
    flops["float32"] = max(flops["float32"], flops["tf32"] / 3)
    return Ceilings(max(bandwidth), flops)


def layers(results: Row) -> dict[str, dict[str, Row]]:
    """{layer: {rung: row}}, in the order of the network; a rung is called "mma tf32", say."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows(results, "layers").values():
        found.setdefault(row["name"], {})[f"{row['algorithm']} {row['precision']}"] = row
    return found


def rungs(results: Row) -> list[str]:
    """Those that any 3x3 convolution was timed on, precision by precision."""
    names = {
        name: by_rung[name]["precision"]
        for by_rung in layers(results).values()
        for name in by_rung
        if by_rung[name]["kind"] == "conv3"
    }
    return sorted(names, key=lambda name: PRECISIONS.index(names[name]))


def seconds(row: Row | None, which: str) -> float | None:
    """Of a pass, None if it was not timed."""
    return (row or {}).get("passes", {}).get(which, {}).get("seconds")


def share(row: Row, which: str, limits: Ceilings) -> float | None:
    """How near a pass comes to what the ceilings allow: 1 is as fast as the measured peak of what binds it."""
    took = seconds(row, which)
    return limits.least_seconds(row["flops"], row["bytes"], row["precision"]) / took if took else None


def torch_layer(results: Row, precision: str, layer: str, which: str) -> float | None:
    """Seconds of a pass of a layer in PyTorch."""
    row = rows(results, "torch").get(f"layers, {precision}")
    return row["layers"].get(layer, {}).get(which) if row else None


def networks(results: Row) -> list[dict[str, Any]]:
    """For each precision and batch: {"precision", "batch", "ours": row, "rivals": {name: row}}."""
    found = []
    for name, row in rows(results, "network").items():
        if "step_s" not in row:
            continue
        rivals = {
            label: rival
            for label, stage in (("eager", "torch"), ("compiled", "compiled"))
            if (rival := rows(results, stage).get(name))
        }
        found.append({"precision": row["precision"], "batch": row["batch"], "ours": row, "rivals": rivals})
    return sorted(found, key=lambda group: (group["batch"], PRECISIONS.index(group["precision"])))


def best(row: Row, what: str) -> tuple[str, float] | None:
    """("called" or "graph", seconds) of the quicker way that `what`, "forward" or "step", was run."""
    ways = {"called": row.get(f"{what}_s"), "graph": row.get(f"{what}_graph_s")}
    timed = {name: value for name, value in ways.items() if value}
    return min(timed.items(), key=lambda item: item[1]) if timed else None


def best_rival(group: dict[str, Any], what: str) -> tuple[str, float] | None:
    """(PyTorch's setting, seconds): the quickest of eager and compiled, called and as a graph."""
    found = {
        f"{name}, {way[0]}": way[1] for name, row in group["rivals"].items() if (way := best(row, what)) is not None
    }
    return min(found.items(), key=lambda item: item[1]) if found else None
