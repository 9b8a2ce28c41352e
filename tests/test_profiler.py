"""What a profile records, against what was really called; and that recording changes nothing."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections import Counter

import numpy as np
import on_device
import pytest

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet import nn
from minitorch_unet.ops import OPS
from minitorch_unet.profiler import Call, profile
from minitorch_unet.profiler.call import set_self_times
from minitorch_unet.tensor import state


def tensor(*shape: int, seed: int = 0, device: str = "cpu") -> mt.Tensor:
    values = np.random.default_rng(seed).uniform(0.5, 1.5, shape).astype(np.float32)
    return mt.Tensor(values, requires_grad=True, device=device)


class Small(nn.Module):
    def __init__(self) -> None:
        self.first = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
        self.blocks = [nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)]

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return x.sum()


def test_a_profile_holds_the_rules_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted a second time by wrapping every rule of every operation."""
    ran: Counter[tuple[str, str]] = Counter()

    def counting(op, phase):
        rule = getattr(op, phase)

        def counted(*args, **kwargs):
            ran[op.name, phase] += 1
            return rule(*args, **kwargs)

        return staticmethod(counted)

    network, x = mt.UNet(base=2, depth=2), tensor(1, 1, 44, 44)
    label = np.zeros((1, 4, 4), int)
    with monkeypatch.context() as patched:
        for op in OPS.values():
            for phase in ("forward", "backward"):
                patched.setattr(op, phase, counting(op, phase))
        loss = F.cross_entropy(network(x), label)
        outside = ran.copy()  # a rule that calls another one itself is not an operation of the graph
        with profile() as p:
            F.cross_entropy(network(x), label)
        forward = ran - outside
        before = ran.copy()
        loss.backward()
        backward = Counter({key: n for key, n in (ran - before).items() if key[1] == "backward"})
    assert Counter((c.name, c.phase) for c in p.calls) == forward
    network.zero_grad()  # else gradients are added, by an operation each
    x.grad = None
    with profile() as p:
        F.cross_entropy(network(x), label).backward()
    assert Counter((c.name, c.phase) for c in p.calls) == forward + backward


def test_modules_are_named_in_both_directions() -> None:
    network = Small()
    with profile() as p:
        network(tensor(1, 1, 6, 6)).backward()
    assert [(c.name, c.module) for c in p.calls if c.phase == "forward"] == [
        ("conv2d", "first.0"), ("relu", "first.1"), ("conv2d", "blocks.0"), ("conv2d", "blocks.1"), ("sum", "Small"),
    ]  # fmt: skip
    assert [(c.name, c.module) for c in p.calls if c.phase == "backward"] == [
        ("sum", "Small"), ("conv2d", "blocks.1"), ("conv2d", "blocks.0"), ("relu", "first.1"), ("conv2d", "first.0"),
    ]  # fmt: skip


def test_shapes_and_bytes() -> None:
    a, b = tensor(2, 3), tensor(3, 4)
    with profile() as p:
        F.softplus(a @ b).sum().backward()
    product, softplus, total = p.calls[:3]
    assert (product.inputs, product.outputs, product.bytes, product.kept) == ([(2, 3), (3, 4)], [(2, 4)], 32, 0)
    assert softplus.kept == 8  # a mask of 2 x 4 bytes; its input is the product's result
    assert total.outputs == [()]
    last = p.calls[-1]
    assert (last.name, last.phase, last.inputs, last.outputs) == ("matmul", "backward", [(2, 4)], [(2, 3), (3, 4)])
    assert last.bytes == 4 * (6 + 12)


def trained(profiled: bool, device: str) -> list[bytes]:
    F.manual_seed(0)
    network = mt.UNet(base=2, depth=1, dropout=0.5).to(device)
    optimizer = mt.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    x = mt.Tensor(np.random.default_rng(0).standard_normal((1, 1, 20, 20), np.float32), device=device)
    label = on_device.to_device(np.arange(16).reshape(1, 4, 4) % 2, device)
    for _ in range(2):
        if profiled:
            with profile(profile_memory=True) as p:
                optimizer.backward_and_step(F.cross_entropy(network(x), label))
            assert {call.phase for call in p.calls} == {"forward", "backward", "update"}
            assert all(call.peak is not None and call.live is not None for call in p.calls)
        else:
            optimizer.backward_and_step(F.cross_entropy(network(x), label))
    return [values.tobytes() for values in network.state_dict().values()]


def test_recording_changes_no_bit(device: str) -> None:
    assert trained(True, device) == trained(False, device)


def test_nothing_is_recorded_outside_a_profile() -> None:
    with profile() as p:
        loss = (tensor(3) * 2.0).sum()
    assert state.profiler is None and not state.naming
    loss.backward()
    assert [c.name for c in p.calls] == ["mul", "sum"]


def test_profiles_nest_and_outlive_exceptions() -> None:
    a = tensor(3)
    with profile() as outer:
        a.sum()
        with profile() as inner:
            F.exp(a)
        with pytest.raises(ValueError, match="broadcast"):
            a + tensor(4)
        with pytest.raises(KeyError), profile() as broken:
            F.log(a)
            raise KeyError
        a * a
    assert [c.name for c in inner.calls] == ["exp"]
    assert [c.name for c in broken.calls] == ["log"] and broken.total_time > 0
    assert [c.name for c in outer.calls] == ["sum", "exp", "log", "mul"]
    assert state.profiler is None and not state.naming


def test_a_gradient_that_is_recorded_counts_its_time_once() -> None:
    a = tensor(4)
    with profile() as p:
        (first,) = mt.grad((a * a * a).sum(), a, create_graph=True)
        first.sum().backward()
    names = [(c.name, c.phase) for c in p.calls]
    assert names.count(("mul", "forward")) > 2  # those of the gradients as well
    assert sum(c.self_time for c in p.calls) <= p.total_time
    assert all(c.self_time >= 0 for c in p.calls)


def test_self_time_by_hand() -> None:
    def call(start: float, end: float) -> Call:
        return Call("", "", "", [], [], start, end, None, 0, 0)

    calls = [call(1, 2), call(5, 7), call(4, 8), call(8, 9), call(3, 10)]  # in the order of their ends
    set_self_times(calls)
    assert [c.self_time for c in calls] == [1, 2, 2, 1, 2]


def test_peak_is_what_the_array_takes() -> None:
    a = tensor(1 << 19)  # 2 MiB: one in the heap when it is made by the engine, one of NumPy's
    with profile(profile_memory=True) as p:
        b = F.exp(a)
        del b
        F.exp(tensor(4))
    first, second = p.calls[0], p.calls[-1]
    assert 2 << 20 <= first.live <= first.peak < (2 << 20) + 4096 + 50_000
    assert second.peak < 100_000


def test_tables_add_up() -> None:
    with profile() as p:
        Small()(tensor(1, 1, 6, 6)).backward()
    for by in ("op", "module", "call"):
        rows = p.rows(by)
        assert sum(row["calls"] for row in rows) == len(p.calls) == 10
        assert sum(row["flops"] or 0 for row in rows) == p.flops
        assert [row["time"] for row in rows] == sorted((row["time"] for row in rows), reverse=True)
        assert len(p.table(by, limit=2).splitlines()) == 2 + 2 + 3
    line = next(line for line in p.table().splitlines() if line.startswith("conv2d ") and "forward" in line)
    assert line.split()[:3] == ["conv2d", "forward", "3"]
    with pytest.raises(ValueError, match="'op', 'module' and 'call'"):
        p.table("layer")


def test_json_and_html() -> None:
    with profile() as p:
        Small()(tensor(1, 1, 6, 6)).backward()
    found = json.loads(p.to_json())
    assert [call["name"] for call in found["calls"]] == [call.name for call in p.calls]
    assert all(0 <= call["start"] <= call["end"] <= found["total_time"] for call in found["calls"])
    assert p._repr_html_().startswith("<svg") and p._repr_html_().endswith("</table>")


def test_the_flame_picture_shows_every_call_below_its_modules() -> None:
    with profile() as p:
        Small()(tensor(1, 1, 6, 6)).backward()
    for i, call in enumerate(p.calls):  # each as long as the next, so that none is too narrow to be drawn
        call.start, call.end = p.start + i, p.start + i + 1
    p.end = p.start + len(p.calls)
    root = ET.fromstring(p.flame_svg())
    boxes = []
    for group in root.iter("{http://www.w3.org/2000/svg}g"):
        title, rect = group[0].text, group[1]
        boxes.append((title.split(":")[0], *(float(rect.get(key)) for key in ("x", "y", "width"))))
    names = Counter(name for name, *_ in boxes)
    assert names["conv2d"] == 6 and names["relu"] == names["sum"] == 2
    assert names["forward"] == names["backward"] == 1 and names["first"] == names["first.0"] == 2
    assert "blocks" not in names  # a list is no module
    for name, x, y, width in boxes:
        assert x >= 0 and x + width <= 1021
        above = [b for b in boxes if b[2] == y - 20 and b[1] <= x + 0.01 and x + width <= b[1] + b[3] + 0.01]
        assert len(above) == (name not in ("forward", "backward"))
    for y in {b[2] for b in boxes}:
        row = sorted(b[1:] for b in boxes if b[2] == y)
        assert all(a[0] + a[2] <= b[0] + 0.01 for a, b in zip(row, row[1:], strict=False))


def test_an_empty_profile_can_be_shown() -> None:
    with profile() as p:
        pass
    assert "total" in p.table() and p.flame_svg().startswith("<svg")


# --------------------------------------------------------------------------------------- operations by formula


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
