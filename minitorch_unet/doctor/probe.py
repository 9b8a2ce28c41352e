"""A network applied to a few images: which ReLUs never speak, how its probabilities lie, what is not finite.

Symbol key: N images, C channels, H W rows columns, K classes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from .. import functional as F
from .. import nn
from ..data import Dataset, Sample, extract
from ..data.weights import IGNORE
from ..metrics import confusion_matrix
from ..tensor import NonFiniteError, Tensor, detect_anomaly, no_grad
from ..unet import TwoConvs, UNet, UNetSizes

IMAGES = 4  # of each part
_SIDE = 200  # pixels predicted of an image, at most


@dataclasses.dataclass
class Tried:
    """The probabilities in one part: of all classes but 0 (M,), and true and predicted class (K, K) pixels."""

    outside: np.ndarray
    confusion: np.ndarray


class Probe:
    """`dead`: {layer: (silent channels, channels)} of the last network; `tried`: {part: predictions of the best one}.

    `averaged_and_own`: for each image tried the last network's cross-entropy with the running averages of its batch
    normalisation, and with the image's own statistics; empty where it has no such layers. `failure`: what a step back
    through the last network on one image met that is not finite, "" for nothing.
    """

    def __init__(self, last: UNet, best: UNet, parts: Mapping[str, Dataset]) -> None:
        last.eval()
        best.eval()
        layers = [module for _, module in last.named_modules() if isinstance(module, nn.BatchNorm2d)]
        self.averaged_and_own: list[tuple[float, float]] = []
        spoke: dict[str, np.ndarray] = {}
        self.tried: dict[str, Tried] = {}
        self.failure = ""
        for number, (name, dataset) in enumerate(parts.items()):
            chosen = np.unique(np.linspace(0, len(dataset) - 1, IMAGES).astype(int))
            foreground, confusion = [], np.zeros((best.classes,) * 2, np.int64)
            for index in map(int, chosen):
                image, label = window(dataset[index], last.sizes)
                with no_grad(), np.errstate(all="ignore"):
                    probability = F.softmax(best.class_scores(best(Tensor(image[None]))), 1).numpy()[0]
                    with listening(last, spoke):
                        last(Tensor(image[None]))
                    if layers and (label != IGNORE).any():
                        averaged = _cross_entropy(last, image, label).item()
                        with own_statistics(layers):
                            own = _cross_entropy(last, image, label).item()
                        self.averaged_and_own.append((averaged, own))
                foreground.append(1 - probability[0].ravel())
                confusion += confusion_matrix(probability.argmax(0), label, len(confusion))
                if not number and not self.failure:
                    self.failure = first_non_finite(last, image, label)
            self.tried[name] = Tried(np.concatenate(foreground), confusion)
        self.dead = {layer: (int((~heard).sum()), len(heard)) for layer, heard in spoke.items()}


def window(sample: Sample, sizes: UNetSizes) -> tuple[np.ndarray, np.ndarray]:
    """An image's middle (C, in, in) and its label (out, out); what lies outside the image is ignored in the label."""
    side = sizes.input_size(min(_SIDE, *sample.label.shape))
    out = sizes.output_size(side)
    top, left = ((n - out) // 2 for n in sample.label.shape)
    halo = (side - out) // 2
    label = extract(sample.label, top, left, out, out).copy()
    rows, columns = (
        (np.arange(out) + start < 0) | (np.arange(out) + start >= n)
        for start, n in zip((top, left), sample.label.shape, strict=True)
    )
    label[rows[:, None] | columns] = IGNORE
    return extract(sample.image, top - halo, left - halo, side, side), label


@contextlib.contextmanager
def listening(network: UNet, spoke: dict[str, np.ndarray]) -> Iterator[None]:
    """Within it, `spoke` gathers for each ReLU of the blocks which channels (C,) bool were above 0 anywhere.

    The blocks compute in their plain form for it: convolution, normalisation, ReLU, one after another.
    """
    blocks = [(f"{kind} {i}", block) for kind in ("down", "merge") for i, block in enumerate(getattr(network, kind))]

    def note(layer: str, maps: Tensor) -> None:
        heard = (maps.detach().numpy() > 0).any(axis=(0, 2, 3))
        spoke[layer] = spoke.get(layer, np.zeros_like(heard)) | heard

    def plain(name: str, block: TwoConvs, x: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        maps = F.cat(x, 1) if isinstance(x, tuple) else x
        for number, (conv, norm) in enumerate(((block.conv1, block.norm1), (block.conv2, block.norm2)), start=1):
            maps = conv(maps)
            maps = F.relu(maps if norm is None else norm(maps))
            note(f"{name}, ReLU {number}", maps)
        return maps

    for name, block in blocks:
        block.forward = lambda x, recompute=False, name=name, block=block: plain(name, block, x)
    try:
        yield
    finally:
        for _, block in blocks:
            del block.forward  # the class's own again


@contextlib.contextmanager
def own_statistics(modules: Sequence[nn.BatchNorm2d]) -> Iterator[None]:
    """Within it, batch normalisation takes the statistics of what it is given; the running averages stay."""
    before = [(module.training, module.momentum) for module in modules]
    for module in modules:
        module.training, module.momentum = True, 0.0
    try:
        yield
    finally:
        for module, (training, momentum) in zip(modules, before, strict=True):
            module.training, module.momentum = training, momentum


def _cross_entropy(network: UNet, image: np.ndarray, label: np.ndarray) -> Tensor:
    """The unweighted loss () of an image (C, H, W) and its label (P, Q), some of which must count."""
    return F.cross_entropy(network.class_scores(network(Tensor(image[None]))), label[None])


def first_non_finite(network: UNet, image: np.ndarray, label: np.ndarray) -> str:
    """What a forward and backward pass on an image (C, H, W) and label (P, Q) first met that is not finite."""
    if not (label != IGNORE).any():
        return ""
    try:
        with detect_anomaly(), np.errstate(all="ignore"):
            _cross_entropy(network, image, label).backward()
    except NonFiniteError as error:
        return str(error)
    finally:
        for p in network.parameters():
            p.grad = None
    return ""
