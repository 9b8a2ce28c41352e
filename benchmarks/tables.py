"""The tables of kernels/README.md, in Markdown, from the results of run.py."""

from __future__ import annotations

import statistics
from typing import Any

from results import (
    BFLOAT16,
    LADDER,
    LAST_STEPS,
    PASSES,
    TORCH_FLOAT32,
    TORCH_LAYOUTS,
    Figure,
    best,
    curves,
    direct_flops,
    final_loss,
    forward,
    good,
    groups,
    ladder,
    layers,
    median,
    memory,
    peak,
    power_law,
    ratio,
    scaling,
    seed_spread,
    step,
)

RUNGS = {
    "naive": "naive loops", "im2col": "im2col + matrix product (NumPy)", "direct": "direct, blocked in registers",
    "winograd2": "Winograd F(2×2, 3×3)", "winograd4": "Winograd F(4×4, 3×3)", "auto": "automatic choice",
}  # fmt: skip
TITLES = {"forward": "forward", "input_grad": "input gradient", "weight_grad": "weight gradient"}


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, its first column left, the others right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """A figure with so many significant digits, never in powers of ten; a dash for None."""
    if value is None:
        return "–"
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e" in text and value >= 1 else text


def mebibytes(value: float | None) -> str:
    """A whole number, a dash for None."""
    return "–" if value is None else f"{value:.0f}"


def times(value: float | None) -> str:
    """A ratio."""
    return "–" if value is None else f"{value:.2f}×"


def machine(results: dict[str, Any]) -> str:
    """Where and with what the figures were measured."""
    m = results["machine"]
    timed = [good(r, "ours") for g in groups(results, "layers", "layers") for r in g["rounds"]]
    kernels = sorted({str(row["kernels"]) for row in timed if row})
    loads = [row["load_before"] for g in results["groups"].values() for r in g["rounds"] for row in r.values()
             if "load_before" in row]  # fmt: skip
    blas = [pool for pool in m["ours"]["pools"] if isinstance(pool, dict) and pool["user_api"] == "blas"]
    lines = [
        f"{m['processor']}, {m['cores']} cores, {m['system']}",
        f"minitorch_unet {m['ours']['minitorch_unet']}, Python {m['ours']['python']}, NumPy {m['ours']['numpy']}",
        *(f"NumPy's matrix products: {p['internal_api']} {p['version']}, {p.get('architecture', '?')}" for p in blas),
        *(f"compiled kernels: {text}" for text in kernels),
    ]
    if "torch" in m:
        lines.append(f"PyTorch {m['torch']['torch']}")
    if rates := peak(results):
        best_product = f"best float32 matrix product {rates['gflops']:.0f} GFLOP/s"
        lines.append(f"{best_product}, streaming {rates['stream_gbs']:.0f} GB/s")
    if loads:
        lines.append(f"load average before the measurements: {min(loads):.1f} to {max(loads):.1f}")
    if m["environment"]:
        lines.append("set in the environment: " + ", ".join(f"`{k}={v}`" for k, v in m["environment"].items()))
    return "\n".join(f"- {line}" for line in lines)


def named(rival: str) -> str:
    """A contender's name for readers."""
    return rival.replace("torch", "PyTorch").replace(" float32", "")


def described(group: dict[str, Any]) -> str:
    """The group's network."""
    return f"{group['size']} px, base {group['base']}, batch {group['batch']}"


def glance(results: dict[str, Any]) -> str:
    """The paper's network in a few lines: ours, what it is compared with, and the ratio."""
    rows: list[list[str]] = []

    def line(title: str, group: dict[str, Any], ours: str, rivals: tuple[str, ...], figure: Figure, unit: str) -> None:
        value, rival = ratio(group, ours, rivals, figure), best(group, rivals, figure)
        if value and rival:
            shown = mebibytes if figure is memory else number
            own = shown(median(group, ours, figure))
            against = f"{named(rival[0])}, {shown(rival[1])} {unit}"
            rows.append([title, f"{own} {unit}", against, f"**{times(value)}**"])

    timed = groups(results, "steps", "step")
    for group in timed:
        for rivals in (TORCH_FLOAT32, BFLOAT16):
            line("forward pass", group, "ours", rivals, forward, "s")
            line("training step", group, "ours", rivals, step, "s")
        line("training step, NumPy alone", group, "ours numpy", TORCH_FLOAT32, step, "s")
    sizes = [group["size"] for group in timed]
    for group in groups(results, "memory", "step"):
        if group["size"] in sizes:
            line("peak memory of a step", group, "ours", TORCH_LAYOUTS, memory, "MiB")
            line("the same, recomputing", group, "ours recompute", TORCH_LAYOUTS, memory, "MiB")
    for group in timed:
        line("training step, recomputing", group, "ours recompute", ("ours",), step, "s")
    compared = [(value, layer, name) for layer in layers(results) for name, value in layer["ratio"].items()]
    if compared:
        value, layer, name = max(compared, key=lambda item: item[0])
        own, rival = (f"{number(1e3 * layer[who][name])} ms" for who in ("ours", "torch"))
        worst = f"slowest beside PyTorch: {layer['name']}, {TITLES[name]}"
        rows.append([worst, own, f"PyTorch, {rival}", f"**{times(value)}**"])
    if not rows:
        return ""
    networks = "; ".join(described(group) for group in timed)
    return table([networks, "ours", "compared with", "ratio"], rows)


def network(results: dict[str, Any]) -> str:
    """Whole networks: each against the best float32 setting of PyTorch in the same round, some against bfloat16."""
    rows = []
    pairs = [("ours", "", TORCH_FLOAT32), ("ours", "", BFLOAT16), ("ours recompute", ", recomputing", TORCH_FLOAT32),
             ("ours numpy", ", NumPy alone", TORCH_FLOAT32)]  # fmt: skip
    for group in groups(results, "steps", "step") + groups(results, "scaling", "step"):
        for ours, remark, rivals in pairs:
            if median(group, ours, step) is None or (rivals == BFLOAT16 and not median(group, rivals[0], step)):
                continue
            line = [described(group) + remark, "PyTorch bfloat16" if rivals == BFLOAT16 else "PyTorch"]
            for figure in (forward, step):
                rival = best(group, rivals, figure)
                own, value = median(group, ours, figure), ratio(group, ours, rivals, figure)
                line += [number(own), number(rival and rival[1]), times(value)]
            rows.append(line)
    head = ["network", "rival", "forward, s", "rival, s", "ratio", "step, s", "rival, s", "ratio"]
    return table(head, rows) if rows else ""


def per_layer(results: dict[str, Any]) -> str:
    """Each layer and pass: milliseconds of ours / PyTorch's better layout, and the ratio."""
    found = layers(results)
    rows = []
    for layer in found:
        line = [layer["name"], f"{layer['c']}→{layer['k']}", f"{layer['h']}→{layer['p']}"]
        for name in PASSES:
            own, rival = layer["ours"].get(name), layer["torch"].get(name)
            line += [f"{number(own and own * 1e3)} / {number(rival and rival * 1e3)}", times(layer["ratio"].get(name))]
        rows.append(line)
    if not found:
        return ""
    total = ["**sum**", "", ""]
    for name in PASSES:
        own, rival = (sum(layer[who].get(name, 0) for layer in found) for who in ("ours", "torch"))
        total += [f"{number(own * 1e3)} / {number(rival * 1e3 or None)}", times(own / rival if rival else None)]
    head = ["layer", "channels", "size"]
    for name in PASSES:
        head += [f"{TITLES[name]}, ms", "ratio"]
    text = table(head, [*rows, total])
    compared = [(layer["name"], name, value) for layer in found for name, value in layer["ratio"].items()]
    slower = [f"{name} ({TITLES[which]}, {value:.2f}×)" for name, which, value in compared if value > 1]
    if compared:
        text += f"\n\nSlower than PyTorch: {', '.join(slower) if slower else 'no layer in any pass'}."
    return text


def rungs(results: dict[str, Any]) -> str:
    """The ladder over all 3x3 convolutions together, and each layer's forward time and error by rung."""
    found = ladder(results)
    if not found:
        return ""
    rows = []
    for name, title in RUNGS.items():
        line = [title]
        for which in PASSES:
            timed = [layer for layer in found if which in layer["seconds"][name]]
            seconds = sum(layer["seconds"][name][which] for layer in timed)
            rate = sum(layer["flops"] for layer in timed) / seconds / 1e9 if timed else None
            line += [number(seconds or None), number(rate)]
        of_direct = [
            layer["error"][name][which] / layer["error"]["direct"][which]
            for layer in found for which in layer["error"][name]
        ]  # fmt: skip
        rows.append([*line, times(max(of_direct))])
    head = ["rung"]
    for which in PASSES:
        head += [f"{TITLES[which]}, s", "GFLOP/s"]
    whole = table([*head, "largest error / direct's"], rows)
    rows = [
        [layer["name"], *(number(layer["seconds"][name]["forward"] * 1e3) for name in LADDER),
         *(f"{layer['error'][name]['forward']:.1e}" for name in ("direct", "winograd2", "winograd4"))]
        for layer in found
    ]  # fmt: skip
    head = ["layer, forward", *(f"{name}, ms" for name in LADDER)]
    return whole + "\n\n" + table([*head, "error direct", "winograd2", "winograd4"], rows)


def growth(results: dict[str, Any]) -> str:
    """Exponents of power laws fitted to the step's time, and to the arithmetic, by pixels, width and batch."""
    rows = []
    for axis, family in scaling(results).items():
        flops = [direct_flops(group) for group in family]
        scales = {"batch": [("batch", [group["batch"] for group in family])],
                  "base": [("width", [group["base"] for group in family])],
                  "size": [("pixels of the input", [group["size"] ** 2 for group in family]),
                           ("arithmetic at these sizes", flops)]}[axis]  # fmt: skip
        for name, x in scales:
            line = [name, ", ".join(str(group[axis]) for group in family), f"{power_law(x, flops)[0]:.2f}"]
            for who in ("ours", *TORCH_LAYOUTS):
                y = [value for group in family if (value := median(group, who, step))]
                line.append(f"{power_law(x, y)[0]:.2f}" if len(y) == len(x) else "–")
            rows.append(line)
    rivals = [named(name) for name in TORCH_LAYOUTS]
    return table(["exponent by", "at", "arithmetic", "ours", *rivals], rows) if rows else ""


def peaks(results: dict[str, Any]) -> str:
    """Peak memory of a training step beyond the imports, also with recomputation, and what that costs in time."""
    rows = []
    timed = {group["size"]: group for group in groups(results, "steps", "step")}
    for group in sorted(groups(results, "memory", "step"), key=lambda group: group["size"]):
        line = [described(group)]
        for ours in ("ours", "ours recompute"):
            value = ratio(group, ours, TORCH_LAYOUTS, memory)
            line += [mebibytes(median(group, ours, memory)), times(value)]
        rival = best(group, TORCH_LAYOUTS, memory)
        slower = ratio(timed.get(group["size"], group), "ours recompute", ("ours",), step)  # the steps: more rounds
        rows.append([*line, mebibytes(rival and rival[1]), times(slower)])
    head = ["network", "ours, MiB", "ratio", "recomputing, MiB", "ratio", "PyTorch, MiB", "time recomputing / ours"]
    return table(head, rows) if rows else ""


def engines(results: dict[str, Any]) -> str:
    """One convolution in small engines."""
    rows = []
    for group in groups(results, "engines", "engine"):
        for name in group["rounds"][0]:
            row = good(group["rounds"][0], name)
            if row is None:
                rows.append([name, f"not measured: {group['rounds'][0][name]['failed']}", "", ""])
                continue
            both = median(group, name, lambda row: row["both_s"])
            forward_s = median(group, name, forward)
            own = median(group, "ours", lambda row: row["both_s"])
            against = both / own if both and own else None
            rows.append([row["engine"], *(number(s and s * 1e3) for s in (forward_s, both)), times(against)])
    return table(["engine", "forward, ms", "forward + backward, ms", "ratio to ours"], rows) if rows else ""


def curve(results: dict[str, Any]) -> str:
    """Final losses of training with each form of convolution, their differences, and whether a seed changes more."""
    found = curves(results)
    if not found:
        return ""
    first, *others = found
    rows = []
    for seed in found[first]:
        finals = {form: final_loss(by_seed[seed]) for form, by_seed in found.items()}
        differences = [finals[form] - finals[first] for form in others]
        rows.append([str(seed), *(f"{value:.4f}" for value in finals.values()), *(f"{d:+.4f}" for d in differences)])
    head = ["seed", *found, *(f"{form} − {first}" for form in others)]
    text = table(head, rows)
    text += f"\n\nEach figure is the mean loss of a run's last {LAST_STEPS} steps."
    return "\n\n".join([text, *(judged(first, form, found) for form in others)])


def judged(first: str, form: str, found: dict[str, dict[int, list[float]]]) -> str:
    """A sentence: the differences between two forms at equal seeds beside the spread over seeds."""
    pairs = [(found[first][seed], found[form][seed]) for seed in found[first]]
    start = max(abs(b[0] - a[0]) / abs(a[0]) for a, b in pairs)
    differences = [final_loss(b) - final_loss(a) for a, b in pairs]
    largest, spread = max(abs(d) for d in differences), seed_spread(found[first])
    text = f"{form} beside {first}: at the first step, where the weights are equal, the losses differ by a share of "
    text += f"{start:.1e} at most. The final losses differ by at most {largest:.4f}"
    if spread is None:
        return f"{text}; one seed says nothing about the spread of seeds."
    error = statistics.stdev(differences) / len(differences) ** 0.5
    text += f", in the mean by {statistics.fmean(differences):+.4f} ± {error:.4f} (standard error), "
    text += f"and {first}'s over {len(pairs)} seeds by a standard deviation of {spread:.4f}: "
    text += f"**{'within' if largest < spread else 'outside'} the spread of seeds**, judged seed by seed"
    mean = abs(statistics.fmean(differences))
    return f"{text}; the means over the seeds are {'within' if mean < spread else 'outside'} it."
