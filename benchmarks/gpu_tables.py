"""The tables of the CUDA part of kernels/README.md, in Markdown, from a result of gpu.py."""

from __future__ import annotations

from typing import Any

from gpu_results import (
    PASSES,
    Row,
    best,
    best_rival,
    ceilings,
    layers,
    left_out,
    networks,
    rows,
    rungs,
    seconds,
    share,
    torch_layer,
)
from tables import TITLES, number, table, times

NAMES = {
    "naive": "naive: a thread a value", "tiled": "tiles in shared memory", "gemm": "blocked in registers",
    "mma": "tensor cores, mma.sync", "hopper": "TMA and wgmma", "auto": "automatic choice",
}  # fmt: skip


def named(rung: str) -> str:
    """A rung for readers: what it is, and how exactly it computes."""
    algorithm, precision = rung.split()
    return f"{NAMES.get(algorithm, algorithm)}, {precision}"


def per_cent(value: float | None) -> str:
    """A share."""
    return "–" if value is None else f"{100 * value:.0f} %"


def milliseconds(value: float | None) -> str:
    """A time in ms with three digits."""
    return number(value and 1e3 * value)


def machine(results: Row) -> str:
    """Where and with what it was measured, and the ceilings."""
    found = rows(results, "environment")
    lines = [f"measured {results['began']}, {results['seconds']:.0f} s in all"]
    if device := found.get("device"):
        l2 = f"{device['l2_mib']} MiB of L2 cache"
        lines.append(f"{device['name']}, {device['multiprocessors']} multiprocessors, {device['memory_mib']} MiB, {l2}")
    if smi := found.get("nvidia-smi"):
        lines.append(f"driver {smi['driver_version']}, clocks {smi['clocks.sm']} (at most {smi['clocks.max.sm']})")
    if host := found.get("machine"):
        versions = [f"{name} {version}" for name, version in host["versions"].items() if version]
        lines += [f"{host['processor']}, {host['cores']} cores", f"Python {host['python']}, {', '.join(versions)}"]
    if limits := ceilings(results):
        products = ", ".join(f"{name} {flops / 1e12:.1f} TFLOP/s" for name, flops in limits.flops.items())
        lines.append(f"measured ceilings: streaming {limits.bandwidth / 1e12:.2f} TB/s; {products}")
    return "\n".join(f"- {line}" for line in lines)


def checks(results: Row) -> str:
    """What was checked on the device, and what came of it."""
    lines = []
    for stage, what in (("compilation", "compilation"), ("primitives", "primitives"), ("tests", "files of tests"),
                        ("sanitizer", "runs of compute-sanitizer")):  # fmt: skip
        if stage in results["stages"]:
            good, bad = rows(results, stage), left_out(results, stage)
            bad_ones = "; ".join(f"{name}: {' '.join(why.split())[:120]}" for name, why in bad.items())
            lines.append([what, str(len(good)), bad_ones.replace("|", "/") or "none"])
    good = {name: row for name, row in rows(results, "network").items() if "scores_error" in row}
    for name, row in good.items():
        errors = f"errors {row['scores_error']:.1e} (scores), {row['gradient_error']:.1e} (gradients)"
        lines.append([f"small networks, {name.removeprefix('agreement, ')}", errors, "none"])
    return table(["check", "passed", "failed or left out"], lines) if lines else ""


def network(results: Row) -> str:
    """Forward pass and step, the better of called and replayed, beside the best of PyTorch; peaks of memory."""
    lines = []
    for group in networks(results):
        line = [f"{group['precision']}, batch {group['batch']}"]
        for what in ("forward", "step"):
            own, rival = best(group["ours"], what), best_rival(group, what)
            line.append(f"{milliseconds(own[1])} ({own[0]})" if own else "–")
            line.append(f"{milliseconds(rival[1])} ({rival[0]})" if rival else "–")
            line.append(times(own[1] / rival[1]) if own and rival else "–")
        peaks = [row.get("peak_mib") for row in (group["ours"], *list(group["rivals"].values())[:1])]
        line.append(" / ".join("–" if peak is None else f"{peak:.0f}" for peak in peaks))
        lines.append(line)
    head = ["network", "forward, ms", "PyTorch", "ratio", "step, ms", "PyTorch", "ratio", "peak, MiB: ours / PyTorch"]
    return table(head, lines) if lines else ""


def ladder(results: Row) -> str:
    """Over all 3x3 convolutions: time, rate, share of the ceilings, and the largest error of each rung."""
    limits, lines = ceilings(results), []
    by_layer = {name: found for name, found in layers(results).items() if next(iter(found.values()))["kind"] == "conv3"}
    for rung in rungs(results):
        line, errors = [named(rung)], []
        for which in PASSES:
            timed = [row for found in by_layer.values() if seconds(row := found.get(rung), which) and row]
            total = sum(seconds(row, which) or 0 for row in timed)
            rate = sum(row["flops"] for row in timed) / total / 1e12 if total else None
            line += [milliseconds(total or None), number(rate)]
            bound = sum(limits.least_seconds(r["flops"], r["bytes"], r["precision"]) for r in timed) if limits else 0
            line.append(per_cent(bound / total if bound and total else None))
            errors += [row["passes"][which]["error"] for row in timed if "error" in row["passes"][which]]
        lines.append([*line, f"{max(errors):.1e}" if errors else "–"])
    head = ["rung"]
    for which in PASSES:
        head += [f"{TITLES[which]}, ms", "TFLOP/s", "of ceiling"]
    return table([*head, "largest error"], lines) if lines else ""


def per_layer(results: Row) -> str:
    """The automatic choice, layer by layer, beside PyTorch's convolution at the same precision."""
    limits, blocks = ceilings(results), []
    for precision in ("float32", "tf32", "bfloat16"):
        lines = []
        for name, found in layers(results).items():
            row = found.get(f"auto {precision}")
            if row is None:
                continue
            line = [name, f"{row['c']}→{row['k']}", f"{row['h']}→{row['p']}"]
            for which in PASSES:
                own, rival = seconds(row, which), torch_layer(results, precision, name, which)
                line.append(f"{milliseconds(own)} / {milliseconds(rival)}")
                of_ceiling = per_cent(share(row, which, limits) if limits else None)
                line += [times(own / rival if own and rival else None), of_ceiling]
            lines.append(line)
        if lines:
            head = [f"{precision}: layer", "channels", "size"]
            for which in PASSES:
                head += [f"{TITLES[which]}, ms", "ratio", "of ceiling"]
            blocks.append(table(head, lines))
    return "\n\n".join(blocks)


def others(results: Row) -> str:
    """The kernels that go once through memory: time, bytes per second, share of the measured bandwidth."""
    limits, lines = ceilings(results), []
    for name, row in rows(results, "others").items():
        if "seconds" in row:
            rate = row["bytes"] / row["seconds"]
            of_ceiling = per_cent(rate / limits.bandwidth if limits else None)
            lines.append([name, milliseconds(row["seconds"]), number(rate / 1e12), of_ceiling])
    return table(["kernel", "ms", "TB/s", "of streaming"], lines) if lines else ""


def kernels(results: Row) -> str:
    """Registers and static shared memory of every kernel as compiled on this machine."""
    row: dict[str, Any] = rows(results, "compilation").get("kernels", {})
    lines = [
        [name, str(figures["registers"]), str(figures["shared"]), str(figures["local"])]
        for name, figures in row.get("kernels", {}).items()
    ]
    return table(["kernel, macros", "registers", "static shared, bytes", "local, bytes"], lines) if lines else ""
