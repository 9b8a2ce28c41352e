"""The pictures of the benchmarks, by matplotlib. Each function draws one into a file; False: for lack of data, not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results import (
    LADDER,
    PASSES,
    TORCH_FLOAT32,
    best,
    direct_flops,
    groups,
    ladder,
    layers,
    median,
    memory,
    peak,
    scaling,
    slope,
    step,
)
from tables import RUNGS, TITLES

OURS, TORCH, QUIET, INK = "#1f6fb2", "#e0702f", "#9aa4ad", "#2b2f33"
MARKS = {"forward": "o", "input_grad": "s", "weight_grad": "^"}


STYLE = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": QUIET, "axes.labelcolor": INK,
    "axes.axisbelow": True, "font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left",
    "xtick.color": INK, "ytick.color": INK, "legend.frameon": False, "legend.fontsize": 8,
}  # fmt: skip
Draw = Callable[[dict[str, Any], Path], bool]


def styled(draw: Draw) -> Draw:
    """Draw in STYLE, which matplotlib looks up at every call."""

    @functools.wraps(draw)
    def wrapped(results: dict[str, Any], file: Path) -> bool:
        from matplotlib import rc_context

        with rc_context(STYLE):
            return draw(results, file)

    return wrapped


def make_figure(width: float, height: float, rows: int = 1, columns: int = 1, **settings: Any) -> tuple[Any, Any]:
    """A figure that needs no screen, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **settings)


@styled
def layer_bars(results: dict[str, Any], file: Path) -> bool:
    """Milliseconds of each layer, ours beside PyTorch's better layout, one panel a pass; the ratio at the bars."""
    found = layers(results)
    if not found:
        return False
    figure, axes = make_figure(11, 0.26 * len(found) + 1.2, 1, 3, sharey=True)
    places = range(len(found))
    for axis, name in zip(axes, PASSES, strict=True):
        ours, torch = ([1e3 * layer[who].get(name, 0) for layer in found] for who in ("ours", "torch"))
        axis.barh([i - 0.2 for i in places], ours, 0.38, color=OURS, label="minitorch_unet")
        axis.barh([i + 0.2 for i in places], torch, 0.38, color=TORCH, label="PyTorch, better layout")
        for i, layer in enumerate(found):
            if name in layer["ratio"]:
                text = f" {layer['ratio'][name]:.2f}×"
                axis.text(max(ours[i], torch[i]), i, text, va="center", fontsize=7, color=INK)
        axis.set(title=TITLES[name], xlabel="ms")
        axis.margins(x=0.12, y=0.01)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(list(places), [layer["name"] for layer in found])
    axes[0].invert_yaxis()
    axes[0].legend(loc="lower right", fontsize=8)
    figure.savefig(file)
    return True


@styled
def roofline(results: dict[str, Any], file: Path) -> bool:
    """Effective GFLOP/s over FLOP per byte, layer by layer, under the roofs that were measured."""
    found, rates = [layer for layer in layers(results) if layer["flops"]], peak(results)
    if not found or not rates:
        return False
    figure, axis = make_figure(8, 5)
    intensities = [layer["flops"] / layer["bytes"] for layer in found]
    low, high = min(intensities) / 2, max(intensities) * 2
    roofs = (
        (1, "direct arithmetic: best matrix product", "-"),
        (4, "F(4×4, 3×3): a quarter of the multiplications", "--"),
    )
    for factor, label, line in roofs:
        top = factor * rates["gflops"]
        corner = top / rates["stream_gbs"]
        axis.plot([low, corner, high], [low * rates["stream_gbs"], top, top], line, color=INK, lw=1.2)
        axis.text(high, top * 1.04, f"{label}, {top:.0f} GFLOP/s", ha="right", va="bottom", fontsize=8, color=INK)
    streaming = f"streaming, {rates['stream_gbs']:.0f} GB/s"
    axis.text(low * 1.15, low * rates["stream_gbs"] * 5, streaming, fontsize=8, color=INK)
    for who, colour, label in (("torch", TORCH, "PyTorch"), ("ours", OURS, "minitorch_unet")):
        for name in PASSES:
            timed = [(i, layer) for i, layer in zip(intensities, found, strict=True) if name in layer[who]]
            if timed:
                rate = [layer["flops"] / layer[who][name] / 1e9 for _, layer in timed]
                style = {"s": 26, "marker": MARKS[name], "color": colour, "alpha": 0.75, "lw": 0}
                axis.scatter([i for i, _ in timed], rate, **style, label=f"{label}, {TITLES[name]}")
    axis.set(xscale="log", yscale="log", xlim=(low, high))
    axis.set_xlabel("FLOP of direct arithmetic per byte of least traffic")
    axis.set_ylabel("FLOP of direct arithmetic / time, GFLOP/s")
    axis.grid(which="major", alpha=0.3)
    axis.legend(loc="lower right")
    figure.savefig(file)
    return True


@styled
def ladder_bars(results: dict[str, Any], file: Path) -> bool:
    """One layer on each rung: effective GFLOP/s of the three passes; a second panel with the forward's error."""
    found = ladder(results)
    if not found:
        return False
    layer = next(layer for layer in found if layer["name"] == "down 1 conv 2")
    figure, (left, right) = make_figure(10, 3.4, 1, 2, sharey=True, width_ratios=(2, 1))
    colours = {"forward": OURS, "input_grad": "#6ba5d7", "weight_grad": "#b5d0ea"}
    for j, name in enumerate(PASSES):
        for i, rung in enumerate(LADDER):
            seconds = layer["seconds"][rung].get(name)
            if seconds:
                rate = layer["flops"] / seconds / 1e9
                left.barh(i + 0.26 * (j - 1), rate, 0.24, color=colours[name], label=TITLES[name] if i == 1 else None)
                text = f" {rate:.0f}" if rate >= 10 else f" {rate:.1f}"
                left.text(rate, i + 0.26 * (j - 1), text, va="center", fontsize=7, color=INK)
    if rates := peak(results):
        left.axvline(rates["gflops"], color=INK, lw=1, ls="--")
        left.text(rates["gflops"], -0.62, " best matrix product", fontsize=7, color=INK, va="bottom")
    left.set_yticks(range(len(LADDER)), [RUNGS[rung] for rung in LADDER])
    left.set(xlabel="FLOP of direct arithmetic / time, GFLOP/s", ylim=(len(LADDER) - 0.5, -0.65))
    left.set_title(f"{layer['name']}: {layer['c']} → {layer['k']} channels, {layer['h']} → {layer['p']} pixels", pad=12)
    left.margins(x=0.1)
    left.legend(loc="upper right", frameon=True, facecolor="white", edgecolor="white")  # hides the line behind it
    errors = [layer["error"][rung]["forward"] for rung in LADDER]
    right.plot(errors, range(len(LADDER)), "o", color=OURS)
    for i, error in enumerate(errors):
        right.text(error * 1.15, i, f" {error:.1e}", va="center", fontsize=7, color=INK)
    right.set(xscale="log", xlim=(min(errors) / 2, max(errors) * 4))
    right.set_xlabel("relative rms error, forward")
    for axis in (left, right):
        axis.grid(axis="x", alpha=0.3)
    figure.savefig(file)
    return True


@styled
def scaling_curves(results: dict[str, Any], file: Path) -> bool:
    """Step time over size, width and batch on logarithmic axes, with the exponent of each fit.

    Sizes are placed by the arithmetic they need, which grows faster than the input's pixels while the borders that
    valid convolutions lose are a large part of the maps.
    """
    from matplotlib.ticker import NullFormatter

    families = scaling(results)
    if not families:
        return False
    figure, axes = make_figure(3.7 * len(families), 3.5, 1, len(families), squeeze=False)
    names = {"size": "pixels a side, placed by arithmetic", "base": "channels of the first block", "batch": "batch"}
    for axis, (what, family) in zip(axes[0], families.items(), strict=True):
        x = [direct_flops(group) if what == "size" else group[what] for group in family]
        curves = {"minitorch_unet": (OURS, [median(group, "ours", step) for group in family])}
        rivals = [best(group, TORCH_FLOAT32, step) for group in family]
        curves["PyTorch, best"] = (TORCH, [rival and rival[1] for rival in rivals])
        for label, (colour, y) in curves.items():
            if all(y):
                axis.plot(x, y, "o-", color=colour, ms=4, lw=1.4, label=f"{label}: exponent {slope(x, y):.2f}")
        axis.set(xscale="log", yscale="log", xlabel=names[what], ylabel="training step, s")
        axis.set_xticks(x, [str(group[what]) for group in family])
        axis.set_xticks([], minor=True)
        axis.yaxis.set_minor_formatter(NullFormatter())
        fixed = {name: family[0][name] for name in ("size", "base", "batch") if name != what}
        axis.set_title(", ".join(f"{name} {value}" for name, value in fixed.items()))
        axis.grid(which="both", alpha=0.25)
        axis.legend(loc="upper left")
        axis.set_ylim(top=axis.get_ylim()[1] * 2)
    figure.savefig(file)
    return True


@styled
def memory_bars(results: dict[str, Any], file: Path) -> bool:
    """Peak memory of a step beyond the imports, by size."""
    family = sorted(groups(results, "memory", "step"), key=lambda group: group["size"])
    if not family:
        return False
    figure, axis = make_figure(7, 3.4)
    bars = {"minitorch_unet": (OURS, -0.2), "PyTorch, better layout": (TORCH, 0.2)}
    for label, (colour, shift) in bars.items():
        for i, group in enumerate(family):
            rival = best(group, TORCH_FLOAT32[:2], memory)
            value = median(group, "ours", memory) if colour == OURS else rival and rival[1]
            if value:
                axis.bar(i + shift, value, 0.38, color=colour, label=label if i == 0 else None)
                axis.text(i + shift, value, f"{value:.0f}", ha="center", va="bottom", fontsize=8, color=INK)
    axis.set_xticks(range(len(family)), [f"{group['size']} px" for group in family])
    base = family[0]["base"]
    axis.set(ylabel="MiB beyond the imports", title=f"Peak memory of a training step, base {base}, batch 1, float32")
    axis.grid(axis="y", alpha=0.3)
    axis.legend(loc="upper left")
    figure.savefig(file)
    return True
