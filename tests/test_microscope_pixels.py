"""The microscope's pixels, windows and files: fields by arithmetic and gradient, sums by hand, hostile names."""

import math
from pathlib import Path

import microscope_pages as pages
import numpy as np
import pytest
from microscope_pages import recorded, unpacked
from small_runs import one_thread as one_thread

from minitorch_unet import Tensor, UNet, grad
from minitorch_unet.cli import main
from minitorch_unet.data import IGNORE, write_image
from minitorch_unet.errors import DataError
from minitorch_unet.microscope import drawn_cells, examine
from minitorch_unet.microscope.building import as_data, worked_example
from minitorch_unet.microscope.pixels import axis_fields, receptive_fields, square_holding
from minitorch_unet.microscope.record import prepared_pixels, record
from minitorch_unet.microscope.window import cut, place
from minitorch_unet.unet import UNetSizes

VARIANT = pytest.mark.parametrize("variant", pages.VARIANTS)


# --------------------------------------------------------------------------------------------- pixels


def test_receptive_fields_of_the_papers_network() -> None:
    fields = axis_fields(UNet(base=1, depth=4), 572)
    sizes = [last - first + 1 for first, last in fields]
    assert sizes == [188 if i % 16 < 4 else 204 for i in range(388)]


@pytest.mark.parametrize("variant", ["paper", "depth 3", "same, colour", "nearest", "batch"])
def test_measured_and_computed_fields_agree(variant: str) -> None:
    """Measured on a part of the image, by direct convolutions; here on all of it, in float64."""
    network = pages.network_of(variant, base=8)
    exact = UNet(**network.config, dtype=np.float64)
    exact.load_state_dict(network.state_dict())
    image = pages.image_of(network, 108 if variant == "depth 3" else 60)
    exact.eval()
    rows, columns = (axis_fields(network, n) for n in image.shape[1:])
    out = len(rows), len(columns)
    chosen = [(0, 0), (out[0] // 2 + 1, out[1] // 2), (out[0] - 1, out[1] - 3), (5, 6)]
    for (row, column), found in zip(chosen, receptive_fields(network, image, chosen), strict=True):
        assert found["box"] == [rows[row][0], columns[column][0], rows[row][1], columns[column][1]]
        source = Tensor(image[None].astype(np.float64), requires_grad=True)
        (gradient,) = grad(exact(source)[0, found["class"], row, column], source)
        assert gradient is not None
        size = np.abs(gradient.data[0]).max(axis=0)
        assert found["largest"] == pytest.approx(size.max(), rel=1e-3)
        lines = np.flatnonzero(size.any(axis=1))
        assert (lines[0], lines[-1]) == rows[row]


def test_a_dead_network_sees_nothing() -> None:
    network = pages.network_of("depth 1")
    network.merge[-1].conv2.bias.data[...] = -1e6
    (found,) = receptive_fields(network, pages.image_of(network, 20), [(1, 1)])
    assert found["box"] is None and found["sides"] is None
    assert all(p.requires_grad for p in network.parameters())


def test_square_holding() -> None:
    size = np.zeros((9, 9))
    size[4, 4], size[3, 5], size[8, 8] = 4, 2, 2
    assert [square_holding(size, (4, 4), share) for share in (0.5, 0.6, 0.75, 0.76)] == [1, 3, 3, 9]


@VARIANT
def test_windows_add_up_to_the_engines_results(variant: str) -> None:
    _, _, _, seen = recorded(variant)
    for r in seen.stages:
        if r.stage.kind not in ("conv", "scores"):
            continue
        for window in seen.windows[r.stage.name]:
            x, w = (unpacked(window[key]).astype(np.float64) for key in "xw")
            total = (x * w).sum() + window["rest"] + window["bias"]
            assert len(window["channels"]) == len(x) and len(x) + window["rest_count"] == r.stage.conv.weight.shape[1]
            norm = window["norm"]
            if norm is not None and norm["kind"] != "BatchNorm2d":
                continue  # its statistics are those of whole maps
            if norm is not None:
                total = (total - norm["mean"]) / math.sqrt(norm["var"] + norm["eps"]) * norm["weight"] + norm["bias"]
            expected = max(0.0, total) if window["relu"] else total
            assert window["result"] == pytest.approx(expected, rel=1e-3, abs=1e-4), r.stage.name


def test_windows_lie_where_the_pixel_is_computed_from() -> None:
    """The last window's result is what the scores' window reads, channel for channel."""
    _, _, _, seen = recorded("paper")
    for last, scores in zip(seen.windows["merge 0 conv 2"], seen.windows["scores"], strict=True):
        read = dict(zip(scores["channels"], unpacked(scores["x"]).ravel(), strict=True))
        assert last["place"] == scores["place"]
        assert read[f"merge 0 conv 2 channel {last['filter']}"] == pytest.approx(last["result"])


def test_prepared_pixels() -> None:
    assert prepared_pixels((60, 30), None)[0] == (30, 15) and len(prepared_pixels((60, 30), None)) == 9
    assert prepared_pixels((60, 30), (1, 2))[0] == (1, 2) and len(prepared_pixels((60, 30), (1, 2))) == 10
    assert prepared_pixels((1, 2), None) == [(0, 1), (0, 0)]


def test_the_example_on_paper() -> None:
    found = worked_example()
    assert found["result"] == [[37, 20, 17, 0], [19, 34, 13, 28], [15, 18, 35, 38], [-10, 11, -4, 17]]
    assert found["pooled"] == [[37, 28], [18, 38]]


# --------------------------------------------------------------------------------------------- window and files


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("depth", [1, 3])
def test_windows_are_legal_and_hold_the_pixel(padding: str, depth: int) -> None:
    sizes = UNetSizes(depth, padding)
    rng = np.random.default_rng(0)
    for _ in range(200):
        h, w = map(int, rng.integers(1, 260, 2))
        pixel = (int(rng.integers(h)), int(rng.integers(w)))
        found = place(sizes, (h, w), 150, pixel)
        for n, m, start, out, p in zip(found.shape, (h, w), found.start, found.out, pixel, strict=True):
            assert sizes.is_legal(n) and out == sizes.output_size(n) and n <= max(150, m)
            assert 0 <= p - start - found.halo < out
            larger = [k for k in range(n + 1, min(m, 150) + 1) if sizes.is_legal(k)]
            assert not larger
        middle = place(sizes, (h, w), 150)
        assert middle.start == tuple((m - n) // 2 for m, n in zip((h, w), middle.shape, strict=True))


def test_the_papers_image_is_shown_whole() -> None:
    found = place(UNetSizes(4), (572, 572))
    assert (found.start, found.shape, found.halo, found.out) == ((0, 0), (572, 572), 92, (388, 388))
    assert found.describe() == "the whole image of 572 × 572 pixels"
    assert "mirrored" in place(UNetSizes(4), (100, 700)).describe()
    assert place(UNetSizes(4), (2000, 700)).shape == (572, 572)


def test_bad_windows() -> None:
    with pytest.raises(ValueError, match=r"rows 0\.\.9 and columns 0\.\.19"):
        place(UNetSizes(1), (10, 20), pixel=(10, 3))
    with pytest.raises(ValueError, match="smallest that this network takes is 188"):
        place(UNetSizes(4), (600, 600), 100)


def test_what_lies_outside_the_image_has_no_label() -> None:
    window = place(UNetSizes(1), (10, 12))
    image, label = cut(np.ones((1, 10, 12), np.float32), np.ones((10, 12), np.int64), window)
    assert label is not None and image.shape[1:] == window.shape and label.shape == window.out
    rows = np.arange(window.out[0]) + window.start[0] + window.halo
    np.testing.assert_array_equal(label[:, window.out[1] // 2] == 1, (rows >= 0) & (rows < 10))
    with pytest.raises(DataError, match="no pixel that counts"):
        cut(image, np.full((10, 12), IGNORE), window)


@VARIANT
def test_a_page_of_every_variant(variant: str, tmp_path: Path) -> None:
    network = pages.network_of(variant, base=2)
    checkpoint, image, label = pages.write_case(tmp_path, network, 57, 49)
    page = examine(checkpoint, image, None if variant == "one class" else label, pixel=(50, 3))
    data = pages.data_of(page)
    row, column = (a + data["window"]["halo"] for a in data["window"]["start"])
    assert data["pixels"][0]["pixel"] == [50 - row, 3 - column]
    assert page.count('data-stage="') == len(data["stages"])
    assert "$" not in page.split("<script")[0]
    assert data["loss"] == pytest.approx(float(page.split('id="loss">')[1].split("<")[0]), rel=1e-5)
    scores = unpacked(data["scores"])
    assert scores.shape == (network.classes, *data["window"]["out"])


def test_many_classes_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitorch_unet.microscope.building.SCORE_BYTES", 300)
    network, image, _, seen = recorded("depth 3")
    data = as_data(seen, place(network.sizes, (image.shape[1], image.shape[2])))
    stride = data["stride"]
    assert stride > 1
    np.testing.assert_array_equal(unpacked(data["scores"]), seen.scores[:, ::stride, ::stride])
    first = data["pixels"][0]
    assert first["pixel"] == [1, 2] and first["logits"] == seen.scores[:, 1, 2].tolist()


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    checkpoint, image, _ = pages.write_case(tmp_path, pages.network_of("depth 1"), 30, 30)
    hostile = image.rename(tmp_path / "<img src=x onerror=alert(1)>&'\"$name.png")
    page = examine(checkpoint, hostile)
    assert "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;&amp;&#x27;&quot;$name.png" in page


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, image, label = pages.write_case(tmp_path, pages.network_of("depth 1"), 40, 50)
    output = tmp_path / "page.html"
    command = ["inspect", str(checkpoint), str(image), "--label", str(label), "--pixel", "20,30", "-o", str(output)]
    assert main(command) == 0
    assert capsys.readouterr().out == f"open {output} in a browser\n"
    text = output.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>") and "http" not in text.split("<script")[0].replace("http-equiv", "")
    before = output.read_bytes()
    small = tmp_path / "small.png"
    write_image(small, np.zeros((9, 9), np.uint8))
    for change, message in (
        (["--pixel", "40,1"], "rows 0..39"),
        (["--size", "5"], "smallest that this network takes"),
        (["--label", str(small)], "9 x 9 pixels"),
        (["--label", str(tmp_path / "none.png")], "no such file"),
        (["-o", str(tmp_path / "page.txt")], "ends in .html"),
    ):
        assert main(command + change) == 2
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1
    assert output.read_bytes() == before
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", str(checkpoint), str(image), "--pixel", "3"])
    assert "ROW,COLUMN" in capsys.readouterr().err


@pytest.mark.parametrize("variant", ["depth 1", "batch", "one class"])
def test_without_an_image_cells_are_drawn(variant: str, tmp_path: Path) -> None:
    network = pages.network_of(variant, base=2)
    checkpoint, _, label = pages.write_case(tmp_path, network, 30, 30)
    page = examine(checkpoint, size=100)
    data = pages.data_of(page)
    assert "drawn cells, 100 × 100" in page and data["labelled"]
    with pytest.raises(ValueError, match="a label needs its image"):
        examine(checkpoint, label=label)
    with pytest.raises(ValueError, match="2 channels"):
        drawn_cells(UNet(2, base=1, depth=1), 50)


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    checkpoint, image, label = pages.write_case(tmp_path, pages.network_of("depth 1"), 30, 30)
    write_image(label, np.full((30, 30), 4, np.uint8))
    with pytest.raises(DataError, match=r"holds class 4, the network has classes 0\.\.1"):
        examine(checkpoint, image, label)


def test_scores_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network = pages.network_of("depth 1")
    network.head.bias.data[0] = np.inf
    with pytest.raises(FloatingPointError, match="not finite"):
        record(network, pages.image_of(network, 20))
