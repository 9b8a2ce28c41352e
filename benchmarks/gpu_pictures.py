"""The pictures of a result of gpu.py. Each function draws one into a file; False: for lack of data, not."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from gpu_results import PASSES, PRECISIONS, Row, best, best_rival, ceilings, layers, networks, rungs, seconds
from gpu_tables import named
from pictures import INK, MARKS, OURS, PALE, QUIET, TORCH, make_figure, styled
from results import forward, groups, median, step
from tables import TITLES, number

SHADES = {"float32": PALE, "tf32": OURS, "bfloat16": "#12406b"}
CPU = Path(__file__).with_name("results") / "epyc-zen4.json"


@styled
def roofline(results: Row, file: Path) -> bool:
    """TFLOP/s of the automatic choice over FLOP per byte, layer by layer, under the roofs that were measured."""
    limits, found = ceilings(results), layers(results)
    points = [
        (row["flops"] / row["bytes"], row["flops"] / took / 1e12, precision, which)
        for by_rung in found.values()
        for precision in PRECISIONS
        if (row := by_rung.get(f"auto {precision}")) and row["flops"]
        for which in PASSES
        if (took := seconds(row, which))
    ]
    if not limits or not points:
        return False
    figure, axis = make_figure(8, 5.6)
    low, high = min(point[0] for point in points) / 2, max(point[0] for point in points) * 2
    for precision in PRECISIONS:
        top = limits.flops[precision] / 1e12
        corner = limits.flops[precision] / limits.bandwidth
        ends = [max(low, 1e-9), min(max(corner, low), high), high]
        heights = [min(top, x * limits.bandwidth / 1e12) for x in ends]
        label = f"measured roof, {precision}: {top:.0f} TFLOP/s"
        axis.plot(ends, heights, color=SHADES[precision], lw=1.4, label=label)
        for which in PASSES:
            mine = [(x, y) for x, y, p, w in points if (p, w) == (precision, which)]
            if mine:
                style = {"s": 26, "marker": MARKS[which], "color": SHADES[precision], "lw": 0}
                axis.scatter(*zip(*mine, strict=True), **style, label=f"{precision}, {TITLES[which]}")
    axis.set(xscale="log", yscale="log", xlim=(low, high))
    axis.set_xlabel("FLOP of direct arithmetic per byte of least traffic")
    axis.set_ylabel("TFLOP/s")
    axis.grid(which="major", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(file)
    return True


@styled
def ladder_bars(results: Row, file: Path) -> bool:
    """One layer on every rung: TFLOP/s of the three passes; a second panel with the forward's error."""
    found = layers(results)
    name = next((name for name in ("down 1 conv 2", "down 0 conv 2") if name in found), None)
    if name is None or not any(seconds(row, "forward") for row in found[name].values()):
        return False
    by_rung = found[name]
    order = [rung for rung in rungs(results) if rung in by_rung]
    figure, (left, right) = make_figure(9, 0.42 * len(order) + 1.4, 1, 2, sharey=True, width_ratios=(2, 1))
    colours = {"forward": OURS, "input_grad": "#6ba5d7", "weight_grad": "#b5d0ea"}
    for j, which in enumerate(PASSES):
        for i, rung in enumerate(order):
            took = seconds(by_rung[rung], which)
            if took:
                rate = by_rung[rung]["flops"] / took / 1e12
                left.barh(i + 0.26 * (j - 1), rate, 0.24, color=colours[which], label=TITLES[which] if i == 0 else None)
                left.text(rate, i + 0.26 * (j - 1), f" {rate:.3g}", va="center", fontsize=7, color=INK)
    layer = next(iter(by_rung.values()))
    left.set_yticks(range(len(order)), [named(rung) for rung in order])
    left.set(xlabel="TFLOP/s", ylim=(len(order) - 0.5, -0.65), xscale="log")
    left.set_title(f"{name}: {layer['c']} → {layer['k']} channels, {layer['h']} → {layer['p']} pixels")
    left.margins(x=0.15)
    left.legend(loc="upper right")
    errors = [by_rung[rung]["passes"]["forward"].get("error") for rung in order]
    right.plot(errors, range(len(order)), "o", color=OURS)
    right.set(xscale="log", xlabel="relative rms error, forward")
    for axis in (left, right):
        axis.grid(axis="x", alpha=0.3)
    figure.savefig(file)
    return True


@styled
def step_bars(results: Row, file: Path) -> bool:
    """A training step and a forward pass of the network: on the processor (another machine), and here."""
    ours = [group for group in networks(results) if group["batch"] == 1]
    if not any(best(group["ours"], "step") for group in ours):
        return False
    bars = []  # (label, forward, step, colour)
    if CPU.exists():
        measured = json.loads(CPU.read_text())
        label = f"processor, {measured['machine']['cores']} cores, float32"
        for group in groups(measured, "steps", "step"):
            cpu = [median(group, "ours", figure) for figure in (forward, step)]
            if group["size"] == 572 and all(cpu):
                bars.append((label, *cpu, QUIET))
    for group in ours:
        own, rival = ([find(what) for what in ("forward", "step")] for find in (
            functools.partial(best, group["ours"]), functools.partial(best_rival, group)))  # fmt: skip
        for label, values, colour in (("minitorch_unet", own, OURS), ("PyTorch", rival, TORCH)):
            if all(values):
                bars.append((f"{label}, {group['precision']}", *(value[1] for value in values), colour))
    figure, axes = make_figure(9, 0.36 * len(bars) + 1.2, 1, 2, sharey=True)
    for axis, place, title in zip(axes, (1, 2), ("forward pass", "training step"), strict=True):
        values = [1e3 * bar[place] for bar in bars]
        axis.barh(range(len(bars)), values, 0.7, color=[bar[3] for bar in bars])
        for i, value in enumerate(values):
            axis.text(value, i, f" {number(value)}", va="center", fontsize=7.5, color=INK)
        axis.set(title=title, xlabel="ms", xscale="log")
        axis.margins(x=0.2)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(bars)), [bar[0] for bar in bars])
    axes[0].invert_yaxis()
    figure.savefig(file)
    return True
