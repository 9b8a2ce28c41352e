"""A page for every function of `minitorch_unet.functional`, from its docstring and from what a call of it records."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docstrings import costs, evaluate, kept_values, read, sizes
from drawings import PICTURES
from modules import signature
from sources import ROOT, Sources

from minitorch_unet import functional as F
from minitorch_unet.backend.cpu import CpuKernels
from minitorch_unet.backend.cuda import CudaKernels
from minitorch_unet.backend.reference import Kernels
from minitorch_unet.ops import OPS

sys.path.insert(0, str(ROOT / "tests"))  # for a call of each function, and what its graph holds
import counted_arithmetic as counted
from function_examples import arguments_of

CONV_CPU = ("direct.h", "patches.h", "winograd.h", "tiles.h")
CONV_CUDA = ("conv_naive.cu", "conv_tiled.cu", "conv_gemm.cu", "conv_mma.cu", "conv_hopper.cu", "conv_finish.cu")
CONV_WEIGHTS_CUDA = ("conv_naive.cu", "conv_gemm.cu", "conv_mma.cu", "conv_hopper_weights.cu", "conv_finish.cu")
# Which files compute an array routine that a backend overrides.
KERNELS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "conv2d": (CONV_CPU, CONV_CUDA),
    "conv2d_input_grad": (CONV_CPU, CONV_CUDA),
    "conv2d_weight_grad": (CONV_CPU, CONV_WEIGHTS_CUDA),
    "max_pool2d": (("pointwise.h",), ("pool.cu",)),
    "max_pool2d_scatter": (("pointwise.h",), ("pool.cu",)),
    "relu_bias_backward": (("pointwise.h",), ("pointwise.cu",)),
    "channel_sums": (("pointwise.h",), ("pointwise.cu",)),
    "add_into": ((), ("pointwise.cu",)),
    "pad": (("pointwise.h",), ("pointwise.cu",)),
    "join": ((), ("pointwise.cu",)),
    "relu": ((), ("convert.cu",)),
    "cast": ((), ("convert.cu",)),
    "channel_moments": (("norm.h",), ("norm.cu",)),
    "scale_shift": (("norm.h",), ("norm.cu",)),
    "batch_norm_backward": (("norm.h",), ("norm.cu",)),
    "softmax_cross_entropy": (("loss.h",), ("loss.cu",)),
    "softmax_cross_entropy_backward": (("loss.h",), ("loss.cu",)),
    "cross_entropy": (("loss.h",), ("loss.cu",)),
    "cross_entropy_backward": (("loss.h",), ("loss.cu",)),
    "dropout": ((), ("dropout.cu",)),
}


AXIS = r"(?:[A-Z](?:_\w)?(?:/\w+)?|\.\.\.)"
SHAPE = re.compile(rf"(?:\b(?!two\b|or\b)\w+ |(?<=-> ))\({AXIS}(?:, {AXIS})*\)")  # with the argument's name, if any


def operations_of(name: str) -> list[str]:
    """The operations that a call of the function records, the last one first."""
    if name == "manual_seed":
        return []
    result = counted.main_result(getattr(F, name)(**arguments_of(name, 0)))
    return list(dict.fromkeys(node.op.name for node in counted._nodes(result))) if result.node else []


def routines_of(operation: str) -> list[str]:
    """The array routines that an operation's two rules call, with those of operations that its backward rule calls."""
    found: dict[str, None] = {}
    seen, ahead = {operation}, [(operation, True)]
    while ahead:
        name, whole = ahead.pop(0)
        code = _code(OPS[name])
        for routine in re.findall(r"\.kernels\.(\w+)", code):
            if hasattr(Kernels, routine):
                inside = re.findall(r"self\.(\w+)\(", inspect.getsource(getattr(Kernels, routine)))
                found |= dict.fromkeys([routine, *(name for name in inside if name in KERNELS)])
        for other in re.findall(r"ctx\.ops\.(\w+)", code) if whole else ():
            if other not in seen:
                seen.add(other)
                ahead.append((other, False))
    return list(found)


def _code(thing: Any) -> str:
    """Source of a class and of the private functions of its module that it calls."""
    code = inspect.getsource(thing)
    module = sys.modules[thing.__module__]
    for name in re.findall(r"\b(_[a-z]\w+)\(", code):
        if inspect.isfunction(getattr(module, name, None)):
            code += inspect.getsource(getattr(module, name))
    return code


def owner(backend: type, routine: str) -> type | None:
    """The class in which a backend overrides the routine; None where it is the reference's."""
    definer = next(cls for cls in backend.__mro__ if routine in vars(cls))
    return None if definer in Kernels.__mro__ else definer


def where(name: str, sources: Sources) -> str:
    """Where the function is written: itself, its operations, their array routines, the kernels."""
    up = "../../"
    operations = operations_of(name)
    routines = list(dict.fromkeys(r for operation in operations for r in routines_of(operation)))
    lines = [f"- the function: {sources.link_to(getattr(F, name), up)}"]
    lines += [f"- operation `{OPS[o].__name__}`: {sources.link_to(OPS[o], up)}" for o in operations]
    files: dict[str, None] = {}
    for routine in routines:
        text = f"- array routine `{routine}`: {sources.link_to(getattr(Kernels, routine), up)}"
        for number, (backend, label) in enumerate(((CpuKernels, "CPU"), (CudaKernels, "CUDA"))):
            cls = owner(backend, routine)
            if cls:
                text += f"; on {label} {sources.link_to(vars(cls)[routine], up)}"
                folder = ("cpu", "cuda")[number]
                files |= dict.fromkeys(f"kernels/{folder}/{file}" for file in KERNELS[routine][number])
        lines.append(text)
    if files:
        lines.append(f"- kernels: {', '.join(sources.link(path, up=up) for path in files)}")
    if operations:
        lines.append(f"- checked against finite differences by `minitorch-unet gradcheck functional.{name}`")
    return "\n".join(lines)


def example(name: str) -> str:
    """What the formulas give for one call."""
    if name == "manual_seed":
        return ""
    arguments = arguments_of(name, 0)
    result = counted.main_result(getattr(F, name)(**arguments))
    tensors = counted.tensors_of(arguments)
    parts = read(getattr(F, name)).sections
    first = next(v for v in arguments.values() if not isinstance(v, int | tuple))
    n = sum(t.size for t in first) if isinstance(first, list) else first.size
    letters = sizes(parts["Shapes"], arguments, result.shape) | {"n": n, "m": result.size}
    forward, backward = (evaluate(formula, letters) for formula in costs(parts["Cost"]))
    new = round(evaluate(kept_values(parts["Kept"]).new, letters))
    kept = f"{new:,} bytes are kept that were not there before" if new else "nothing new is kept"
    least = 4 * (sum(t.size for t in tensors) + result.size)
    shapes = ", ".join(f"`{t.shape}`" for t in tensors)
    share = f"{forward / least:.2g} operations a byte" if forward else "no arithmetic"
    return (
        f"For example: of {shapes}, result `{result.shape}`, it is {forward:,.0f} operations forward and "
        f"{backward:,.0f} backward, and {kept}. To read these Tensors once and to write the result moves {least:,} "
        f"bytes: {share}."
    )


def linked(text: str, names: Callable[[str], str | None]) -> str:
    """Names of public things in backticks as links; shapes as code; arrows."""
    text = re.sub(r"`(\w+)`", lambda m: f"[`{m[1]}`]({names(m[1])})" if names(m[1]) else m[0], text)
    parts = re.split(r"(\$[^$]+\$|`[^`]+`)", text)
    for i in range(0, len(parts), 2):
        parts[i] = SHAPE.sub(lambda m: f"`{m[0]}`", parts[i])
        parts[i] = parts[i].replace("->", "→")
        parts[i] = re.sub(r"\bdocs/([\w-]+)\.md", r"[\1](../../\1.md)", parts[i])
    return "".join(parts)


def tex(formula: str) -> str:
    """A formula of Kept or Cost, in which a space multiplies, as mathematics."""
    words = re.sub(r"[A-Za-z]{2,}", lambda m: rf"\mathrm{{{m[0]}}}", " ".join(formula.split()))
    spaced = re.sub(r"(?<=[A-Za-z0-9)}]) (?=[A-Za-z0-9(\\])", r"\\,", words)
    return f"${spaced}$"


def displayed(formula: str) -> str:
    """A formula that stands at the beginning, and is not part of a sentence, in a line of its own."""
    found = re.fullmatch(r"\$([^$]+)\$(?:,?\s+(with .+))?", formula, re.DOTALL)
    if not found:
        return formula
    rest = (found[2] or "").strip()
    return f"$$\n{found[1]}\n$$\n\n{rest}"


def page(name: str, sources: Sources) -> str:
    """The Markdown of a function's page."""
    function = getattr(F, name)
    parts = read(function)
    names = lambda other: f"{other}.md" if other in F.__all__ and other != name else None  # noqa: E731
    say = {section: linked(text, names) for section, text in parts.sections.items()}
    for section in ("Kept", "Cost"):
        said = re.sub(r"`([^`]+)`(?= (?:bytes|forward|backward))", lambda m: tex(m[1]), parts.sections[section])
        before, dot, after = said.partition(";" if ";" in said else ".")
        for argument in kept_values(parts.sections["Kept"]).names if section == "Kept" else ():
            before = re.sub(rf"(?<!for )\b{argument}\b", f"`{argument}`", before)
        say[section] = linked(before + dot + after, names)
    say = {section: text[0].upper() + text[1:] for section, text in say.items()}
    picture = f"\n```{{raw}} html\n{PICTURES[name]()}\n```\n" if name in PICTURES else ""
    return f"""# {name}

```{{py:function}} minitorch_unet.functional.{name}{signature(function)}

{linked(parts.summary, names)}

{linked(parts.text, names)}
```
{picture}
## Formula

{displayed(say["Formula"])}

## Shapes

{say["Shapes"]}

## Gradient

{say["Gradient"]}

## Kept for the backward pass

{say["Kept"]}

## Cost

{say["Cost"]} [What n, m and the letters are](index.md#reading-a-page).

{example(name)}

## Errors

{say["Errors"]}

## Where it is written

{where(name, sources)}
"""


GROUPS = {
    "conv": "Convolution", "pool": "Pooling and resizing", "activation": "Activations",
    "norm": "Normalisation and dropout", "loss": "Losses", "overlap": "Losses by overlap",
    "elementwise": "Arithmetic", "reduce": "Reductions", "products": "Matrix products", "shape": "Moving values",
}  # fmt: skip

INDEX = """# Functions

`from minitorch_unet import functional as F`: names, argument order and conventions are PyTorch's.

## Reading a page

In the formulas $x$ is the first argument and $y$ the result; $\\bar x$ is the gradient of the loss with respect to $x$
(`gy` in the code is $\\bar y$). **Kept** says what the graph holds on to until the backward pass: arguments and the
result cost nothing but their longer life; what is new is given in bytes for float32. "input (for weight)" is kept only
if the gradient of weight is wanted.

**Cost** counts the arithmetic of the NumPy reference: one operation for each value that is added, multiplied, compared,
exponentiated, k for a sum of k values, $2 k - 1$ for an element of a matrix product over k. $n$ is the number of values
of the first argument (of all its Tensors, if it is a list), $m$ that of the result; the other letters stand under
Shapes. The compiled kernels do the same work in fewer passes. Where a page says that few operations come on a byte,
memory is the limit, not arithmetic ([why](../../cpu-kernels.md)).

The tests compare what is said about Kept and Cost with what a call really keeps and computes.
"""


def index() -> str:
    """The page that lists all functions with what they keep and cost."""
    names = "\n".join(sorted(F.__all__))
    text = [INDEX, f"```{{toctree}}\n:hidden:\n\n{names}\n```\n"]
    groups: dict[str, list[str]] = {}
    for name in F.__all__:
        groups.setdefault(getattr(F, name).__module__.rpartition(".")[2], []).append(name)
    for group in sorted(groups, key=lambda g: list(GROUPS).index(g) if g in GROUPS else 99):
        text.append(f"## {GROUPS.get(group, group.capitalize())}\n")
        text.append("| | | kept | forward | backward |\n|---|---|---|---|---|")
        for name in sorted(groups[group]):
            parts = read(getattr(F, name))
            kept = kept_values(parts.sections["Kept"])
            held = [*kept.names, *([f"{tex(kept.new)} bytes"] if kept.new != "0" else [])]
            forward, backward = costs(parts.sections["Cost"])
            short = re.split(r"[;:.] |[;:.]$", parts.summary)[0]
            text.append(f"| [`{name}`]({name}.md) | {short} | {', '.join(held)} | {tex(forward)} | {tex(backward)} |")
        text.append("")
    return "\n".join(text)


def write(stage: Path, sources: Sources) -> None:
    """Write the index and all pages into the folder `stage`."""
    folder = stage / "reference" / "functional"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.md").write_text(index(), encoding="utf-8")
    for name in F.__all__:
        (folder / f"{name}.md").write_text(page(name, sources), encoding="utf-8")
