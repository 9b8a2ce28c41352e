"""Prediction: tiles equal the whole, files of every kind, pictures that can be seen."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import one_thread, run_in, tiny

from minitorch_unet import Tensor, UNet, manual_seed, no_grad, tiled
from minitorch_unet import functional as F
from minitorch_unet.checkpoint import load_checkpoint, save_checkpoint
from minitorch_unet.data import read_image, write_image
from minitorch_unet.errors import DataError
from minitorch_unet.predict import (
    find_images,
    load_network,
    predict_files,
    predict_probabilities,
)
from minitorch_unet.tiled import prediction_tile
from minitorch_unet.train import BEST, LAST

__all__ = ["one_thread"]


def network(**options) -> UNet:
    manual_seed(3)
    made = UNet(**({"base": 3, "depth": 2} | options))
    for name, p in made.named_parameters():
        if name.endswith("bias"):
            p.data[...] = np.random.default_rng(len(name)).normal(0, 0.1, p.shape)
    return made


def whole(model: UNet, image: np.ndarray) -> np.ndarray:
    """One pass over the whole image, mirrored as far as the network needs, by NumPy's own padding."""
    sizes = model.sizes
    height, width = image.shape[1:]
    after = [sizes.input_size(n) - sizes.halo - n for n in (height, width)]
    padded = np.pad(image, [(0, 0), (sizes.halo, after[0]), (sizes.halo, after[1])], mode="reflect")
    with no_grad():
        return F.softmax(model(Tensor(padded[None])), 1).data[0, :, :height, :width]


@settings(max_examples=25)
@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 2), st.sampled_from([44, 48, 52, 64]), st.integers(0, 1000)
)
def test_tiled_equals_whole(height, width, depth, largest, seed) -> None:
    model = network(depth=depth)
    image = np.random.default_rng(seed).normal(size=(1, height, width)).astype(np.float32)
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiled, "LARGEST_TILE", largest)
        found = predict_probabilities(model, image, lambda done, total: calls.append((done, total)))
    assert found.shape == (2, height, width) and found.dtype == np.float32
    np.testing.assert_allclose(found, whole(model, image), rtol=0, atol=1e-6)
    assert calls == [(i + 1, calls[-1][1]) for i in range(calls[-1][1])]
    if min(height, width) > 60:
        assert len(calls) > 1 or largest - 2 * model.sizes.halo >= max(height, width)


def test_the_papers_depth_tiled_equals_whole(monkeypatch) -> None:
    model = network(base=1, depth=4)
    image = np.random.default_rng(0).normal(size=(1, 41, 17)).astype(np.float32)
    monkeypatch.setattr(tiled, "LARGEST_TILE", 204)
    np.testing.assert_allclose(predict_probabilities(model, image), whole(model, image), rtol=0, atol=1e-6)


def test_probabilities_add_up_and_dropout_is_off_and_the_mode_is_kept() -> None:
    model = network(dropout=0.5, num_classes=3)
    image = np.random.default_rng(0).normal(size=(1, 30, 30)).astype(np.float32)
    one, two = (predict_probabilities(model.train(), image) for _ in range(2))
    assert np.array_equal(one, two) and model.training
    np.testing.assert_allclose(one.sum(0), 1, rtol=1e-5)
    predict_probabilities(model.eval(), image)
    assert not model.training


def test_padded_networks_predict_any_size() -> None:
    image = np.random.default_rng(0).normal(size=(1, 13, 21)).astype(np.float32)
    assert predict_probabilities(network(padding="same"), image).shape == (2, 13, 21)


def test_the_tile_is_legal_and_no_larger_than_needed() -> None:
    model = UNet(base=1)
    assert prediction_tile(model, 10, 388) == ((204, 572), (20, 388))
    assert prediction_tile(model, 4, 4000) == ((188, 572), (4, 388))


# ------------------------------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def model() -> UNet:
    return network(depth=1)


def greys(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def names(paths) -> list[str]:
    return [path.name for path in paths]


def test_label_pictures_are_0_and_255_and_probabilities_0_to_255(tmp_path, model) -> None:
    write_image(tmp_path / "a.png", greys(20, 25))
    written = list(predict_files(model, [tmp_path / "a.png"], tmp_path / "new" / "out"))
    assert names(written) == ["a_label.png", "a_probability.png"]
    label, probability = (read_image(path) for path in written)
    assert label.shape == probability.shape == (20, 25)
    assert set(np.unique(label)) == {0, 255}
    assert len(np.unique(probability)) > 10
    clear = np.abs(probability.astype(int) - 127.5) > 1
    assert np.array_equal((label == 255)[clear], (probability > 127.5)[clear])


def test_pictures_show_the_prediction_of_the_normalised_image(tmp_path, model) -> None:
    from minitorch_unet.data import normalise

    image = greys(20, 25)
    write_image(tmp_path / "a.png", image)
    *_, path = predict_files(model, [tmp_path / "a.png"], tmp_path)
    expected = predict_probabilities(model, normalise(image[None]))[1]
    assert np.array_equal(read_image(path), np.rint(255 * expected))


def test_more_classes_have_a_probability_each_and_spread_labels(tmp_path) -> None:
    model = network(depth=1, num_classes=4)
    write_image(tmp_path / "a.png", greys(30, 30))
    written = list(predict_files(model, [tmp_path / "a.png"], tmp_path / "out", ".tif"))
    assert names(written) == ["a_label.tif", *(f"a_probability_{k}.tif" for k in (1, 2, 3))]
    assert set(np.unique(read_image(written[0]))) <= {0, 85, 170, 255}


@pytest.mark.parametrize("kind", ["tif", "npy", "npz"])
def test_every_page_of_a_stack_is_predicted(tmp_path, model, kind) -> None:
    stack = greys(3, 20, 22)
    path = tmp_path / f"s.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, stack, photometric="minisblack")
    elif kind == "npy":
        np.save(path, stack)
    else:
        np.savez(path, stack)
    written = list(predict_files(model, [path], tmp_path / "out"))
    assert names(written) == [f"s_{i}_{what}.png" for i in range(3) for what in ("label", "probability")]
    write_image(tmp_path / "one.png", stack[1])
    *_, alone = predict_files(model, [tmp_path / "one.png"], tmp_path / "out")
    assert np.array_equal(read_image(alone), read_image(written[3]))


@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_a_file_of_one_page_keeps_its_name(tmp_path, model, kind) -> None:
    write_image(tmp_path / f"s.{kind}", greys(20, 22))
    assert names(predict_files(model, [tmp_path / f"s.{kind}"], tmp_path)) == ["s_label.png", "s_probability.png"]


def test_colour_images_for_colour_and_grey_networks(tmp_path, model) -> None:
    write_image(tmp_path / "rgb.png", greys(20, 22, 3))
    write_image(tmp_path / "grey.png", greys(20, 22))
    for made in (model, network(depth=1, in_channels=3)):
        files = [tmp_path / "rgb.png", tmp_path / "grey.png"]
        assert len(list(predict_files(made, files, tmp_path / "out"))) == 4


def test_equal_names_are_refused_before_anything_is_written(tmp_path, model) -> None:
    for name in ("a.png", "a.tif"):
        write_image(tmp_path / name, greys(20, 22))
    with pytest.raises(ValueError, match="two images are called 'a', their results would overwrite each other"):
        list(predict_files(model, [tmp_path / "a.png", tmp_path / "a.tif"], tmp_path / "out"))
    assert not list(tmp_path.glob("out/*"))


def test_find_images_takes_files_and_folders_in_order(tmp_path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    for name in ("b.png", "a.TIF", "notes.txt"):
        (folder / name).touch()
    found = find_images([tmp_path / "x.png", folder])
    assert names(found) == ["x.png", "a.TIF", "b.png"]


def test_find_images_names_an_empty_folder(tmp_path) -> None:
    with pytest.raises(DataError, match=r"holds no image; looked for \.gif, \.jpeg"):
        find_images([tmp_path])


@pytest.mark.parametrize("name", ["none.png", "none.npy", "none.tif"])
def test_a_missing_image_is_named(tmp_path, model, name) -> None:
    with pytest.raises(DataError, match=rf"{name}: no such file"):
        list(predict_files(model, find_images([tmp_path / name]), tmp_path / "out"))


# ----------------------------------------------------------------------------------------------- networks


def test_load_network_takes_a_file_or_a_folder_and_prefers_the_best(tmp_path) -> None:
    run = run_in(tmp_path, tiny())
    loaded, metadata = load_network(tmp_path / LAST)
    assert metadata["step"] == run.step and not loaded.training
    for name, value in run.network.state_dict().items():
        assert np.array_equal(value, loaded.state_dict()[name])
    assert load_network(tmp_path)[1]["step"] == load_checkpoint(tmp_path / BEST).metadata["step"]
    (tmp_path / BEST).unlink()
    assert load_network(tmp_path)[1]["step"] == run.step


def test_load_network_says_what_is_missing(tmp_path) -> None:
    with pytest.raises(DataError, match=r"holds neither best\.safetensors nor last\.safetensors"):
        load_network(tmp_path)
    with pytest.raises(DataError, match=r"x\.safetensors: no such"):
        load_network(tmp_path / "x.safetensors")
    save_checkpoint(tmp_path / LAST, {"model.head.bias": np.zeros(2)}, {"network": {"base": 1, "depth": 1}})
    with pytest.raises(DataError, match=r"last\.safetensors: holds no network .*is missing"):
        load_network(tmp_path)
    save_checkpoint(tmp_path / LAST, {}, {"network": {"colour": 1}})
    with pytest.raises(DataError, match=r"last\.safetensors: holds no network .*colour"):
        load_network(tmp_path)
