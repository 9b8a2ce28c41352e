"""Pictures of autograd graphs, read back from their SVG; expressions; the command `graph`."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet import nn
from minitorch_unet.cli import main
from minitorch_unet.expressions import evaluate, parse_shape
from minitorch_unet.layered import layered
from minitorch_unet.tensor.walk import reverse_topological

SVG = "{http://www.w3.org/2000/svg}"


def read(text: str) -> tuple[list[dict], list[list[tuple[float, float]]]]:
    """Boxes (kind, texts, corners) and the points along each edge's curves."""
    root = ET.fromstring(text)
    boxes = []
    for group in root.iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        x, y, width, height = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
        texts = [t.text for t in group.iter(f"{SVG}text")]
        boxes.append({"kind": rect.get("class"), "texts": texts, "x0": x, "y0": y, "x1": x + width, "y1": y + height})
    edges = []
    for path in (path for path in root.iter(f"{SVG}path") if "edge" in path.get("class")):
        start, *steps = re.findall(r"[MCV][^MCV]*", path.get("d"))
        points = [tuple(map(float, start[1:].split()))]
        for step in steps:
            numbers = [float(n) for n in step[1:].split()]
            ends = [*points[-1], *numbers] if step[0] == "C" else [*points[-1], *[points[-1][0], numbers[0]] * 3]
            p, t = np.reshape(ends, (4, 2)), np.linspace(0, 1, 9)[1:, None]
            curve = (1 - t) ** 3 * p[0] + 3 * t * (1 - t) ** 2 * p[1] + 3 * t**2 * (1 - t) * p[2] + t**3 * p[3]
            points += [(float(x), float(y)) for x, y in curve]
        edges.append(points)
    return boxes, edges


def check_drawing(graph: mt.autograd_graph.AutogradGraph) -> None:
    """Each box once and apart from the others, edges from box to box, downward, round all others."""
    boxes, edges = read(graph.svg())
    assert [box["texts"] for box in boxes] == [[box.title, *box.lines] for box in graph.boxes]
    for a, b in itertools.combinations(boxes, 2):
        assert a["x1"] < b["x0"] or b["x1"] < a["x0"] or a["y1"] < b["y0"] or b["y1"] < a["y0"], (a, b)
    assert len(edges) == len(graph.edges)
    for edge, points in zip(graph.edges, edges, strict=True):
        source, target = boxes[edge.source], boxes[edge.target]
        assert points[0][1] == pytest.approx(source["y1"], abs=0.02) and source["x0"] < points[0][0] < source["x1"]
        assert points[-1][1] == pytest.approx(target["y0"], abs=0.02) and target["x0"] < points[-1][0] < target["x1"]
        assert all(a[1] <= b[1] + 1e-6 for a, b in itertools.pairwise(points))
        for x, y in points:
            assert not any(b["x0"] < x < b["x1"] and b["y0"] + 0.1 < y < b["y1"] - 0.1 for b in boxes)


EXPRESSIONS = [
    ("relu(a @ b + c).sum()", {}, ["matmul", "add", "relu", "sum"]),
    ("a + a", {}, ["add"]),
    ("a[0, 1:] * 2 - -b[:2, 0]", {}, ["getitem", "getitem", "neg", "mul", "sub"]),
    ("mean(conv2d(x, w, padding=1), dim=(2, 3))", {"x": (1, 2, 8, 8), "w": (3, 2, 3, 3)}, ["conv2d", "sum", "mul"]),
    ("where(a > 1, a, b) ** 2", {}, ["where", "pow_scalar"]),
    ("max(a, 1)[0].sum()", {}, ["take_along_dim", "reshape", "sum"]),
    ("grad((a * a * b).sum(), a).sum()", {}, None),
    ("grad(grad((a ** 3).sum(), a).sum(), a).sum()", {}, None),
    ("scale * 3", {"scale": ()}, ["mul"]),
]


@pytest.mark.parametrize(("text", "shapes", "operations"), EXPRESSIONS, ids=[e[0] for e in EXPRESSIONS])
def test_expressions_are_drawn(text, shapes, operations) -> None:
    value, tensors = evaluate(text, shapes)
    graph = mt.draw_graph(value, names=tensors, title=text)
    check_drawing(graph)
    drawn = Counter(box.title for box in graph.boxes if box.kind == "forward")
    assert drawn == Counter(node.op.name for node in reverse_topological([value.node]))
    if operations is not None:
        assert drawn == Counter(operations)
    assert {box.title for box in graph.boxes if box.kind == "leaf"} == set(tensors)


def test_an_expression_has_the_value_that_python_finds() -> None:
    value, t = evaluate("sigmoid(a @ b - c / 2).mean() + a[0, -1] ** 2")
    a, b, c = (t[name].detach().numpy() for name in "abc")
    expected = (1 / (1 + np.exp(-(a @ b - c / 2)))).mean() + a[0, -1] ** 2
    assert value.item() == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "a.__class__", "a.data", "a.backward()", "a.sum.__func__", "__import__('os')", "().__class__.__bases__",
        "open('x')", "eval('1')", "lambda: a", "[x for x in a]", "a if b else c", "a; b", "import os", "a = 1",
        "(b := a)", "relu(*a)", "relu(**a)", "f'{a}'", "a.sum().data", "manual_seed(1)", "relu", "'x' * 9", "(1,) * 9",
        "a and b", "a // b", "a < b < c", "{}", "a['x']", "a[b]", "9 ** 9 ** 9 * a", "3", "wide * 2", "", "relu()",
        "relu(a, 'x', 3, 4)", "a @ ", "a.T", "a @ b[0, 0]", "grad(a, 2)", "grad(a, b)", "~a", "print(a)", "_ * a", "a",
        "a" + "+a" * 1200, "cross_entropy(a, b)", "log(a, b=a)", "a.sum(relu(b))", "a[0].detach()",
        "(" * 900 + "a" + ")" * 900, "a.reshape(4, 2)", "b'x'", "1j * a", "max(a, 1).values",
    ],
)  # fmt: skip
def test_everything_else_is_refused_in_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", "--tree", "--", text]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("minitorch-unet graph: ") and err.count("\n") == 1


@pytest.mark.parametrize("text", ["a", "=2", "a=2x", "a=0x3", "a=2*3", "a b=3", "a=99999x99999"])
def test_shapes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no tensor|values"):
        parse_shape(text)
    assert parse_shape("a = 2x3") == ("a", (2, 3)) and parse_shape("s=") == ("s", ())


def test_what_is_kept_and_where_gradients_go() -> None:
    a, b = (mt.Tensor(np.ones((4, 4), np.float32), requires_grad=True) for _ in "ab")
    hidden = F.relu(a @ b)
    graph = mt.draw_graph((hidden * hidden).sum(), names={"a": a, "b": b})
    assert graph.kept == 64  # relu's result, kept by it and twice by mul
    by_name = {box.title: box for box in graph.boxes}
    assert by_name["matmul"].lines == ["4×4", "keeps a: 64 B", "keeps b: 64 B"]
    assert by_name["sum"].lines == ["scalar"] and by_name["mul"].lines[1:] == ["keeps relu's result: 64 B"] * 2
    assert by_name["relu"].lines[1:] == ["keeps its result: 64 B"]
    named = [(graph.boxes[e.source].title, graph.boxes[e.target].title, e.shape) for e in graph.edges]
    assert named == [
        ("a", "matmul", (4, 4)), ("b", "matmul", (4, 4)), ("matmul", "relu", (4, 4)),
        ("relu", "mul", (4, 4)), ("relu", "mul", (4, 4)), ("mul", "sum", (4, 4)),
    ]  # fmt: skip
    assert "2 matmul  operation  0 (4×4), 1 (4×4)  4×4, keeps a: 64 B, keeps b: 64 B" in graph.text()


def test_a_broadcast_edge_carries_the_input_s_shape() -> None:
    value, tensors = evaluate("a * s", {"s": ()})
    graph = mt.draw_graph(value, names=tensors)
    assert {(graph.boxes[e.source].title, e.shape) for e in graph.edges} == {("a", (3, 3)), ("s", ())}


def test_a_graph_that_was_walked_says_so() -> None:
    value, _ = evaluate("(a * b).sum()")
    value.backward()
    graph = mt.draw_graph(value)
    assert graph.kept == 0 and graph.boxes[2].lines == ["3×3", "what it kept is gone"]


def test_tensors_without_history_are_refused() -> None:
    with pytest.raises(ValueError, match="no history"):
        mt.draw_graph(mt.Tensor([1.0]))
    with pytest.raises(TypeError, match="found ndarray"):
        mt.draw_graph(np.ones(3))
    with pytest.raises(ValueError, match="input_size"):
        mt.draw_graph(mt.UNet(base=1, depth=1))


# -------------------------------------------------------------------------------------------------- networks


def test_the_unet_by_modules_and_by_operations() -> None:
    network = mt.UNet(base=2)
    for levels in (None, 1, 2):
        graph = mt.draw_graph(network, (1, 1, 188, 188), levels=levels)
        check_drawing(graph)
        assert sum(len(box.nodes) for box in graph.boxes) == 9 + 4 + 4 + 4 + 1  # blocks, pools, up, crops, head
        assert graph._repr_svg_() == graph.svg() and len(graph.svg()) < 65_000
    shown = [box.title for box in mt.draw_graph(network, (1, 1, 188, 188)).boxes if box.kind == "module"]
    assert shown == [
        "down.0", "down.1", "down.2", "down.3", "down.4",
        "up.0", "merge.0", "up.1", "merge.1", "up.2", "merge.2", "up.3", "merge.3", "head",
    ]  # fmt: skip
    every = mt.draw_graph(network, (1, 1, 188, 188), levels=None)
    parameters = {box.title for box in every.boxes if box.kind == "parameter"}
    assert parameters == {name for name, _ in network.named_parameters()}
    assert [box.title for box in every.boxes if box.kind == "constant"] == ["input"]


class TwiceThrough(nn.Module):
    """A module used twice, and one that is left and entered again."""

    def __init__(self) -> None:
        self.shared = nn.Conv2d(1, 1, 1)
        self.around = Around()

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        return self.around(self.shared(F.relu(self.shared(x))))


class Around(nn.Module):
    def __init__(self) -> None:
        self.inner = nn.ReLU()

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        y = x * 2.0
        return y + self.inner(y)


def test_modules_used_twice_and_circles_between_modules() -> None:
    network = TwiceThrough()
    graph = mt.draw_graph(network, (1, 1, 4, 4))
    check_drawing(graph)
    assert [box.title for box in graph.boxes if box.kind == "module"] == ["shared", "shared", "around"]
    assert {box.title for box in graph.boxes if box.kind == "parameter"} == {"shared.weight", "shared.bias"}
    deeper = mt.draw_graph(network, (1, 1, 4, 4), levels=2)  # around -> around.inner -> around
    check_drawing(deeper)
    assert sum(len(box.nodes) for box in deeper.boxes) == 6


def test_random_graphs_are_laid_out_without_overlap() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = int(rng.integers(1, 25))
        edges = [(int(a), int(b)) for a, b in rng.integers(0, n, (2 * n, 2)) if a < b]
        sizes = [(float(w), float(h)) for w, h in rng.uniform(10, 120, (n, 2))]
        place = layered(sizes, edges, [(30, 12)] * len(edges))
        rects = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(place.corners, sizes, strict=True)]
        rects += [(x - 15, y - 6, x + 15, y + 6) for x, y in place.labels]
        assert all(x0 >= 0 and y0 >= 0 and x1 <= place.width and y1 <= place.height for x0, y0, x1, y1 in rects)
        for a, b in itertools.combinations(rects, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    with pytest.raises(ValueError, match="circle"):
        layered([(1, 1)] * 3, [(0, 1), (1, 2), (2, 1)], [(0, 0)] * 3)


# ---------------------------------------------------------------------------------------------- command line


def test_the_command_draws_an_expression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "g.svg"
    assert main(["graph", "relu(x @ w + b).sum()", "--tensor", "x=5x2", "--tensor", "w=2x3", "--tensor", "b=3",
                 "-o", str(path)]) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "4 operations" in out and f"look at {path}" in out
    boxes, _ = read(path.read_text())
    assert [box["texts"][:2] for box in boxes if box["kind"] == "forward"] == [
        ["matmul", "5×3"], ["add", "5×3"], ["relu", "5×3"], ["sum", "scalar"],
    ]  # fmt: skip


def test_the_picture_in_the_docs_is_what_the_command_draws() -> None:
    text = "relu(a @ b + c).sum()"
    value, tensors = evaluate(text)
    shown = Path(__file__).parents[1] / "docs" / "images" / "graph-expression.svg"
    assert mt.draw_graph(value, names=tensors, title=text).svg() == shown.read_text(encoding="utf-8")


def test_the_command_s_refusals(capsys: pytest.CaptureFixture[str]) -> None:
    for args, said in (
        (["runs/nothing"], "no file runs/nothing exists"), (["a", "--tensor", "q=3"], "no tensor 'q'"),
        (["a * a", "--profile"], "for networks"), (["--size", "189"], "nearest legal sizes: 188"),
        ([" + ".join("a" * 200) + " + q7"], "q7"),  # longer than a file's name may be
        (["--tensor", "a=3"], "for expressions"), (["relu(a)", "--tensor", "b"], "NAME=ROWSxCOLUMNS"),
    ):  # fmt: skip
        assert main(["graph", *args]) == 2
        assert said in capsys.readouterr().err


def test_the_command_on_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from minitorch_unet.checkpoint import save_checkpoint

    network = mt.UNet(base=2, depth=2)
    path = tmp_path / "n.safetensors"
    save_checkpoint(path, {f"model.{k}": v for k, v in network.state_dict().items()}, {"network": network.config})
    assert main(["graph", str(path), "-o", str(tmp_path / "n.svg")]) == 0
    assert f"parameters: {network.parameter_count():,}" in capsys.readouterr().out
    boxes, _ = read((tmp_path / "n.svg").read_text())
    assert sum(box["kind"] == "module" for box in boxes) == 3 + 2 + 2 + 1
    assert main(["graph", str(path), "--profile", "-o", str(tmp_path / "f.svg"), "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"double_conv2d_relu +backward +5 ", out) and re.search(r"SGD +update +26 ", out)
    ET.fromstring((tmp_path / "f.svg").read_text())
