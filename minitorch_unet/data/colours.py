"""Labels painted in colours: the table of names and colours, and from a picture to class numbers.

Symbol key: H rows, W columns, K classes.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from minitorch_unet.data.weights import IGNORE
from minitorch_unet.errors import DataError

IGNORE_NAME = "ignore"

Colour = tuple[int, int, int]
Table = tuple[tuple[str, Colour], ...]


def read_colours(text: str) -> Table:
    """A table of (name, (red, green, blue)), the class numbers in order; the name `ignore` has none (label -100).

    `text` is "NAME=#RRGGBB,NAME=#RRGGBB,..." or the path of a text file with one class on each line: its name, then
    #RRGGBB or three numbers from 0 to 255, parted by commas, blanks, tabs or `=`. A first line without a colour is
    taken for the heading. Raises `DataError` for a file that cannot be read and `ValueError` for anything else.
    """
    if re.search(r"=\s*#", text):
        source, lines = "colours", text.split(",")
    else:
        source = text
        try:
            lines = Path(text).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            raise DataError(
                f"{text}: cannot be read as a table of colours ({reason}); legal is such a file or "
                "'NAME=#RRGGBB,NAME=#RRGGBB'"
            ) from None
    rows = [line.strip() for line in lines if line.strip()]
    table: list[tuple[str, Colour]] = []
    for number, row in enumerate(rows):
        colour = _colour(row)
        if colour is not None:
            table.append(colour)
        elif number or source == "colours":
            raise ValueError(f"{source}: {row!r} is no name with a colour, legal is NAME=#RRGGBB or NAME,R,G,B")
    for name, _ in table:
        if re.search("[,=#]", name):
            raise ValueError(f"{source}: the name {name!r} holds one of , = #")
    names, colours = [name for name, _ in table], [as_hex(colour) for _, colour in table]
    for what, values in (("name", names), ("colour", colours)):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ValueError(f"{source}: the {what} {twice} occurs twice")
    if len([name for name in names if name != IGNORE_NAME]) < 2:
        raise ValueError(f"{source}: names {len(names)} classes, at least 2 are needed")
    return tuple(table)


def _colour(row: str) -> tuple[str, Colour] | None:
    """(name, colour) of a line, None where there is none."""
    found = re.fullmatch(r"(.+?)[\s,=]+#([0-9a-fA-F]{6})", row)
    if found:
        digits = found[2]
        return found[1].strip(), (int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16))
    found = re.fullmatch(r"(.+?)[\s,=]+([0-9]{1,3})[\s,]+([0-9]{1,3})[\s,]+([0-9]{1,3})", row)
    if found and max(parts := (int(found[2]), int(found[3]), int(found[4]))) < 256:
        return found[1].strip(), parts
    return None


def as_text(table: Table) -> str:
    """The table as `read_colours` takes it."""
    return ",".join(f"{name}={as_hex(colour)}" for name, colour in table)


def as_hex(colour: Colour) -> str:
    """#rrggbb."""
    return "#" + "".join(f"{part:02x}" for part in colour)


def to_classes(picture: np.ndarray, table: Table, file: str) -> np.ndarray:
    """Class numbers (H, W) int64, -100 = ignored, of a picture (H, W, 3) uint8 in the colours of the table.

    Raises `DataError` naming `file`, the first pixel of another colour, and the nearest colour of the table: a few
    pixels between two colours mean that the picture was resized or compressed with loss.
    """
    codes = picture.astype(np.int64) @ [1 << 16, 1 << 8, 1]
    known = np.array([colour for _, colour in table]) @ [1 << 16, 1 << 8, 1]
    classes, number = [], 0
    for name, _ in table:
        classes.append(IGNORE if name == IGNORE_NAME else number)
        number += name != IGNORE_NAME
    order = np.argsort(known)
    place = np.minimum(np.searchsorted(known, codes, sorter=order), len(known) - 1)
    found = order[place]
    wrong = known[found] != codes
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        red, green, blue = picture[row, column].tolist()
        distance = [sum((a - b) ** 2 for a, b in zip((red, green, blue), c, strict=True)) for _, c in table]
        name, colour = table[int(np.argmin(distance))]
        raise DataError(
            f"{file}: {int(wrong.sum())} pixels have a colour that is not in the table, the first at row {row}, column "
            f"{column}: {as_hex((red, green, blue))}; the nearest is {name} {as_hex(colour)}"
        )
    return np.array(classes)[found]
