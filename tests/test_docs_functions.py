"""The documentation of the public functions says the truth: what they keep, and what they cost."""

from typing import Any

import counted_arithmetic as counted
import numpy as np
import pytest
from docs_site import load
from function_examples import arguments_of

from minitorch_unet import Tensor
from minitorch_unet import functional as F

NAMES = sorted(F.__all__)
COMPUTING = [name for name in NAMES if name != "manual_seed"]


docstrings = load("docstrings")


def letters(name: str, arguments: dict[str, Any], result: Tensor) -> dict[str, int]:
    first = next(value for value in arguments.values() if isinstance(value, Tensor | list))
    n = sum(t.size for t in first) if isinstance(first, list) else first.size
    section = docstrings.read(getattr(F, name)).sections["Shapes"]
    return docstrings.sizes(section, arguments, result.shape) | {"n": n, "m": result.size}


def call(name: str, arguments: dict[str, Any]) -> Tensor:
    return counted.main_result(getattr(F, name)(**arguments))


@pytest.mark.parametrize("name", NAMES)
def test_docstring_has_its_sections(name: str) -> None:
    parts = docstrings.read(getattr(F, name))
    assert parts.summary.endswith(".")
    assert all(text.count("$") % 2 == 0 for text in (parts.text, *parts.sections.values()))
    docstrings.kept_values(parts.sections["Kept"])
    docstrings.costs(parts.sections["Cost"])


@pytest.mark.parametrize("name", COMPUTING)
@pytest.mark.parametrize("seed", [0, 1])
def test_kept_is_what_the_graph_holds(name: str, seed: int) -> None:
    """Names of arguments exactly, and bytes of everything else exactly."""
    section = docstrings.read(getattr(F, name)).sections["Kept"]
    arguments = arguments_of(name, seed)
    result = call(name, arguments)
    names, new = counted.kept(result, arguments)
    said = docstrings.kept_values(section)
    assert names == set(said.names)
    expected = docstrings.evaluate(said.new, letters(name, arguments, result))
    assert new == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", COMPUTING)
def test_kept_only_where_it_is_needed(name: str) -> None:
    """What is kept "for" another argument is kept exactly when that one's gradient is wanted."""
    said = docstrings.kept_values(docstrings.read(getattr(F, name)).sections["Kept"]).names
    for other in {other for other in said.values() if other}:
        arguments = arguments_of(name, 2)
        for t in counted.tensors_of(arguments):
            t.requires_grad = False
        for t in counted.tensors_of({other: arguments[other]}):
            t.requires_grad = True
        names, _ = counted.kept(call(name, arguments), arguments)
        assert names == {kept for kept, purpose in said.items() if purpose in ("", other)}


@pytest.mark.parametrize("name", COMPUTING)
@pytest.mark.parametrize("seed", [0, 1])
def test_cost_is_what_the_reference_computes(name: str, seed: int) -> None:
    """To 3 %: sums over few values and work on one value a channel are left out of the formulas."""
    arguments = arguments_of(name, seed, np.float64)
    known = letters(name, arguments, call(name, arguments))
    formulas = docstrings.costs(docstrings.read(getattr(F, name)).sections["Cost"])
    for formula, found in zip(formulas, counted.operations(getattr(F, name), arguments), strict=True):
        assert found == pytest.approx(docstrings.evaluate(formula, known), rel=0.03, abs=3), formula
