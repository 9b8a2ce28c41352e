"""Images that stay on the disk: windows of maps, and percentiles in bounded memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tile_cases import FILES, values

from minitorch_unet.data import normalise, read_image
from minitorch_unet.data.dataset import to_channels
from minitorch_unet.data.images import read_stack
from minitorch_unet.data.mapped import NormalisedPage, pages_of, percentiles
from minitorch_unet.errors import DataError


@pytest.mark.parametrize("name", FILES)
def test_windows_of_maps_are_those_of_the_image_read_whole(tmp_path, name) -> None:
    FILES[name](tmp_path / name)
    pages = pages_of(tmp_path / name)
    images = read_stack(tmp_path / name) if "stack" in name else [read_image(tmp_path / name)]
    assert len(pages) == len(images)
    for page, image in zip(pages, images, strict=True):
        assert page.shape == image.shape
        outside = ((90, 90), (90, 90), *(((0, 0),) * (image.ndim - 2)))
        mirrored = np.pad(image, outside, mode="reflect")
        for top, left, height, width in ((0, 0, 40, 33), (3, 5, 8, 9), (-7, 20, 30, 40), (-50, -40, 140, 120)):
            window = page.window(top, left, height, width)
            assert np.array_equal(window, mirrored[90 + top :, 90 + left :][:height, :width])
            assert window.dtype == image.dtype and window.flags.owndata
        whole = normalise(to_channels(image, 1, "x"))
        np.testing.assert_allclose(NormalisedPage(page, 1).window(0, 0, 40, 33), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["a.npy", "a.tif", "a.png"])
def test_damaged_and_missing_files_are_named(tmp_path, name) -> None:
    with pytest.raises(DataError, match=f"{name}: no such file"):
        pages_of(tmp_path / name)
    (tmp_path / name).write_bytes(b"II*\0" if name == "a.tif" else b"nothing")
    with pytest.raises(DataError, match=name):
        pages_of(tmp_path / name)


@pytest.mark.parametrize("name", ["grey.npy", "grey.tif"])
def test_files_that_end_too_soon_are_named(tmp_path, name) -> None:
    FILES[name](tmp_path / name)
    page = pages_of(tmp_path / name)[0]
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-300])
    with pytest.raises(DataError, match=rf"{name}: cannot be read, truncated or damaged"):
        page.window(39, 0, 1, 1)


# ------------------------------------------------------------------------------------------------ percentiles


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 3), st.sampled_from([np.float32, np.float64]), st.integers(0, 99), st.data())
def test_percentiles_of_strips_are_numpys(height, channels, dtype, seed, data) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 10.0 ** rng.integers(-20, 20), (channels, height, 7)).astype(dtype)
    if seed % 2:
        image = np.round(image / image.std() * 3).astype(dtype)  # many are equal
    cuts = sorted(data.draw(st.lists(st.integers(1, height), max_size=4)))
    found = percentiles(lambda: iter([s for s in np.split(image, cuts, 1) if s.size]), (1.0, 50.0, 99.0))
    ends = image.min((1, 2)), image.max((1, 2))
    expected = [*np.percentile(image.astype(np.float64), (1, 50, 99), axis=(1, 2)), *ends]
    np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype == np.float32 else 1e-12, atol=0)
    assert all(f.dtype == dtype for f in found)


def test_percentiles_of_a_large_image_in_many_strips(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("minitorch_unet.data.mapped.STRIP_PIXELS", 500)
    image = values("float64", 200, 90, 3)
    np.save(tmp_path / "a.npy", image)
    found = NormalisedPage(pages_of(tmp_path / "a.npy")[0], 1)
    np.testing.assert_allclose(found.window(0, 0, 200, 90), normalise(to_channels(image, 1, "")), rtol=0, atol=1e-6)
    image[150, 3, 1] = np.nan
    np.save(tmp_path / "a.npy", image)
    with pytest.raises(DataError, match=r"a\.npy: holds values that are not finite"):
        NormalisedPage(pages_of(tmp_path / "a.npy")[0], 1)
