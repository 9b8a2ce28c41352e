"""The gradient check: covers everything public, passes on it, and rejects what is wrong; see also test_mutations."""

import dataclasses
import inspect
from typing import Any

import numpy as np
import pytest

from minitorch_unet import functional as F
from minitorch_unet import nn, unet
from minitorch_unet.gradcheck_cases import Case
from minitorch_unet.gradcheck_table import Row, all_cases, check_case, format_table, run_table
from minitorch_unet.ops import OPS
from minitorch_unet.tensor import Node, Tensor, apply, grad
from minitorch_unet.testing import GradcheckError, gradcheck, gradgradcheck

CASES = all_cases()
WITHOUT_DERIVATIVE = {
    "manual_seed": "sets a random state and computes nothing",
    "argmax": "its result is an index",
}
# Methods of Tensor that compute nothing differentiable; every other one needs a case.
TENSOR_METHODS_WITHOUT_CASE = {
    "__init__", "__repr__", "_repr_html_", "__len__", "__bool__", "__float__", "__setitem__", "__hash__", "_from_node",
    "_compare", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__and__", "__or__",
    "numpy", "item", "detach", "register_hook", "backward", "__dlpack__", "__dlpack_device__",
}  # fmt: skip


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


def values(*numbers: float) -> Tensor:
    return Tensor(np.array(numbers, dtype=np.float64), requires_grad=True)


# ------------------------------------------------------------------ coverage


def run_counted(case: Case, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often `owner.name` is called by the case."""
    calls: list[str] = []
    original = getattr(owner, name)

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, counting)
        function, inputs = case.make()
        function(*inputs)
    return len(calls)


@pytest.mark.parametrize("name", sorted(set(F.__all__) - set(WITHOUT_DERIVATIVE)))
def test_every_public_function_has_a_case_that_calls_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [case for case in CASES if case.covers == f"functional.{name}"]
    assert any(case.smooth for case in cases)
    assert all(run_counted(case, F, name, monkeypatch) for case in cases)


def public_modules() -> list[type[nn.Module]]:
    candidates = [*vars(nn).values(), *vars(unet).values()]
    classes = {c for c in candidates if inspect.isclass(c) and issubclass(c, nn.Module)} - {nn.Module, unet.TwoConvs}
    return sorted(classes, key=lambda c: c.__name__)


@pytest.mark.parametrize("module", public_modules())
def test_every_module_has_a_case_that_calls_it(module: type, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [case for case in CASES if case.covers == f"{module.__module__.rpartition('.')[2]}.{module.__name__}"]
    assert any(case.smooth for case in cases)
    assert all(run_counted(case, module, "forward", monkeypatch) for case in cases)


def test_every_differentiable_tensor_method_has_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = {name for name, value in vars(Tensor).items() if inspect.isfunction(value)}
    methods -= TENSOR_METHODS_WITHOUT_CASE
    assert {case.covers for case in CASES if case.covers.startswith("tensor.")} == {f"tensor.{m}" for m in methods}
    for case in CASES:
        if case.covers.startswith("tensor."):
            assert run_counted(case, Tensor, case.covers.removeprefix("tensor."), monkeypatch)


def operations_of(outputs: Any) -> set[str]:
    names: set[str] = set()
    waiting = [o.node for o in (outputs if isinstance(outputs, tuple) else (outputs,)) if o.node is not None]
    while waiting:
        node = waiting.pop()
        names.add(node.op.name)
        waiting.extend(parent for parent in node.parents if isinstance(parent, Node))
    return names


def test_every_operation_is_in_the_graph_of_a_smooth_case() -> None:
    reached: set[str] = set()
    for case in CASES:
        if case.smooth:
            function, inputs = case.make()
            reached |= operations_of(function(*inputs))
    assert reached == set(OPS)


def test_names_of_cases_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


# ----------------------------------------------------------------- the table


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case, device: str) -> None:
    if device != "cpu":
        if case.host_only:
            pytest.skip("no GPU has the type")
        if case.smooth:  # two directions instead of every element
            case = dataclasses.replace(case, mode="projection")
    row = check_case(case, device)
    assert row.passed, row.message
    assert row.error < 1e-6
    if case.smooth:
        assert row.second_error is not None
        assert row.second_error < 1e-6
        assert row.kinks == 0
    else:
        assert row.second_error is None


@pytest.mark.parametrize(("name", "kinks"), [("relu: at 0", 1), ("amax: tie", 2), ("clamp: on the edge", 1)])
def test_kinks_are_counted_in_the_table(name: str, kinks: int) -> None:
    (row,) = run_table(f"functional.{name}")
    assert row.kinks == kinks


def test_table_as_text() -> None:
    rows = run_table("functional.exp")
    assert format_table(rows).splitlines()[-1] == "1 cases, all passed"
    text = format_table([*rows, Row("nn.Wrong", 0.5, None, 3, "gradcheck: it is wrong")])
    assert "FAILED" in text
    assert "nn.Wrong: gradcheck: it is wrong" in text
    assert text.splitlines()[-1] == "2 cases, 1 failed"


def test_table_reports_a_wrong_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OPS["tanh"], "backward", staticmethod(lambda ctx, gy: (gy * (1 - ctx.y),)))
    seen: list[Row] = []
    rows = run_table("functional.tanh", progress=seen.append)
    assert rows == seen
    assert [row.passed for row in rows] == [False]
    assert "gradcheck: operation 'tanh'" in rows[0].message


def test_table_refuses_a_filter_without_cases() -> None:
    with pytest.raises(ValueError, match="filter 'conv9' matches no case"):
        run_table("conv9")


# -------------------------------------------------------- the checker checked


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("mode", ["full", "projection"])
def test_derivative_wrong_by_a_thousandth_is_rejected(size: float, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def function(x: Tensor) -> Tensor:
        return F.exp(x) * size

    x = leaf(2, 3)
    assert gradcheck(function, x, mode=mode).max_relative_error < 1e-8
    monkeypatch.setattr(OPS["exp"], "backward", staticmethod(lambda ctx, gy: (1.001 * gy * ctx.y,)))
    result = gradcheck(function, x, mode=mode, raise_exception=False)
    assert not result
    assert 0.9e-3 < result.max_relative_error < 1.1e-3


@pytest.mark.parametrize("index", [(0, 0), (1, 2)])
def test_one_wrong_element_is_named(index: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = np.ones((2, 3))
    wrong[index] = 1.001
    monkeypatch.setattr(OPS["mul"], "backward", staticmethod(lambda ctx, gy: (gy * ctx.b, gy * ctx.a * wrong)))

    def product(x: Tensor, y: Tensor) -> Tensor:
        return x * y

    with pytest.raises(GradcheckError) as caught:
        gradcheck(product, [leaf(2, 3), leaf(2, 3, seed=1)])
    text = str(caught.value)
    assert f"'product' (last operation 'mul'): the gradient of input 1 at {list(index)} is " in text
    assert "1 of 12 comparisons fail" in text
    analytic, numeric = (
        float(text.split(f" {word} ")[0].split()[-1]) for word in ("by the backward rule", "by central")
    )
    assert abs(analytic / numeric - 1.001) < 1e-6


def test_missing_gradient_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GradcheckError, match=r"is 0 by the backward rule but"):
        gradcheck(lambda x: x.detach() * 2, leaf(3))
    with pytest.raises(GradcheckError, match="shape"):
        monkeypatch.setattr(OPS["sum_to"], "forward", staticmethod(lambda ctx, a, shape: a))
        gradcheck(lambda x: x + np.ones((2, 3)), leaf(3))


def test_kinks_are_counted_and_not_failed() -> None:
    result = gradcheck(F.relu, values(-1, 0, 1, 2, 3, 0.5))
    assert (result.kinks, result.checked) == (1, 5)
    assert gradcheck(F.abs, values(-1, 0, 1, 2, 3, 0.5)).kinks == 1
    assert gradcheck(lambda x: F.amax(x, 0), values(3, 1, 2, 3, 0, -1, 1, 1, 2, 0)).kinks == 2
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    x[0, 0, 0, 0] = x[0, 0, 1, 1]
    assert gradcheck(lambda x: F.max_pool2d(x, 2), Tensor(x, requires_grad=True)).kinks == 2


@pytest.mark.parametrize("distance", [3e-7, 1e-6, 3e-6, 9e-6, -1e-6])
def test_beside_a_kink_elements_are_still_compared(distance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closer than eps, farther than its smallest fraction: the check goes nearer and finds the slope."""
    x = values(distance, 1, -2)
    result = gradcheck(F.relu, x)
    assert (result.kinks, result.checked) == (0, 3)
    monkeypatch.setattr(OPS["relu"], "backward", staticmethod(lambda ctx, gy: (gy * (1.001 * (ctx.y > 0) + 1e-3),)))
    assert not gradcheck(F.relu, x, raise_exception=False)


@pytest.mark.parametrize("point", [0.0, 1e-7, 1e-3, 1.0])
@pytest.mark.parametrize("steepness", [1.0, 1e2, 1e4])
def test_sharp_bends_of_a_smooth_function_are_no_kinks(
    point: float, steepness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bend(x: Tensor) -> Tensor:
        return F.softplus(x, beta=steepness, threshold=1e9)

    result = gradcheck(bend, values(point, -0.7), tolerance=1e-5)
    assert (result.kinks, result.checked) == (0, 2)
    right = OPS["softplus"].backward
    monkeypatch.setattr(OPS["softplus"], "backward", staticmethod(lambda ctx, gy: (1.001 * right(ctx, gy)[0],)))
    assert not gradcheck(bend, values(point, -0.7), tolerance=1e-5, raise_exception=False)


def test_wrong_rule_where_the_derivative_vanishes_is_no_kink(monkeypatch: pytest.MonkeyPatch) -> None:
    def square(x: Tensor) -> Tensor:
        return x**2

    assert gradcheck(square, values(0, 1e-9, 1, 2)).kinks == 0
    monkeypatch.setattr(
        OPS["pow_scalar"], "backward", staticmethod(lambda ctx, gy: (gy * (2 * ctx.a + 1e-3 * (ctx.a == 0)),))
    )
    assert not gradcheck(square, values(0, 1, 2), raise_exception=False)


def test_too_many_kinks_fail() -> None:
    with pytest.raises(GradcheckError, match="2 of 3 elements lie on a kink or tie"):
        gradcheck(F.relu, values(0, 0, 1))


def test_a_jump_is_no_kink() -> None:
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: F.where(x.data >= 0, x + 1, x), values(0, 1, 2, 3, 4, 5))


def test_changed_input_is_found() -> None:
    def careless(x: Tensor) -> Tensor:
        y = x * 1
        x.data[0] = 7
        return y

    assert "input 0 was changed" in gradcheck(careless, values(7.5, 2), raise_exception=False).message


def test_different_second_run_is_found() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(GradcheckError, match="a second run gives other bits"):
        gradcheck(lambda x: F.dropout(x, 0.5, generator=rng), leaf(20))


def test_rule_that_is_wrong_only_when_recorded_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def rule(ctx: Any, gy: Any) -> Any:
        return (gy * ctx.y if isinstance(gy, np.ndarray) else gy * ctx.y * 1.001,)

    monkeypatch.setattr(OPS["exp"], "backward", staticmethod(rule))
    assert gradcheck(F.exp, leaf(3))
    with pytest.raises(GradcheckError, match="gradgradcheck: 'exp'"):
        gradgradcheck(F.exp, leaf(3))


def test_rule_that_hides_its_dependence_is_found_by_gradgradcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    def rule(ctx: Any, gy: Any) -> Any:
        y = ctx.y if isinstance(ctx.y, np.ndarray) else ctx.y.detach()
        return (gy * (1 - y * y),)

    monkeypatch.setattr(OPS["tanh"], "backward", staticmethod(rule))
    assert gradcheck(F.tanh, leaf(3))
    assert not gradgradcheck(F.tanh, leaf(3), raise_exception=False)


def test_several_outputs_and_constants() -> None:
    constant = Tensor(np.arange(3.0))
    labels = Tensor(np.array([1, 0, 2]))
    result = gradcheck(lambda x, c, i: (x * c, F.exp(x), x[i]), [leaf(3), constant, labels])
    assert result.checked == 3
    assert result
    assert gradgradcheck(lambda x: F.max(x, 0), leaf(4, 2))


def test_any_memory_order_can_be_checked() -> None:
    data = np.random.default_rng(0).standard_normal((4, 3, 2))
    for view in (data.T, data[::-1], data[:, ::2], np.asfortranarray(data), np.broadcast_to(data[:1], (2, 3, 2))):
        assert gradcheck(F.tanh, Tensor(view, requires_grad=True)).checked == view.size


def test_equal_seeds_give_equal_results() -> None:
    x = leaf(4)
    assert gradcheck(F.gelu, x, seed=3) == gradcheck(F.gelu, x, seed=3)
    assert gradcheck(F.gelu, x, seed=3) != gradcheck(F.gelu, x, seed=4)


@pytest.mark.parametrize("check_function", [gradcheck, gradgradcheck])
def test_refused_arguments(check_function: Any) -> None:
    x = leaf(2)
    name = check_function.__name__
    with pytest.raises(TypeError, match=f"{name}: input 0 has type float32"):
        check_function(F.exp, x.to(np.float32))
    with pytest.raises(TypeError, match=f"{name}: input 1 is a float"):
        check_function(F.mul, [x, 2.0])
    with pytest.raises(TypeError, match=f"{name}: the function returns float32"):
        check_function(lambda x: x.to(np.float32), x)
    with pytest.raises(ValueError, match=f"{name}: no input requires a gradient"):
        check_function(F.exp, x.detach())
    with pytest.raises(ValueError, match=f"{name}: mode is 'fast'; legal are"):
        check_function(F.exp, x, mode="fast")
    with pytest.raises(ValueError, match=f"{name}: eps is 0"):
        check_function(F.exp, x, eps=0)
    with pytest.raises(ValueError, match=f"{name}: tolerance is -1"):
        check_function(F.exp, x, tolerance=-1)
    with pytest.raises(ValueError, match="returns no floating-point Tensor"):
        check_function(F.argmax, x)
    with pytest.raises(ValueError, match=r"no output depends|by central difference"):
        check_function(lambda x: x.detach() * 1, x)


def test_leaves_gradients_and_tensors_alone() -> None:
    x = leaf(3)
    before = x.data.copy()
    gradcheck(F.exp, x)
    gradgradcheck(F.exp, x)
    assert x.grad is None
    assert np.array_equal(x.data, before)
    assert grad(apply("exp", x).sum(), x)[0] is not None
