"""The parts of the page that list facts: times of a step, data, settings. A Story in, HTML out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..pages import escape
from .parts import duration, panel, table
from .record import FLAME
from .story import Story

_SLOWEST = 10  # operations that are listed


def operations(story: Story) -> str:
    """Where the time of a step went."""
    found = story.record.get("profile")
    title = "Where a step's time goes"
    if not found:
        return panel(title, '<p class="quiet">No step of this run was timed.</p>')
    text = (
        f"Step {found['step']}, the quickest of steps {found['of'][0]} to {found['of'][1]}, as it trained: "
        f"{duration(found['seconds'])} by operation; forward computes the scores and the loss, backward the gradients, "
        "update changes the weights."
    )
    flame = story.folder / FLAME
    drawn = f'<div class="scroll flame">{flame.read_text(encoding="utf-8")}</div>' if flame.is_file() else ""
    if drawn:
        drawn = (
            "<p>The same step from left to right; below its phase each module, and below that its operations. A box is "
            f"as wide as the time it took.</p>{drawn}"
        )
    return panel(title, f"<p>{text}</p>{_times(found['op'], found['seconds'])}{drawn}")


def _times(rows: Sequence[Mapping[str, Any]], seconds: float) -> str:
    """The slowest operations, each with a bar as long as its share; the others together."""
    shown, rest = list(rows[:_SLOWEST]), rows[_SLOWEST:]
    other = {"op": f"{len(rest)} others", "phase": "", "calls": sum(row["calls"] for row in rest), "flops": None}
    inside = sum(row["time"] for row in rows)
    listed = [*shown, *([{**other, "time": sum(row["time"] for row in rest)}] if rest else [])]
    left = max(0.0, seconds - inside)
    listed.append({"op": "between operations", "phase": "", "calls": "", "flops": None, "time": left})
    lines = ""
    for row in listed:
        share = row["time"] / seconds if seconds else 0.0
        rate = f"{row['flops'] / row['time'] / 1e9:,.1f}" if row["flops"] and row["time"] else ""
        lines += (
            f"<tr><td>{escape(row['op'])}</td><td>{escape(row['phase'])}</td>"
            f'<td class="number">{row["time"] * 1e3:,.1f}</td><td class="number">{100 * share:.1f}</td>'
            f'<td class="bars"><i class="bar" style="width:{100 * share:.1f}%"></i></td>'
            f'<td class="number">{row["calls"]}</td><td class="number">{rate}</td></tr>'
        )
    head = '<th>operation</th><th>phase</th><th class="number">ms</th><th class="number">%</th><th></th>'
    head += '<th class="number">calls</th><th class="number">GFLOP/s</th>'
    return f'<div class="scroll"><table class="times"><tr>{head}</tr>{lines}</table></div>'


def data(story: Story) -> str:
    """Counts, sizes and class shares of both parts."""
    parts = story.record.get("data")
    if not parts:
        return ""
    classes = max(part["classes"] for part in parts.values())
    rows = [["", *parts]]
    rows.append(["images", *(f"{part['images']:,}" for part in parts.values())])
    rows.append(["sizes, pixels", *(_sizes(part["sizes"]) for part in parts.values())])
    rows.append(["channels", *(str(part["channels"]) for part in parts.values())])
    for k in range(classes):
        name = f"class {k}" + (" (background)" if k == 0 else "")
        rows.append([name, *(_share(part["pixels"][k], part) for part in parts.values())])
    rows.append(["ignored", *(_share(part["ignored"], part) for part in parts.values())])
    training = parts["training"]
    lines = "".join(f"<p>{escape(line)}</p>" for line in training["labels"])
    tiles = story.record.get("tiles")
    if tiles:
        seen, told = (f"{tiles[part]} × {tiles[part]}" for part in ("input", "output"))
        lines += f"<p>A training tile shows the network {seen} pixels; it predicts the {told} in the middle.</p>"
    text = (
        f"What was learnt from, and what was judged on ({escape(training['source'])}); a class with few pixels needs "
        "weights, or the network does well by ignoring it."
    )
    return panel("Data", f"<p>{text}</p>{table(rows)}{lines}")


def _sizes(sizes: Sequence[Sequence[int]]) -> str:
    shown = [f"{height} × {width}" + (f" ({count})" if len(sizes) > 1 else "") for height, width, count in sizes[:3]]
    return ", ".join(shown) + (f" and {len(sizes) - 3} others" if len(sizes) > 3 else "")


def _share(pixels: int, part: Mapping[str, Any]) -> str:
    return f"{100 * pixels / max(1, sum(part['pixels']) + part['ignored']):.1f} %"


def settings(story: Story) -> str:
    """Settings, machine, and how to compute the same again."""
    command = story.command()
    if command is None:
        again = "<p>A script began this run with data of its own; the settings below, given to "
        again += "<code>TrainConfig</code>, make the same network and the same steps.</p>"
    else:
        again = "<p>This computes the same again, to the last bit on such a machine:</p>"
        again += f"<pre>{escape(command)}</pre>"
    changed = story.changed_settings()
    by_change = sorted(story.config.items(), key=lambda item: item[0] not in changed)
    rows = [["setting", "value"], *([name, str(value)] for name, value in by_change)]
    marked = table(rows, bold=len(changed))
    ran = f"<h3>Where it ran</h3>{table(_sessions(story))}" if story.sessions else ""
    return panel(
        "Settings",
        f"{again}<p>Random numbers begin at seed {escape(story.config.get('seed'))}. In bold what is not the "
        f"default.</p><details><summary>All {len(rows) - 1} settings</summary>{marked}</details>{ran}",
    )


def _sessions(story: Story) -> list[list[str]]:
    """A column for each time that the run was begun or gone on with."""
    columns = [["from step", "when (UTC)", "device", "threads", "machine", "minitorch_unet", "with"]]
    for each in story.sessions:
        when = each["began"].replace("T", " ").replace("+00:00", "")
        device = each["device"] if each["device"] == "cpu" else each["device_name"]
        versions = ", ".join(f"{name} {version}" for name, version in each["versions"].items())
        threads = f"{each['threads']} on {each['cores']} cores"
        columns.append([f"{each['step']:,}", when, device, threads, each["machine"], each["version"], versions])
    return [list(row) for row in zip(*columns, strict=True)]
