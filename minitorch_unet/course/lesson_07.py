"""Crop, concatenate and sizes."""

from __future__ import annotations

from typing import Any

import minitorch_unet as mt

from . import Exercise, WrongAnswer, expect


def _check_output(answer: Any) -> None:
    for depth in (1, 2, 3, 4):
        sizes = mt.UNetSizes(depth)
        for n in [*range(1, 100), *range(180, 210), 508, 512, 524, 570, 572]:
            found, legal = answer(n, depth), sizes.is_legal(n)
            if legal and found is None:
                stages = " ".join(str(size) for _, size in sizes.trace(n))
                raise WrongAnswer(f"output_size({n}, {depth}) is None, but the size is legal: the maps are {stages}.")
            if not legal and found is not None:
                try:
                    sizes.trace(n)
                except ValueError as error:
                    why = str(error).split(": ", 2)[2].split(";")[0]
                raise WrongAnswer(f"output_size({n}, {depth}) is {found}; it must be None: {why}.")
            if legal:
                wanted = sizes.output_size(n)
                hint = "A block takes 4 off, a pooling halves, an up-convolution doubles; count the blocks once more."
                expect(found, wanted, f"output_size({n}, {depth})", hint)


def _check_field(answer: Any) -> None:
    block = [(3, 1), (3, 1)]
    pool = [(2, 2)]
    cases = [
        [(3, 1)],
        block,
        [(2, 2), (3, 1)],
        [(5, 3), (3, 2), (3, 1)],
        block + pool + block,
        (block + pool) * 4 + block,
    ]
    for layers in cases:
        low = high = 0  # the interval of inputs below output 0, carried back layer by layer
        for kernel, stride in reversed(layers):
            low, high = low * stride, high * stride + kernel - 1
        what = f"receptive_field({layers if len(layers) < 4 else f'{len(layers)} layers, the last {layers[-1]}'})"
        hint = "A layer adds kernel - 1 steps, and a step of it is the product of all strides before it in pixels."
        expect(answer(list(layers)), high - low + 1, what, hint)


def _check_offset(answer: Any) -> None:
    for depth in (1, 2, 3, 4, 5, 6):
        sizes = mt.UNetSizes(depth)
        offsets = sizes.crop_offsets(sizes.nearest_legal(1)[0])[::-1]
        for level, wanted in enumerate(offsets):
            hint = "At the deepest crop 4 are cut off; every level up doubles what is below it, and adds 8."
            expect(answer(level, depth), wanted, f"crop_offset({level}, {depth})", hint)


def _check_input(answer: Any) -> None:
    sizes = mt.UNetSizes(4)
    for output in (1, 4, 5, 100, 388, 389, 404, 512, 1000):
        wanted = sizes.input_size(output)
        hint = f"Legal inputs are 188, 204, 220 and so on; {wanted} gives {sizes.output_size(wanted)}."
        expect(answer(output), wanted, f"smallest_input({output})", hint)


EXERCISES = [
    Exercise(
        name="output_size",
        question="""output_size(n, depth): the size of the scores for an image of n x n pixels and a U-Net of
`depth` poolings (4 in the paper) with valid convolutions, or None if the size is not legal: a pooling meets
an odd size, or a map has no pixel left after a block. Without UNetSizes.""",
        start="""
def output_size(n, depth):
    ...
""",
        solution="""
def output_size(n, depth):
    for level in range(depth + 1):
        if level > 0:
            if n % 2:
                return None
            n //= 2
        n -= 4
        if n < 1:
            return None
    for level in range(depth):
        n = 2 * n - 4
        if n < 1:
            return None
    return n
""",
        wrong=[
            "def output_size(n, depth):\n    return n - 184 if n >= 188 and (n - 188) % 16 == 0 else None\n",
            """
def output_size(n, depth):  # odd sizes pass
    for level in range(depth):
        n = (n - 4) // 2
    n -= 4
    for level in range(depth):
        n = 2 * n - 4
    return n if n > 0 else None
""",
            """
def output_size(n, depth):  # the block at the bottom is forgotten
    for level in range(depth):
        n -= 4
        if n % 2:
            return None
        n //= 2
    for level in range(depth):
        n = 2 * n - 4
    return n if n > 0 else None
""",
        ],
        check=_check_output,
    ),
    Exercise(
        name="receptive_field",
        question="""receptive_field(layers): how many pixels (along one axis) one value after a chain of
layers depends on. layers is a list of (kernel, stride), from the image on: a 3 x 3 convolution is (3, 1), a
pooling (2, 2). For the way down to the bottom of the paper's U it is 140.""",
        start="""
def receptive_field(layers):
    ...
""",
        solution="""
def receptive_field(layers):
    field, step = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * step
        step *= stride
    return field
""",
        wrong=[
            "def receptive_field(layers):  # strides forgotten\n    return 1 + sum(k - 1 for k, s in layers)\n",
            """
def receptive_field(layers):  # a layer's own stride counts too early
    field, step = 1, 1
    for kernel, stride in layers:
        step *= stride
        field += (kernel - 1) * step
    return field
""",
            """
def receptive_field(layers):  # as if windows never overlapped
    field = 1
    for kernel, stride in layers:
        field *= kernel
    return field
""",
        ],
        check=_check_field,
    ),
    Exercise(
        name="crop_offset",
        question="""crop_offset(level, depth): how many pixels are cut off each side of the skip map at
`level` (0 is the uppermost) in a U-Net of `depth` poolings. For depth 4 and the levels 3, 2, 1, 0 it is 4,
16, 40, 88. The image's size does not matter. Without UNetSizes.""",
        start="""
def crop_offset(level, depth):
    ...
""",
        solution="""
def crop_offset(level, depth):
    offset = 4
    for _ in range(depth - 1 - level):
        offset = 2 * offset + 8
    return offset
""",
        wrong=[
            "def crop_offset(level, depth):\n    return {3: 4, 2: 16, 1: 40, 0: 88}.get(level, 0)\n",
            "def crop_offset(level, depth):\n    return 4 * 2 ** (depth - 1 - level)\n",
        ],
        check=_check_offset,
    ),
    Exercise(
        name="smallest_input",
        question="""smallest_input(output): the smallest legal image size of the paper's network whose scores
are at least output x output pixels.""",
        start="""
def smallest_input(output):
    ...
""",
        solution="""
def smallest_input(output):
    n = 188
    while n - 184 < output:
        n += 16
    return n
""",
        wrong=[
            "def smallest_input(output):\n    return output + 184\n",
            "def smallest_input(output):\n    return 188 + (output - 4) // 16 * 16\n",
        ],
        check=_check_input,
    ),
]
