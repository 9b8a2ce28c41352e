"""What notebooks show of Tensors and modules: right facts, pictures of the values, little work for large ones."""

import base64
import io
import re

import numpy as np
import pytest
from on_device import Tensor
from PIL import Image

import minitorch_unet as mt
from minitorch_unet import nn


def pictures(shown: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]*)"', shown)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def test_facts_of_a_tensor(device) -> None:
    leaf = Tensor(np.arange(24, dtype=np.float32).reshape(4, 6) - 3, requires_grad=True)
    shown = leaf._repr_html_()
    for fact in ("(4, 6)", "float32", leaf.device, "requires_grad <b>True", "-3 to 20"):
        assert fact in shown
    assert "computed by <b>mul" in (leaf * 2)._repr_html_()
    (leaf * 2).sum().backward()
    assert ".grad is there" in leaf._repr_html_()


def test_few_values_are_written_out_and_text_is_escaped() -> None:
    assert "[1, 2, 3]" in Tensor(np.array([1, 2, 3]))._repr_html_()
    assert "value <b>2.5" in Tensor(np.float32(2.5))._repr_html_()
    assert "shape <b>(0, 3)" in Tensor(np.zeros((0, 3), np.float32))._repr_html_()

    class Odd(nn.Module):
        pass

    module = Odd()
    module.name = "<b>&"
    assert "&lt;b&gt;&amp;" in module._repr_html_() and "<b>&" not in module._repr_html_()


def test_pictures_of_planes() -> None:
    ramp = np.linspace(0, 2, 20 * 30, dtype=np.float32).reshape(20, 30)
    (picture,) = pictures(Tensor(ramp)._repr_html_())
    assert np.array_equal(picture, np.rint(ramp.astype(np.float64) * 127.5))
    (picture,) = pictures(Tensor(ramp - 1)._repr_html_())
    assert picture.shape == (20, 30, 3)
    assert tuple(picture[0, 0]) == (24, 78, 140) and tuple(picture[-1, -1]) == (176, 74, 0)
    both = pictures(Tensor(np.stack([ramp, ramp - 2]))._repr_html_())
    assert all(picture.shape == (20, 30, 3) for picture in both), "one scale for all planes"
    assert tuple(both[0][0, 0]) == tuple(both[1][-1, -1]) == (255, 255, 255)
    maps = Tensor(np.random.default_rng(0).uniform(size=(2, 7, 20, 20)).astype(np.float32))
    shown = maps._repr_html_()
    assert len(pictures(shown)) == 4 and "3 more planes" in shown
    colour = Tensor(np.random.default_rng(0).uniform(size=(1, 3, 20, 20)).astype(np.float32))
    (picture,) = pictures(colour._repr_html_())
    assert picture.shape == (20, 20, 3)


@pytest.mark.parametrize("shape", [(4000, 5000), (3, 700, 2, 900), (10**6,), (2, 3, 5000, 4000)])
def test_a_large_tensor_is_sampled_and_its_html_small(shape, monkeypatch) -> None:
    from minitorch_unet import notebook

    fetched = []
    real = notebook.to_numpy
    monkeypatch.setattr(notebook, "to_numpy", lambda a: fetched.append(a.size) or real(a))
    tensor = mt.Tensor(np.broadcast_to(np.float32(1.0), shape))  # takes no memory: a copy of all of it would
    shown = tensor._repr_html_()
    assert "of a sample of" in shown and len(shown) < 40_000
    assert sum(fetched) <= 50_000


def test_values_that_are_not_finite_are_counted() -> None:
    values = np.ones((5, 5), np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    assert "1 to 1, 3 of them not finite" in Tensor(values)._repr_html_()
    assert "none finite" in Tensor(np.full((4, 4), np.nan, np.float32))._repr_html_()
    assert "True" not in Tensor(np.zeros((5, 5), bool))._repr_html_()


def test_a_module_is_a_table_of_its_layers() -> None:
    network = mt.UNet(base=4, depth=2)
    shown = network._repr_html_()
    rows = re.findall(r"<tr>(.*?)</tr>", shown)
    assert len(rows) == 1 + sum(1 for _ in network.named_modules())
    assert f"{network.parameter_count():,}" in rows[1]
    assert "weight (4, 1, 3, 3), bias (4,)" in shown and "down.0" in shown and "Conv2d(" in shown
    many = nn.Sequential(*[nn.ReLU() for _ in range(500)])
    assert "441 more modules" in many._repr_html_()
