"""The pictures of the benchmarks, by matplotlib. Each function draws one into a file; False: for lack of data, not."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results import (
    LADDER,
    LAST_STEPS,
    PASSES,
    TORCH_FLOAT32,
    TORCH_LAYOUTS,
    best,
    curves,
    direct_flops,
    groups,
    ladder,
    layers,
    median,
    memory,
    peak,
    power_law,
    scaling,
    seed_spread,
    step,
)
from tables import RUNGS, TITLES

OURS, PALE, TORCH, QUIET, INK = "#1f6fb2", "#8dbfe6", "#e0702f", "#9aa4ad", "#2b2f33"
MARKS = {"forward": "o", "input_grad": "s", "weight_grad": "^"}
SEEDS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
)  # told apart by the colour-blind (Okabe, Ito)
LINES = ("-", "--", "-.", ":")

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
    figure, axes = make_figure(9.4, 0.26 * len(found) + 1.5, 1, 3, sharey=True)
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
        axis.margins(x=0.16, y=0.01)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(list(places), [layer["name"] for layer in found])
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(file)
    return True


@styled
def roofline(results: dict[str, Any], file: Path) -> bool:
    """Effective GFLOP/s over FLOP per byte, layer by layer, under the roofs that were measured."""
    found, rates = [layer for layer in layers(results) if layer["flops"]], peak(results)
    if not found or not rates:
        return False
    figure, axis = make_figure(8, 5.6)
    intensities = [layer["flops"] / layer["bytes"] for layer in found]
    low, high = min(intensities) / 2, max(intensities) * 2
    stream = rates["stream_gbs"]
    roofs = (
        (1, "-", f"streaming {stream:.0f} GB/s; direct arithmetic"),
        (4, "--", "a quarter of the multiplications, F(4×4, 3×3):"),
    )
    for factor, line, label in roofs:
        top = factor * rates["gflops"]
        label = f"roof: {label} {top:.0f} GFLOP/s"
        axis.plot([low, top / stream, high], [low * stream, top, top], line, color=INK, lw=1.2, label=label)
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
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(file)
    return True


@styled
def ladder_bars(results: dict[str, Any], file: Path) -> bool:
    """One layer on each rung: effective GFLOP/s of the three passes; a second panel with the forward's error."""
    found = ladder(results)
    if not found:
        return False
    layer = next(layer for layer in found if layer["name"] == "down 1 conv 2")
    figure, (left, right) = make_figure(9, 3.4, 1, 2, sharey=True, width_ratios=(2, 1))
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
    """Step time over size, width and batch on logarithmic axes: points measured, lines fitted, their exponents.

    Sizes are placed by the arithmetic they need, which grows faster than the input's pixels while the borders that
    valid convolutions lose are a large part of the maps.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    families = scaling(results)
    if not families:
        return False
    figure, axes = make_figure(3.2 * len(families), 3.6, 1, len(families), squeeze=False)
    names = {"size": "pixels a side, placed by arithmetic", "base": "channels of the first block", "batch": "batch"}
    for axis, (what, family) in zip(axes[0], families.items(), strict=True):
        x = [direct_flops(group) if what == "size" else group[what] for group in family]
        series = {"minitorch_unet": (OURS, "o", [median(group, "ours", step) for group in family])}
        rivals = [best(group, TORCH_FLOAT32, step) for group in family]
        series["PyTorch, best"] = (TORCH, "s", [rival and rival[1] for rival in rivals])
        for label, (colour, mark, y) in series.items():
            if all(y):
                exponent, factor = power_law(x, y)
                axis.plot(x, y, mark, color=colour, ms=5, label=f"{label}: exponent {exponent:.2f}")
                axis.plot(x, [factor * value**exponent for value in x], "-", color=colour, lw=1, alpha=0.6)
        axis.set(xscale="log", yscale="log", xlabel=names[what], ylabel="training step, s")
        axis.set_xticks(x, [str(group[what]) for group in family])
        axis.set_xticks([], minor=True)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        fixed = {name: family[0][name] for name in ("size", "base", "batch") if name != what}
        axis.set_title(", ".join(f"{name} {value}" for name, value in fixed.items()))
        axis.grid(which="both", alpha=0.25)
        axis.legend(loc="upper left", handletextpad=0.2)
        axis.set_ylim(top=axis.get_ylim()[1] * 3)  # room for the legend
    figure.savefig(file)
    return True


@styled
def memory_bars(results: dict[str, Any], file: Path) -> bool:
    """Peak memory of a step beyond the imports, by size."""
    family = sorted(groups(results, "memory", "step"), key=lambda group: group["size"])
    if not family:
        return False
    figure, axis = make_figure(8, 3.6)
    bars = {
        "PyTorch, better layout": (TORCH, TORCH_LAYOUTS),
        "minitorch_unet": (OURS, ("ours",)),
        "minitorch_unet, recomputing": (PALE, ("ours recompute",)),
    }
    for j, (label, (colour, contenders)) in enumerate(bars.items()):
        values = [found[1] if (found := best(group, contenders, memory)) else 0 for group in family]
        places = [i + 0.28 * (j - 1) for i in range(len(family))]
        axis.bar(places, values, 0.26, color=colour, label=label)
        for place, value in zip(places, values, strict=True):
            if value:
                axis.text(place, value, f"{value:.0f}", ha="center", va="bottom", fontsize=7.5, color=INK)
    axis.set_xticks(range(len(family)), [f"{group['size']} px" for group in family])
    base = family[0]["base"]
    axis.set(ylabel="MiB beyond the imports", title=f"Peak memory of a training step, base {base}, batch 1, float32")
    axis.grid(axis="y", alpha=0.3)
    axis.legend(loc="upper left")
    figure.savefig(file)
    return True


@styled
def training_curves(results: dict[str, Any], file: Path) -> bool:
    """Running means of the losses of training with each form, and below them how far the forms are apart."""
    import numpy as np

    found = curves(results)
    if len(found) < 2:
        return False
    first, *others = found
    seeds = list(found[first])
    steps = len(found[first][seeds[0]])
    width = max(1, min(LAST_STEPS, steps // 4))
    x = np.arange(width, steps + 1)

    def smooth(losses: list[float]) -> np.ndarray:
        return np.convolve(losses, np.full(width, 1 / width), mode="valid")

    figure, (upper, lower) = make_figure(8, 6, 2, 1, sharex=True, height_ratios=(3, 2))
    for seed, colour in zip(seeds, itertools.cycle(SEEDS)):
        base = smooth(found[first][seed])
        upper.plot(x, base, color=colour, lw=4, alpha=0.35, label=f"seed {seed}, {first}")
        for form, line in zip(others, LINES, strict=False):
            other = smooth(found[form][seed])
            upper.plot(x, other, line, color=colour, lw=1.2, label=f"seed {seed}, {form}")
            lower.plot(x, np.maximum(abs(other - base), 1e-9), line, color=colour, lw=1.2)
    lower.set(yscale="log", xlabel="step", ylabel="absolute difference")
    lower.set_title(f"How far {' and '.join(others)} and {first} are apart (colours as above)")
    if spread := seed_spread(found[first]):
        lower.axhline(spread, color=INK, lw=1.2, ls=":")
        text = "standard deviation of the final loss over the seeds"
        lower.text(x[-1], spread * 1.25, text, ha="right", va="bottom", fontsize=8, color=INK)
        lower.set_ylim(top=spread * 10)
    upper.set(ylabel="loss", title=f"Training loss, running mean of {width} steps")
    upper.legend(ncols=2)
    for axis in (upper, lower):
        axis.grid(alpha=0.3)
    figure.savefig(file)
    return True
