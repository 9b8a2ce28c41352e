"""The gallery of mistakes: every snippet says what it should, and the page quotes what they print."""

import ast
import importlib.util
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from small_runs import one_thread

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet import nn, optim

__all__ = ["one_thread"]

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples" / "mistakes"

# What each snippet must print, beside what the page quotes.
SAID = {
    "block_made_in_forward": "parameters of shape (4, 1, 3, 3), (4,) were made inside forward",
    "half_the_channels": "input has 16 channels, weight (8, 8, 3, 3) with groups 1 expects 8; a concatenation has",
    "pooled_map_as_skip": "a pooled map in the place of the one before the pooling?",
    "lost_row": "they differ by one row or column: max_pool2d drops the last one of an odd size",
    "channels_last_pictures": "input has shape (1, 64, 64, 3); expected (N, 3, H, W)",
    "whole_image_in_sight": "output row 96: input rows 96 to 283, 188 of 572; the algebra says (96, 283)",
    "sigmoid_before_logits_loss": "input is the result of sigmoid, but this loss applies softmax or sigmoid itself",
    "softmax_twice": "input is the result of softmax, but this loss applies softmax or sigmoid itself",
    "labels_of_another_kind": "of one-hot labels take the class numbers, argmax(1)",
    "label_255": "if it means unknown, pass ignore_index=255",
    "forgotten_zero_grad": "adds to gradients by which an optimiser has taken a step already",
    "cleared_too_early": "step: none of its 1 parameters has a gradient",
    "plateau_in_max_mode": "mode 'max' lowers the learning rate after 7 values that fell from 0.7 to 0.3",
    "backward_twice": "the values kept by 'exp' are gone, because this graph was walked before",
    "changed_in_place": "a value kept by 'mul' was changed in place after it was used",
    "data_leaves_the_graph": "what is computed from .data or .numpy() leaves the graph",
    "forgotten_eval": "mistake: twice the same? False",
    "field_of_view_as_label": "marks the field of view, like the other label files, and is no label",
    "neighbours_in_validation": "neighbours look alike (correlation 0.99, others 0.47): split in order",
    "accuracy_of_black": "mistake: accuracy 0.98",
}


@pytest.fixture(scope="module")
def page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_page", FOLDER / "make_page.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def outputs(page: ModuleType) -> dict[str, str]:
    return {name: page.printed(name) for name in SAID}


@pytest.mark.parametrize("name", SAID)
def test_the_mistake_is_named_and_the_right_way_works(name: str, outputs: dict[str, str]) -> None:
    assert SAID[name] in outputs[name]
    assert name == "whole_image_in_sight" or "right" in outputs[name]


def test_the_page_is_what_the_snippets_are(page: ModuleType, outputs: dict[str, str]) -> None:
    assert page.PAGE == ROOT / "docs" / "mistakes.md"
    assert page.PAGE.read_text(encoding="utf-8") == page.make(outputs)
    files = {path.stem for path in FOLDER.glob("*.py")} - {"make_page"}
    assert files == set(SAID) == {name for names in page.SECTIONS.values() for name in names}


@pytest.mark.parametrize("name", SAID)
def test_snippets_are_short_and_explained(name: str) -> None:
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert 15 <= source.count("\n") <= 45
    heading, *text = (ast.get_docstring(ast.parse(source)) or "").splitlines()
    assert 10 < len(heading) < 80 and not heading.endswith(".") and len(text) > 2


def test_what_the_texts_say_of_doctor_exists() -> None:
    """Names of diagnoses in the texts, such as `label-255`, are doctor's."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "minitorch_unet/doctor").glob("*.py"))
    named = {
        name
        for path in FOLDER.glob("*.py")
        for name in re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`", ast.get_docstring(ast.parse(path.read_text())) or "")
    }
    assert len(named) > 4
    assert not [name for name in named if f'"{name}"' not in sources.replace('f"{colour}', '"black')]


# ------------------------------------------------------------------------- no alarm where nothing is wrong


class Lazy(nn.Module):
    """Makes its layer at the first call, and keeps it."""

    conv: nn.Conv2d | None = None

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        if self.conv is None:
            self.conv = nn.Conv2d(x.shape[1], 2, 1)
        return self.conv(x)


class Inner(nn.Module):
    """Makes a layer in the call of a module inside, and forgets it."""

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        return nn.Linear(2, 2)(x)


def test_a_layer_made_in_forward_and_kept_is_no_mistake() -> None:
    x = mt.Tensor(np.ones((1, 1, 2, 2), np.float32))
    outer = nn.Sequential(Lazy())
    assert outer(x).shape == (1, 2, 2, 2) and outer.parameter_count() == 4
    flat = mt.Tensor(np.ones((1, 2), np.float32))
    with pytest.raises(ValueError, match=r"Sequential: parameters of shape \(2, 2\), \(2,\) were made inside forward"):
        nn.Sequential(Inner())(flat)
    with mt.no_grad():  # nothing is trained here
        nn.Sequential(Inner())(flat)
    nn.Linear(2, 2)  # outside again


def steps_that_clear(w: mt.Tensor, optimizer: optim.Optimizer) -> None:
    for _ in range(3):
        optimizer.zero_grad()
        for _ in range(2):  # two losses share a step
            (w * w).sum().backward()
        optimizer.step()


def two_optimisers(w: mt.Tensor, optimizer: optim.Optimizer) -> None:
    other = optim.Adam([w])
    (w * w).sum().backward()
    optimizer.step()
    other.step()


def a_frozen_part(w: mt.Tensor, optimizer: optim.Optimizer) -> None:
    both = optim.SGD([w, mt.Tensor(np.ones(1, np.float32))])
    both.backward_and_step((w * w).sum())
    (w * w).sum().backward()
    both.step()


@pytest.mark.parametrize("use", [steps_that_clear, two_optimisers, a_frozen_part])
def test_right_loops_are_not_warned_of(use: Callable[[mt.Tensor, optim.Optimizer], None]) -> None:
    w = mt.Tensor(np.ones(1, np.float32), requires_grad=True)
    use(w, optim.SGD([w], lr=0.1))  # warnings are errors here


@pytest.mark.parametrize(
    ("mode", "values"),
    [
        ("max", [0.1, 0.5, 0.6, 0.6, 0.59, 0.58, 0.57, 0.56, 0.55]),  # a score at its end
        ("max", [0.5, 0.4, 0.45, 0.44, 0.46, 0.43, 0.45, 0.42]),  # one that swings
        ("max", [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),  # a run that has died
        ("min", [0.7, 0.8, 0.9, 1.1, 1.4, 1.9, 2.5]),  # a loss that rises: the rate is rightly lowered
        ("min", [0.7, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4]),
    ],
)
def test_plateaus_without_a_mistake(mode: str, values: list[float]) -> None:
    schedule = optim.Plateau(1.0, mode, patience=2)
    assert [schedule.update(value) for value in values][-1] < 1


def test_a_noisy_loss_in_max_mode_is_seen() -> None:
    schedule = optim.Plateau(1.0, "max", patience=5)
    with pytest.warns(UserWarning, match="fell from 0.7 to 0.28; if they are losses, the mode must be 'min'"):
        for value in (0.7, 0.5, 0.52, 0.4, 0.35, 0.3, 0.28):
            schedule.update(value)


def losses() -> list[Any]:
    label = np.zeros((1, 3), int)
    return [
        lambda x: F.cross_entropy(x, label), lambda x: F.dice_loss(x, label), lambda x: F.focal_loss(x, label),
        lambda x: F.tversky_loss(x, label), lambda x: F.binary_cross_entropy_with_logits(x, np.zeros((1, 2, 3))),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(5))
def test_losses_know_where_scores_come_from(number: int) -> None:
    scores = mt.Tensor(np.ones((1, 2, 3), np.float32), requires_grad=True)
    loss = losses()[number]
    for squashing in (F.sigmoid, lambda x: F.softmax(x, 1)):
        with pytest.warns(UserWarning, match="input is the result of (sigmoid|softmax), but this loss applies"):
            loss(squashing(scores))
    loss(scores * 2)
    loss(F.sigmoid(scores) * 10 - 5)  # scores all the same


def test_nll_loss_wants_logarithms() -> None:
    scores = mt.Tensor(np.ones((1, 2, 3), np.float32), requires_grad=True)
    F.nll_loss(F.log_softmax(scores, 1), np.zeros((1, 3), int))
    with pytest.warns(UserWarning, match="nll_loss: input is the result of softmax.*log_softmax in its place"):
        F.nll_loss(F.softmax(scores, 1), np.zeros((1, 3), int))


def test_a_warning_names_the_callers_line() -> None:
    scores = mt.Tensor(np.ones((1, 2, 3), np.float32), requires_grad=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        F.cross_entropy(F.softmax(scores, 1), np.zeros((1, 3), int))
        F.binary_cross_entropy_with_logits(F.sigmoid(scores), np.zeros((1, 2, 3)))
    assert [Path(each.filename).name for each in caught] == ["test_mistakes.py"] * 2
