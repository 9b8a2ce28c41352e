"""Floating-point operations of profiled calls, against formulas worked out by hand."""

from __future__ import annotations

from test_profiler import tensor

from minitorch_unet import functional as F
from minitorch_unet.profiler import Call, profile


def flops(calls: list[Call], phase: str) -> dict[str, int | None]:
    return {call.name: call.flops for call in calls if call.phase == phase}


def test_operations_of_convolutions_by_hand() -> None:
    x, w, up = tensor(2, 4, 9, 8), tensor(6, 2, 3, 2), tensor(6, 5, 2, 2)
    with profile() as p:
        y = F.conv2d(x, w, tensor(6), stride=2, padding=1, groups=2)
        assert y.shape == (2, 6, 5, 5)
        F.conv_transpose2d(y, up, stride=2).sum().backward()
    first, second = 2 * (2 * 6 * 5 * 5) * (2 * 3 * 2), 2 * (2 * 6 * 5 * 5) * (5 * 2 * 2)
    assert flops(p.calls, "forward") == {"conv2d": first, "conv2d_input_grad": second, "sum": 2 * 5 * 10 * 10 - 1}
    assert flops(p.calls, "backward") == {"conv2d": 2 * first, "conv2d_input_grad": 2 * second, "sum": 0}


def test_only_gradients_that_are_wanted_count() -> None:
    x, w = tensor(1, 2, 5, 5), tensor(3, 2, 3, 3)
    x.requires_grad = False
    with profile() as p:
        F.conv2d(x, w).sum().backward()
        F.conv2d_relu((x, tensor(1, 4, 5, 5)), tensor(3, 6, 3, 3)).sum().backward()
        w.requires_grad, x.requires_grad = False, True
        F.conv2d(x, w).sum().backward()
    products = 2 * 3 * 3 * 3 * 9  # of one of the 3 x 3 x 3 results with one of the channels
    assert [c.flops for c in p.calls if c.phase == "backward" and c.name.startswith("conv")] == [
        2 * products, (6 + 4) * products, 2 * products,
    ]  # fmt: skip


def test_a_block_counts_as_its_two_convolutions() -> None:
    x, w1, w2 = tensor(1, 2, 8, 8), tensor(3, 2, 3, 3), tensor(4, 3, 3, 3)
    with profile() as whole:
        F.double_conv2d_relu(x, w1, None, w2, None).sum().backward()
    with profile() as parts:
        F.relu(F.conv2d(F.relu(F.conv2d(x, w1)), w2)).sum().backward()
    for phase in ("forward", "backward"):
        convolutions = [c.flops for c in parts.calls if c.phase == phase and c.name == "conv2d"]
        assert flops(whole.calls, phase)["double_conv2d_relu"] == sum(convolutions)
    assert sum(c.flops for c in parts.calls if c.name == "conv2d") == 3 * 2 * (36 * 3 * 2 * 9 + 16 * 4 * 3 * 9)


def test_operations_of_the_rest_by_hand() -> None:
    a, b = tensor(2, 3), tensor(3, 4)
    with profile() as p:
        y = F.relu(a @ b) * 2.0
        y.reshape(1, 1, 2, 4)
        F.max_pool2d(tensor(1, 1, 4, 6), 2)
        y.sum(0)
        y.sum().backward()
    forward = flops(p.calls, "forward")
    assert [forward[name] for name in ("matmul", "relu", "mul", "reshape", "max_pool2d")] == [48, 8, 8, 0, 6 * 3]
    assert [c.flops for c in p.calls if c.name == "sum" and c.phase == "forward"] == [4, 7]
    assert flops(p.calls, "backward") == {"sum": 0, "mul": 8, "relu": 8, "matmul": 96}
    with profile() as p:
        F.softmax(a, 1)
    assert p.calls[0].flops is None and " - " in p.table()
