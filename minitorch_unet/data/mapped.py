"""Images that stay on the disk: read in windows through memory maps, and their percentiles in bounded memory.

Symbol key: C channels, H rows, W columns. A map is opened for each window and closed with it, so that what was once
read does not count as the process's memory.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minitorch_unet.errors import DataError

from .dataset import as_pixels, rescale, to_channels
from .images import _FORMATS, _MOST_CHANNELS, _TIFF_MAGIC, _data_errors
from .tiles import reflect_index

NO_WINDOWS = "cannot be read in windows; write it anew as uncompressed TIFF or NPY"
STRIP_PIXELS = 1 << 18  # read at once when all pixels are read


@dataclasses.dataclass(frozen=True)
class Page:
    """An image in a file: its shape (H, W) or (H, W, C), and how to map it (None with the `reason` why not)."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    open: Callable[[], np.ndarray] | None
    reason: str = ""

    def window(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """A copy of (height, width) or (height, width, C) pixels in the machine's byte order, mirrored outside."""
        if self.open is None:
            raise DataError(f"{self.path}: {self.reason}")
        with _data_errors(self.path):
            array = self.open()
            if 0 <= top <= self.shape[0] - height and 0 <= left <= self.shape[1] - width:
                cut = array[top : top + height, left : left + width]
            else:
                rows = reflect_index(top, top + height, self.shape[0])
                columns = reflect_index(left, left + width, self.shape[1])
                cut = array[rows[:, None], columns]
            own = np.dtype(np.uint8) if cut.dtype == bool else cut.dtype.newbyteorder("=")
            return np.array(cut, dtype=own, order="C")


def pages_of(path: Path) -> list[Page]:
    """The pages of an image file, none of them decoded. An NPZ has none, as its size is not known beforehand.

    Raises DataError for a file that is missing, damaged or no image.
    """
    suffix = path.suffix.lower()
    with _data_errors(path):
        if suffix == ".npy":
            return _npy_pages(path)
        if suffix == ".npz":
            with open(path, "rb"):
                return []
        with open(path, "rb") as file:
            tiff = file.read(4) in _TIFF_MAGIC
        return _tiff_pages(path) if tiff else _picture_pages(path, f"is compressed and {NO_WINDOWS}")


def _npy_pages(path: Path) -> list[Page]:
    def whole() -> np.ndarray:
        mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped

    array = whole()
    if array.dtype.kind not in "buif" or array.size == 0 or array.ndim not in (2, 3, 4):
        raise DataError(f"{path}: holds {array.dtype} values of shape {array.shape}, an image has numbers")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] <= _MOST_CHANNELS):
        return [Page(path, array.shape, array.dtype, whole)]
    return [Page(path, array.shape[1:], array.dtype, partial(_plane, whole, n)) for n in range(len(array))]


def _plane(whole: Callable[[], np.ndarray], number: int) -> np.ndarray:
    plane: np.ndarray = whole()[number]
    return plane


def _tiff_pages(path: Path) -> list[Page]:
    try:
        import tifffile
    except ImportError:
        return _picture_pages(path, "mapping a TIFF needs the extra `tiff`; install it")
    logger = logging.getLogger("tifffile")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with tifffile.TiffFile(path) as file:
            return [_tiff_page(path, page, file.byteorder) for page in file.pages]
    finally:
        logger.disabled = was_disabled


def _tiff_page(path: Path, page: Any, byteorder: str) -> Page:
    """One page; what the reader of whole images would change (colour tables, inverted greys, alpha) is not mapped."""
    shape, stored = page.shape, np.dtype(page.dtype)
    planar = len(shape) == 3 and page.axes.startswith("S")
    size = (*shape[1:], shape[0]) if planar else shape
    photometric = getattr(page.photometric, "name", str(page.photometric))
    compression = getattr(page.compression, "name", str(page.compression))
    reason = ""
    if compression != "NONE":
        reason = f"is compressed ({compression})"
    elif photometric not in ("MINISBLACK", "RGB"):
        reason = f"has colours of the kind {photometric}"
    elif page.extrasamples and size[-1] in (2, 4):
        reason = "has an alpha channel"
    elif not page.is_memmappable or len(shape) not in (2, 3):
        reason = "does not hold its pixels in one piece (tiles, or strips that lie apart)"
    if reason:
        return Page(path, size, stored, None, f"{reason} and {NO_WINDOWS}")
    offset, dtype = page.dataoffsets[0], stored.newbyteorder(byteorder)

    def mapped() -> np.ndarray:
        array = np.memmap(path, dtype, "r", offset, shape)
        return array.transpose(1, 2, 0) if planar else array

    return Page(path, size, stored, mapped)


def _picture_pages(path: Path, reason: str) -> list[Page]:
    from PIL import Image

    try:
        with Image.open(path, formats=(*_FORMATS, "TIFF")) as picture:
            bands = len(picture.getbands())
            shape = (picture.height, picture.width, *((bands,) if bands > 1 else ()))
            dtype = np.dtype({"I": np.int32, "F": np.float32, "I;16": np.uint16}.get(picture.mode, np.uint8))
            return [Page(path, shape, dtype, None, reason)] * getattr(picture, "n_frames", 1)
    except Image.DecompressionBombError:
        raise DataError(f"{path}: has more pixels than Pillow reads, {reason}") from None


class NormalisedPage:
    """A mapped page as the network wants it: `normalise(to_channels(page))`, window by window.

    `shape` is (C, H, W). All pixels are read two to four times at first, for the percentiles. Raises DataError for a
    number of channels that cannot be converted and for values that are not finite.
    """

    def __init__(self, page: Page, channels: int) -> None:
        self.page, self.channels = page, channels
        self.shape = (channels, *page.shape[:2])
        self.scale = percentiles(self._strips, (1.0, 99.0))

    def _strips(self) -> Iterator[np.ndarray]:
        height, width = self.shape[1:]
        rows = max(1, STRIP_PIXELS // width)
        for top in range(0, height, rows):
            yield self._pixels(top, 0, min(rows, height - top), width)

    def _pixels(self, *place: int) -> np.ndarray:
        return as_pixels(to_channels(self.page.window(*place), self.channels, str(self.page.path)))

    def window(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """(C, height, width) float32, mirrored outside the image."""
        return rescale(self._pixels(top, left, height, width), *self.scale)


def percentiles(
    strips: Callable[[], Iterator[np.ndarray]], which: tuple[float, ...]
) -> list[np.ndarray]:
    """Percentiles `which` of each channel, then minimum and maximum, all (C,): of an image that comes in strips.

    strips: gives the strips (C, rows, W), float32 or float64, anew at each call.

    Exact, as `np.percentile` has them (linear between two neighbours in the sorted pixels): the bits of a float, the
    sign turned, sort as the floats do, so the pixel of a rank is found 16 bits at a time, from the top, by counting how
    many pixels have each value of these bits among those that agree with what was found so far.
    """
    bits, count, channels, kind = 0, 0, 0, np.dtype(np.float32)
    for strip in strips():
        kind, channels = strip.dtype, strip.shape[0]
        bits, count = 8 * kind.itemsize, count + strip[0].size
    if not count:
        raise ValueError("percentiles: there are no strips")
    places = [q / 100 * (count - 1) for q in which]
    ranks = sorted({0, count - 1, *(int(p) for p in places), *(min(int(p) + 1, count - 1) for p in places)})
    # Of every channel and rank: the bits found so far, and the rank among the pixels that have them.
    found = [[(0, rank) for rank in ranks] for _ in range(channels)]
    for shift in range(bits - 16, -1, -16):
        counts = [{prefix: np.zeros(1 << 16, np.int64) for prefix, _ in channel} for channel in found]
        for strip in strips():
            for histograms, plane in zip(counts, strip, strict=True):
                keys = _sortable(plane)
                upper = keys >> (shift + 16) if shift + 16 < bits else np.zeros_like(keys)
                digits = (keys >> shift) & 0xFFFF
                for prefix, histogram in histograms.items():
                    histogram += np.bincount(digits[upper == prefix].astype(np.int64), minlength=1 << 16)
        for histograms, channel in zip(counts, found, strict=True):
            for i, (prefix, rank) in enumerate(channel):
                upto = np.cumsum(histograms[prefix])
                digit = int(np.count_nonzero(upto <= rank))
                channel[i] = (prefix << 16 | digit, rank - int(upto[digit - 1] if digit else 0))
    values = {rank: np.array([_unsorted(c[i][0], kind) for c in found]) for i, rank in enumerate(ranks)}
    result = []
    for place in places:
        low, high = values[int(place)], values[min(int(place) + 1, count - 1)]
        result.append((low + (high - low) * (place - int(place))).astype(kind))
    return [*result, values[0], values[count - 1]]


def _sortable(plane: np.ndarray) -> np.ndarray:
    """The bits of floats as unsigned whole numbers that sort alike: negative ones have all bits turned, others one."""
    bits: Any = np.ascontiguousarray(plane).ravel().view(f"u{plane.itemsize}")
    top = bits.dtype.type(1 << (8 * plane.itemsize - 1))
    return np.where(bits & top, ~bits, bits | top)


def _unsorted(key: int, kind: np.dtype) -> Any:
    """The float whose `_sortable` is `key`."""
    size = 8 * kind.itemsize
    top = 1 << (size - 1)
    bits = key ^ top if key & top else ~key & ((1 << size) - 1)
    return np.array(bits, f"u{kind.itemsize}").view(kind)[()]
