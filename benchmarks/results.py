"""Reading what run.py wrote: the groups of a section, best rivals, ratios within a round, layers side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from network import unet_layers
from plan import TORCH_FLOAT32

TORCH_LAYOUTS = TORCH_FLOAT32[:2]  # the compiler's own memory would be counted
BFLOAT16 = ("torch bfloat16",)
PASSES = ("forward", "input_grad", "weight_grad")
LADDER = ("naive", "im2col", "direct", "winograd2", "winograd4")
Figure = Callable[[dict[str, Any]], float]


def forward(row: dict[str, Any]) -> float:
    """Seconds of a forward pass."""
    return row["forward_s"]


def step(row: dict[str, Any]) -> float:
    """Seconds of a training step."""
    return row["step_s"]


def memory(row: dict[str, Any]) -> float:
    """MiB at the peak beyond what the process had after its imports."""
    return row["peak_mib"] - row["import_mib"]


def groups(results: dict[str, Any], section: str, kind: str) -> list[dict[str, Any]]:
    """The groups of a section and kind that have any measurement."""
    chosen = [g for g in results["groups"].values() if g["section"] == section and g["kind"] == kind]
    return [g for g in chosen if any(good(r, contender) for r in g["rounds"] for contender in r)]


def good(round_: dict[str, Any], contender: str) -> dict[str, Any] | None:
    """The contender's row in a round, None if there is none or it failed."""
    row = round_.get(contender)
    return None if row is None or "failed" in row else row


def median(group: dict[str, Any], contender: str, figure: Figure) -> float | None:
    """Median of a figure over the rounds, None if the contender has none."""
    rows = [good(r, contender) for r in group["rounds"]]
    values = [figure(row) for row in rows if row]
    return statistics.median(values) if values else None


def best(group: dict[str, Any], rivals: Iterable[str], figure: Figure) -> tuple[str, float] | None:
    """(name, median) of the rival with the least median."""
    medians = {name: value for name in rivals if (value := median(group, name, figure)) is not None}
    return min(medians.items(), key=lambda item: item[1]) if medians else None


def ratio(group: dict[str, Any], ours: str, rivals: Sequence[str], figure: Figure) -> float | None:
    """Median over rounds of (ours / the best rival in the same round): what a drifting machine spoils least."""
    ratios = []
    for round_ in group["rounds"]:
        own, others = good(round_, ours), [row for rival in rivals if (row := good(round_, rival))]
        if own and others:
            ratios.append(figure(own) / min(figure(row) for row in others))
    return statistics.median(ratios) if ratios else None


def layers(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Each layer with "ours" and "torch" {pass: median seconds, PyTorch's better layout} and "ratio" {pass: median}."""
    found = []
    for group in groups(results, "layers", "layers"):
        rounds = [(own["layers"], good(r, "torch")) for r in group["rounds"] if (own := good(r, "ours"))]
        for i, record in enumerate(rounds[0][0]):
            ours, torch, ratios = {}, {}, {}
            for name in PASSES:
                own = [next(iter(mine[i]["seconds"].values())).get(name) for mine, _ in rounds]
                rival = [
                    min(by[name] for by in row["layers"][i]["seconds"].values() if name in by)
                    for _, row in rounds
                    if row and own[0] is not None
                ]
                if own[0] is None:
                    continue
                ours[name] = statistics.median(own)
                if rival:
                    pairs = [(o, row) for o, (_, row) in zip(own, rounds, strict=True) if row]
                    torch[name] = statistics.median(rival)
                    ratios[name] = statistics.median(o / t for (o, _), t in zip(pairs, rival, strict=True))
            found.append({**record, "ours": ours, "torch": torch, "ratio": ratios})
    return found


def peak(results: dict[str, Any]) -> dict[str, float] | None:
    """The best rates that any of the runs of layers.py saw: {"gflops", "stream_gbs"}."""
    peaks = [
        row["peak"]
        for kind in ("layers", "ladder")
        for group in groups(results, "layers", kind)
        for r in group["rounds"]
        if (row := good(r, "ours"))
    ]
    return {name: max(p[name] for p in peaks) for name in peaks[0]} if peaks else None


def ladder(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The 3x3 convolutions as layers.py recorded them for all rungs; empty if the compiled kernels were absent."""
    for group in groups(results, "layers", "ladder"):
        rows = [row for r in group["rounds"] if (row := good(r, "ours"))]
        convolutions = [layer for layer in rows[-1]["layers"] if layer["kind"] == "conv3"]
        return convolutions if {*LADDER, "auto"} <= set(convolutions[0]["seconds"]) else []
    return []


def scaling(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """{"size", "base", "batch": the groups in which only that varies, in order}, with at least two groups each."""
    every = groups(results, "steps", "step") + groups(results, "scaling", "step")
    found = {}
    for axis in ("size", "base", "batch"):
        others = [name for name in ("size", "base", "batch") if name != axis]
        families: dict[tuple[int, ...], list[dict[str, Any]]] = {}
        for group in every:
            families.setdefault(tuple(group[name] for name in others), []).append(group)
        family = max(families.values(), key=len, default=[])
        if len(family) > 1:
            found[axis] = sorted(family, key=lambda group: group[axis])
    return found


def direct_flops(group: dict[str, Any]) -> int:
    """FLOPs of direct arithmetic in a forward pass of the group's network."""
    return sum(layer.flops for layer in unet_layers(group["size"], group["base"], group["batch"]))


def power_law(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """(exponent, factor) of y = factor * x**exponent: the line of least squares through log y over log x."""
    exponent, log_factor = statistics.linear_regression([math.log(a) for a in x], [math.log(b) for b in y])
    return exponent, math.exp(log_factor)


LAST_STEPS = 20  # whose mean loss is a curve's final loss
Curves = dict[str, dict[int, list[float]]]


def curves(results: dict[str, Any]) -> Curves:
    """{form: {seed: losses}} of curve.py for the seeds that every form has; others are compared with the first form."""
    runs = results.get("curve", {}).get("runs", [])
    forms = list(dict.fromkeys(run["form"] for run in runs))
    every: Curves = {form: {run["seed"]: run["loss"] for run in runs if run["form"] == form} for form in forms}
    common = sorted(set.intersection(*(set(by_seed) for by_seed in every.values()))) if every else []
    return {form: {seed: by_seed[seed] for seed in common} for form, by_seed in every.items()} if common else {}


def final_loss(losses: Sequence[float]) -> float:
    """Mean of the last steps."""
    return statistics.fmean(losses[-LAST_STEPS:])


def seed_spread(by_seed: dict[int, list[float]]) -> float | None:
    """Standard deviation of the final loss over seeds; None for fewer than two."""
    finals = [final_loss(losses) for losses in by_seed.values()]
    return statistics.stdev(finals) if len(finals) > 1 else None
