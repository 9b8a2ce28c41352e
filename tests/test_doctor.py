"""The doctor: every planted fault is named, nothing else is, and sound data, runs and predictions give nothing."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doctor_cases import mask, picture, with_log, with_weights, write_fields_of_view, write_pairs, write_run
from small_runs import one_thread

from minitorch_unet import Tensor, cli, doctor, nn
from minitorch_unet.checkpoint import load_checkpoint, save_checkpoint
from minitorch_unet.cli.options import OPENING, splitting
from minitorch_unet.config import TrainConfig
from minitorch_unet.data import SyntheticCells, write_image
from minitorch_unet.doctor import DIAGNOSES, Report, examine, gather
from minitorch_unet.doctor.probe import listening, own_statistics
from minitorch_unet.predict import load_network
from minitorch_unet.train import LOG, start, train
from minitorch_unet.unet import UNetSizes

__all__ = ["one_thread"]

SAME_2 = UNetSizes(2, "same")  # legal are multiples of 4


def look(
    *data: Path, run: Path | None = None, predictions: tuple[Path, ...] = (), sizes: UNetSizes = SAME_2,
    validation: str = "33%", whole: bool = False, **how: Any,
) -> Report:  # fmt: skip
    return examine(data, run, predictions, OPENING | how, splitting({"validation": validation}), sizes, whole)


# ------------------------------------------------------------------------------------------------ data


def rectangle(share: float) -> Callable[[np.ndarray, int], np.ndarray]:
    """Labels of one small square at a place of its own."""
    side = round((share * 48 * 48) ** 0.5)

    def label(array: np.ndarray, number: int) -> np.ndarray:
        made = np.zeros_like(array)
        made[5 * number : 5 * number + side, 7:][:, :side] = 255
        return made

    return label


def only(number: int, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray, int], np.ndarray]:
    return lambda array, i: change(array) if i == number else array


def classes_with_255(array: np.ndarray, number: int) -> np.ndarray:
    """0, 1, 2, and 255 for what should be a class of its own."""
    made = np.where(array > 0, 1, 255).astype(np.uint8)
    made[:9, :20], made[9:16, :20] = 0, 2
    return made


def copied(folder: Path, source: int, target: int) -> Path:
    for part in ("image", "label"):
        shutil.copy(folder / part / f"{source}.png", folder / part / f"{target}.png")
    return folder


def two_parts(folder: Path, **other: Any) -> tuple[Path, Path]:
    return write_pairs(folder / "train"), write_pairs(folder / "test", seed=1, **other)


def shared(folder: Path) -> tuple[Path, Path]:
    train, test = two_parts(folder)
    for part in ("image", "label"):
        shutil.copy(train / part / "2.png", test / part / "4.png")
    return train, test


def damaged(folder: Path) -> Path:
    write_pairs(folder)
    write_image(folder / "label" / "1.png", np.eye(9, dtype=np.uint8) * 255)
    (folder / "image" / "3.png").write_bytes(b"no picture")
    return folder


def interpolated(array: np.ndarray, number: int) -> np.ndarray:
    """As if the mask had been resized: greys between 0 and 255 at its edges."""
    smooth = array.copy()
    smooth[20] = np.arange(48) * 5
    return smooth


SMALL_VALIDATION = [(48, 48)] * 4 + [(50, 48)] * 2

DATA_CASES: dict[str, tuple[Callable[[Path], Any], set[str]]] = {
    "sound": (write_pairs, set()),
    "two sound parts": (two_parts, set()),
    "one label inverted": (lambda f: write_pairs(f, only(3, lambda a: 255 - a)), {"inverted-labels"}),
    "a part inverted": (lambda f: two_parts(f, label=lambda a, i: 255 - a), {"inverted-labels"}),
    "background is class 1": (
        lambda f: write_pairs(f, lambda a, i: 255 - rectangle(0.05)(a, i)), {"mostly-foreground"},
    ),
    "field of view": (write_fields_of_view, {"field-of-view"}),
    "255 among classes": (lambda f: write_pairs(f, classes_with_255), {"label-255"}),
    "a rare class": (lambda f: write_pairs(f, rectangle(0.008)), {"class-imbalance"}),
    "an empty label": (lambda f: write_pairs(f, only(2, np.zeros_like)), {"almost-empty-label"}),
    "only empty labels": (
        lambda f: write_pairs(f, lambda a, i: np.zeros_like(a)), {"absent-class"},
    ),
    "a constant image": (
        lambda f: write_pairs(f, image=only(2, lambda a: np.full_like(a, 7))), {"constant-image"},
    ),
    "shared between parts": (shared, {"shared-images"}),
    "shared by the split": (lambda f: copied(write_pairs(f), 0, 5), {"shared-images"}),
    "repeated in training": (lambda f: copied(write_pairs(f), 0, 2), {"repeated-images"}),
    "sizes of validation": (lambda f: write_pairs(f, shapes=SMALL_VALIDATION), {"illegal-sizes"}),
    "sizes of another part": (
        lambda f: two_parts(f, shapes=[(48, 48)] * 5 + [(48, 50)]), {"illegal-sizes"},
    ),
    "damaged files": (damaged, {"unusable-pairs"}),
    "resized masks": (lambda f: write_pairs(f, interpolated), {"unreadable-data"}),
}  # fmt: skip


@pytest.mark.parametrize("case", DATA_CASES)
def test_faults_of_data(tmp_path, case) -> None:
    make, expected = DATA_CASES[case]
    made = make(tmp_path / "data")
    report = look(*(made if isinstance(made, tuple) else (made,)))
    assert set(report.names) == expected, "\n".join(report.lines())


def test_where_no_pair_can_be_read_nothing_else_is_said(tmp_path) -> None:
    data = write_pairs(tmp_path / "data", lambda array, i: array[:-2])
    assert look(data).names == ["unusable-pairs"]


def test_the_evidence_holds_names_and_numbers(tmp_path) -> None:
    def seen(*data: Path, **how: Any) -> tuple[str, str]:
        (found,) = look(*data, **how).diagnoses
        return f"{found.what} {found.evidence}", found.advice

    text, advice = seen(write_pairs(tmp_path / "sizes", shapes=SMALL_VALIDATION))
    assert "0 of 4 in training; 2 of 2 in validation: 4 (50x48), 5 (50x48)" in text and "50: 48 or 52" in advice
    text, _ = seen(*shared(tmp_path / "shared"))
    assert "2 and 4" in text and "train" in text and "test" in text
    text, _ = seen(damaged(tmp_path / "damaged"))
    assert "2 pairs" in text and "label/1.png: the label is 9x9, the image 48x48" in text and "image/3.png" in text
    text, advice = seen(*two_parts(tmp_path / "inverted", label=lambda a, i: 255 - a))
    shares = [np.median([mask(100 * s + i).mean() for i in range(6)]) for s in (0, 1)]
    assert f"{1 - shares[1]:.0%} of an image in" in text and f"{shares[0]:.0%} in" in text
    text, _ = seen(write_pairs(tmp_path / "rare", rectangle(0.008)))
    assert f"class 1: {16 / 48**2:.2%}" in text


def test_sizes_are_asked_for_where_images_are_fed_whole(tmp_path) -> None:
    data = write_pairs(tmp_path / "data", shapes=[(50, 50)] * 6)
    assert look(data).names == []  # nothing is legal: whoever has such images cuts tiles
    assert look(data, whole=True).names == ["illegal-sizes"]
    assert look(data, whole=True, sizes=UNetSizes(1, "same")).names == []


def test_a_foreground_that_is_named_is_meant(tmp_path) -> None:
    data = write_pairs(tmp_path / "data", classes_with_255)
    assert look(data, foreground=255).names == []


# ------------------------------------------------------------------------------------------------ runs


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A run that learnt; only read."""
    folder = tmp_path_factory.mktemp("sound")
    return write_run(folder / "run", write_pairs(folder / "data"))


def silenced(arrays: dict[str, np.ndarray]) -> None:
    arrays["model.down.1.conv2.bias"][:] = -1e3


def broken(arrays: dict[str, np.ndarray]) -> None:
    arrays["model.merge.0.conv1.weight"][:] = 3e38


def shifted(arrays: dict[str, np.ndarray]) -> None:
    arrays["model.down.0.norm1.running_mean"][:] += 2


def of_another(array: np.ndarray, number: int) -> np.ndarray:
    return np.where(mask(50 + number), 255, 0).astype(np.uint8)


# From a folder for what is made, and the sound run: the run; and what is to be found. The second set may be found as
# well: consequences of the fault.
RUN_CASES: dict[str, tuple[Callable[[Path, Path], Path], set[str], set[str]]] = {
    "learning rate too low": (
        lambda f, s: write_run(f, s.parent / "data", lr=1e-7), {"rate-too-low"}, {"grey-predictions"},
    ),
    "learning rate too high": (
        lambda f, s: write_run(f, s.parent / "data", lr=3.0), {"rate-too-high"},
        {"dead-relus", "grey-predictions", "white-predictions", "black-predictions"},
    ),
    "NaN": (
        lambda f, s: write_run(f, s.parent / "data", lr=1e25, optimizer="sgd", momentum=0.0), {"not-finite"},
        {"grey-predictions"},
    ),
    "labels of other images": (
        lambda f, s: write_run(f, write_pairs(f.parent / "wrong", of_another)), {"no-learning"}, {"grey-predictions"},
    ),
    "imbalance, and a loss that ignores it": (
        lambda f, s: write_run(
            f, write_pairs(f.parent / "rare", rectangle(0.008), image=lambda a, i: picture(mask(i) & False, i)),
            weights="none",
        ),
        {"class-imbalance", "black-predictions"}, {"dead-relus"},
    ),
    "dead ReLUs": (
        lambda f, s: with_weights(shutil.copytree(s, f), silenced), {"dead-relus"},
        {"grey-predictions", "black-predictions", "white-predictions"},
    ),
    "weights that overflow": (lambda f, s: with_weights(shutil.copytree(s, f), broken), {"not-finite"}, set()),
    "averages that fit no image": (
        lambda f, s: with_weights(write_run(f, s.parent / "data", norm="batch"), shifted), {"wrong-averages"},
        {"dead-relus", "grey-predictions", "black-predictions", "white-predictions"},
    ),
    "overfitting": (
        lambda f, s: with_log(
            shutil.copytree(s, f), [0.6, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02], [0.6, 0.42, 0.4, 0.45, 0.5, 0.6, 0.7]
        ),
        {"overfitting"}, set(),
    ),
    "a loss that climbs again": (
        lambda f, s: with_log(shutil.copytree(s, f), [0.6, 0.3, 0.2, 0.3, 0.5], [0.6, 0.3, 0.2, 0.3, 0.5]),
        {"rate-too-high"}, set(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RUN_CASES)
def test_faults_of_runs(tmp_path, sound, case) -> None:
    make, expected, consequences = RUN_CASES[case]
    report = look(run=make(tmp_path / "run", sound))
    assert expected <= set(report.names) <= expected | consequences, "\n".join(report.lines())


def test_a_sound_run_is_well(sound) -> None:
    report = look(run=sound)
    assert report.diagnoses == [] and report.lines()[-1] == "nothing wrong was found", "\n".join(report.lines())
    assert report.examined[0].endswith("data: 6 pairs") and "48 steps and 8 epochs" in report.examined[1]


def test_sizes_do_not_matter_to_a_run_of_this_project(tmp_path, sound) -> None:
    other = write_pairs(tmp_path / "other", seed=3, shapes=SMALL_VALIDATION)
    assert look(other).names == ["illegal-sizes"] and look(other, run=sound).names == []


def test_a_sound_run_with_batch_normalisation_is_well(tmp_path, sound) -> None:
    run = write_run(tmp_path / "run", sound.parent / "data", norm="batch", epochs=20)
    assert look(run=run).names == []
    network = load_network(run)[0]
    running = {name: value.numpy().copy() for name, value in network.named_buffers()}
    x = Tensor(np.random.default_rng(0).standard_normal((1, 1, 40, 40)).astype(np.float32))
    before = network(x).detach().numpy()
    layers = [module for _, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    with own_statistics(layers):
        assert not np.array_equal(network(x).detach().numpy(), before)
    assert np.array_equal(network(x).detach().numpy(), before)
    assert all(np.array_equal(value.numpy(), running[name]) for name, value in network.named_buffers())


@pytest.mark.parametrize("losses", [[0.6, 0.3, 0.2, 0.15, 0.12, 0.1], [0.6, 0.2, 0.05, 0.02, 0.01, 0.012]])
def test_falling_and_settled_curves_are_well(tmp_path, sound, losses) -> None:
    run = with_log(shutil.copytree(sound, tmp_path / "run"), losses, losses)
    assert look(run=run).names == []


def test_a_network_that_truly_learns_one_picture_by_heart(tmp_path) -> None:
    """Ninety steps on one picture of cells, judged on others; 4 seconds."""
    config = TrainConfig(
        base=8, depth=2, tile=84, epochs=45, optimizer="adam", lr=0.004, weights="balanced", flips=False,
        rotations=False, grey=0.0,
    )  # fmt: skip
    run = start(config, SyntheticCells(1, 96, seed=5), {})
    train(run, SyntheticCells(1, 96, seed=5), SyntheticCells(3, 96, seed=9), tmp_path)
    assert look(run=tmp_path).names == ["overfitting"]


def test_data_of_the_other_polarity_than_the_run_learnt(tmp_path, sound) -> None:
    other = write_pairs(tmp_path / "other", lambda a, i: 255 - a, seed=3)
    report = look(other, run=sound)
    assert set(report.names) == {"inverted-labels"}
    assert "Dice of class 1 is 0.0" in report.diagnoses[0].evidence
    assert look(write_pairs(tmp_path / "right", seed=3), run=sound).names == []


def test_the_operation_and_step_of_a_nan_are_told(tmp_path, sound) -> None:
    run = RUN_CASES["NaN"][0](tmp_path / "run", sound)
    last = json.loads((run / LOG).read_text().splitlines()[-1])
    assert last["event"] == "failed" and "the result of '" in last["reason"]
    (found,) = [d for d in look(run=run).diagnoses if d.name == "not-finite"]
    assert f"at step {last['step']}" in found.evidence and "in module '" in found.evidence
    assert "it was 1e+25" in found.advice
    overflowing = with_weights(shutil.copytree(sound, tmp_path / "overflowing"), broken)
    (found,) = look(run=overflowing).diagnoses
    assert "module 'merge.0" in found.evidence


def test_dead_channels_are_counted_by_layer(tmp_path, sound) -> None:
    (found,) = [
        d
        for d in look(run=with_weights(shutil.copytree(sound, tmp_path / "run"), silenced)).diagnoses
        if d.name == "dead-relus"
    ]
    assert "down 1, ReLU 2: 8 of 8 channels" in found.evidence and "down 1, ReLU 1" not in found.evidence


def test_plain_blocks_compute_what_the_network_does(sound) -> None:
    """Listening to the ReLUs does not change the scores; afterwards the blocks are as before."""
    network = load_network(sound)[0]
    x = Tensor(np.random.default_rng(0).standard_normal((1, 1, 40, 40)).astype(np.float32))
    before = network(x).detach().numpy()
    spoke: dict[str, np.ndarray] = {}
    with listening(network, spoke):
        np.testing.assert_allclose(network(x).detach().numpy(), before, rtol=1e-4, atol=1e-5)
    assert np.array_equal(network(x).detach().numpy(), before) and len(spoke) == 6
    assert [name for name, heard in spoke.items() if len(heard) != (8 if name.startswith("down 1") else 4)] == []


def test_a_checkpoint_without_log_or_data_is_looked_at(sound, tmp_path) -> None:
    shutil.copy(sound / "last.safetensors", tmp_path / "mine.safetensors")
    report = look(run=tmp_path / "mine.safetensors")
    assert report.names == [] and "no log" in report.examined[1]
    moved = write_run(tmp_path / "run", write_pairs(tmp_path / "data"), epochs=1)
    shutil.rmtree(tmp_path / "data")
    report = look(run=moved)
    assert "which the run was trained on, is not there" in report.notes[0] and report.names == []


# ----------------------------------------------------------------------------------------- predictions


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x)
    return e / e.sum(axis=0)


def scores(classes: int = 1) -> np.ndarray:
    """Confident scores (K, H, W)."""
    return 14 * (np.random.default_rng(0).random((classes, 40, 40)) - 0.5)


def grey(values: np.ndarray) -> np.ndarray:
    return np.rint(255 * values).astype(np.uint8)


PICTURE_CASES: dict[str, tuple[str, np.ndarray, set[str]]] = {
    "probabilities": ("p.npy", sigmoid(scores()[0]), set()),
    "a map": ("p.png", grey(sigmoid(scores()[0])), set()),
    "softmax of three": ("p.npy", softmax(scores(3)), set()),
    "a mask": ("m.png", np.where(mask(0), 255, 0).astype(np.uint8), set()),
    "sigmoid twice": ("p.npy", sigmoid(sigmoid(scores()[0])), {"activation-twice"}),
    "sigmoid twice, a map": ("p.png", grey(sigmoid(sigmoid(scores()[0]))), {"activation-twice"}),
    "softmax twice": ("p.npy", softmax(softmax(scores(2))), {"activation-twice"}),
    "softmax of three twice": ("p.npy", softmax(softmax(2 * scores(3))), {"activation-twice"}),
    "raw scores": ("p.npy", scores()[0], {"raw-scores"}),
    "black mask": ("m.png", np.zeros((40, 40), np.uint8), {"black-predictions"}),
    "black map": ("p.png", grey(0.4 * sigmoid(scores()[0])), {"black-predictions"}),
    "grey map": ("p.png", grey(0.44 + 0.02 * sigmoid(scores()[0])), {"grey-predictions"}),
    "white mask": ("m.png", np.full((40, 40), 255, np.uint8), {"white-predictions"}),
    "class numbers": ("m.png", mask(0).astype(np.uint8), {"dim-masks"}),
    "NaN": ("p.npy", np.where(mask(0), np.nan, sigmoid(mask(1) * 8.0 - 4)), {"not-finite"}),
}


@pytest.mark.parametrize("case", PICTURE_CASES)
def test_faults_of_predictions(tmp_path, case) -> None:
    name, array, expected = PICTURE_CASES[case]
    if name.endswith(".npy"):
        np.save(tmp_path / name, array)
    else:
        write_image(tmp_path / name, array)
    report = look(predictions=(tmp_path,))
    assert set(report.names) == expected, "\n".join(report.lines())


# ------------------------------------------------------------------------------------- the whole of it


def test_every_diagnosis_is_planted_somewhere() -> None:
    """A name that no case expects would be one that no test has seen."""
    sources = "".join(path.read_text() for path in Path(doctor.__file__).parent.glob("*_faults.py"))
    names = set(re.findall(r'(?:ERROR|WARNING)(?: if [^,]+)?, "([a-z0-9-]+)"', sources))
    names |= {f"{colour}-predictions" for colour in re.findall(r'_flat\("(\w+)"', sources)} | {"shared-images"}
    planted = set().union(
        *(case[1] for case in DATA_CASES.values()), *(case[1] | case[2] for case in RUN_CASES.values()),
        *(case[2] for case in PICTURE_CASES.values()),
    )  # fmt: skip
    # Labels full or ignored altogether, and similar images, are planted in the tests of the check itself.
    assert names - planted == {"almost-full-label", "ignored-label"}
    assert len(DIAGNOSES) > 20


def call(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


def test_the_command(tmp_path, sound, capsys) -> None:
    assert call("doctor", sound) == 0
    assert capsys.readouterr().out.endswith("nothing wrong was found\n")
    write_pairs(tmp_path / "good", seed=1)
    bad = write_pairs(tmp_path / "bad", only(3, lambda a: 255 - a))
    assert call("doctor", "--data", bad) == 1
    out = capsys.readouterr().out
    assert "\nERROR inverted-labels: " in out and "  do:   invert these files" in out
    assert out.endswith("1 error and 0 warnings\n") and max(map(len, out.splitlines())) <= 110
    assert call("doctor", "--data", bad, "--json") == 1
    (found,) = json.loads(capsys.readouterr().out)["diagnoses"]
    assert found["name"] == "inverted-labels" and f"{bad}/label/3.png" in found["evidence"]
    network = ["--depth", 2, "--padding", "same", "--json"]
    for parts in (["--data", tmp_path], ["--data", tmp_path / "good", "--data", bad]):  # a folder of parts; named parts
        assert call("doctor", *parts, *network) == 1
        assert len(json.loads(capsys.readouterr().out)["examined"]) == 2


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "nothing to look at: give a run, --data or --predictions"),
        (["nowhere"], "nowhere: no such checkpoint file"),
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--predictions", "nowhere.png"], "nowhere.png: no such file"),
    ],
)
def test_mistakes_of_the_user(capsys, arguments, part) -> None:
    assert call("doctor", *arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("minitorch-unet doctor: ") and part in err and err.count("\n") == 1


def test_the_demonstrations_data_are_made_again(tmp_path, sound) -> None:
    run = shutil.copytree(sound, tmp_path / "run")
    for path in run.glob("*.safetensors"):
        arrays, metadata = load_checkpoint(path)
        save_checkpoint(path, arrays, metadata | {"source": {"data": "demo"}})
    evidence = gather([], run, [], OPENING, splitting({}), SAME_2)
    assert evidence.parts[0].name == "the demonstration's cells" and len(evidence.parts[0].findings) == 3
    assert evidence.probe is not None and list(evidence.probe.tried) == ["training", "validation"]
