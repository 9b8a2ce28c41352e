"""Training: tiles that fit their labels, the step, the log, and the ways in which a run ends."""

import collections
import dataclasses
import errno
import json
import math
import signal

import numpy as np
import pytest
from small_runs import TRAINING, one_thread, patterns, run_in, tiny

from minitorch_unet import NonFiniteError, UNet, runs, set_num_threads
from minitorch_unet import train as training
from minitorch_unet.checkpoint import load_checkpoint
from minitorch_unet.data.weights import IGNORE
from minitorch_unet.errors import DataError
from minitorch_unet.train import (
    BEST,
    LAST,
    LOG,
    Interrupted,
    TileMaker,
    prepare,
    resume,
    start,
    train,
    train_step,
)

__all__ = ["one_thread"]


def maker(shapes, **changed) -> TileMaker:
    config, dataset = tiny(**changed), patterns(shapes)
    return TileMaker(config, UNet(**config.network(1, 2)), dataset)


def events(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]


# ------------------------------------------------------------------------------------------------- tiles


@pytest.mark.parametrize("shapes", [[(40, 31)], [(10, 50)], [(9, 11)], [(16, 16)]])
@pytest.mark.parametrize("depth", [1, 2])
def test_labels_and_weights_lie_on_the_image_under_every_augmentation(shapes, depth) -> None:
    tiles = maker(shapes, depth=depth, batch=3)
    seen = 0
    for step in range(12):
        images, labels, weights = tiles.batch(step)
        halo = (tiles.in_size - tiles.out_size) // 2
        assert images.shape == (3, 1, tiles.in_size, tiles.in_size) and images.dtype == np.float32
        assert labels.shape == weights.shape == (3, tiles.out_size, tiles.out_size) and labels.dtype == np.int64
        shown = images[:, 0, halo : halo + tiles.out_size, halo : halo + tiles.out_size] > 0.5
        counted = labels != IGNORE
        assert np.array_equal(shown[counted], labels[counted] == 1)
        np.testing.assert_allclose(weights[counted], tiles.class_weights[labels[counted]], rtol=1e-6)
        seen += counted.sum()
    assert seen > 500


def test_the_weight_map_moves_with_the_image() -> None:
    tiles = maker([(40, 31)], grey=0.0)
    smooth = np.random.default_rng(0).uniform(size=(40, 31)).astype(np.float32)
    tiles._weight_maps[0] = smooth
    sample = tiles.dataset[0]
    tiles.dataset._cache[0] = dataclasses.replace(sample, image=smooth[None])
    for step in range(8):
        images, _, weights = tiles.batch(step)
        halo = (tiles.in_size - tiles.out_size) // 2
        assert np.array_equal(images[:, 0, halo:-halo, halo:-halo], weights)


def test_all_eight_positions_are_drawn_and_none_when_switched_off() -> None:
    def corners(**changed) -> set[bytes]:
        tiles = maker([(16, 16)], grey=0.0, tile=16, **changed)
        return {tiles.batch(step)[1].tobytes() for step in range(80)}

    assert len(corners()) == 8
    assert len(corners(flips=False)) == 4
    assert len(corners(flips=False, rotations=False)) == 1


def test_pixels_outside_the_image_are_ignored_and_only_those() -> None:
    tiles = maker([(10, 50)])
    for step in range(6):
        _, labels, _ = tiles.batch(step)
        inside = labels[0] != IGNORE
        assert inside.sum() == 10 * tiles.out_size
        lines = inside.any(axis=1) if inside.all(axis=1).any() else inside.any(axis=0)
        assert lines.sum() == 10 and np.flatnonzero(lines)[0] == (tiles.out_size - 10) // 2


def test_the_image_is_mirrored_where_the_network_looks_over_the_border() -> None:
    tiles = maker([(16, 16)], grey=0.0, flips=False, rotations=False, tile=16)
    images, _, _ = tiles.batch(0)
    halo = (tiles.in_size - 16) // 2
    expected = np.pad(tiles.dataset[0].image[0], halo, mode="reflect")
    assert np.array_equal(images[0, 0], expected)


def test_a_step_has_one_batch_whatever_came_before() -> None:
    one, two = maker(TRAINING, batch=2), maker(TRAINING, batch=2)
    first = [one.batch(step) for step in range(10)]
    for step in reversed(range(10)):
        assert all(np.array_equal(a, b) for a, b in zip(first[step], two.batch(step), strict=True))
    assert len({batch[0].tobytes() for batch in first}) == 10
    other = maker(TRAINING, batch=2, seed=1)
    assert not np.array_equal(other.batch(0)[0], first[0][0])


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_every_image_is_drawn_equally_often_in_each_epoch_in_new_orders(monkeypatch, batch) -> None:
    tiles = maker([(24, 24)] * 8, batch=batch)
    real, drawn = tiles._tile, []
    monkeypatch.setattr(tiles, "_tile", lambda rng, index: drawn.append(index) or real(rng, index))
    orders = set()
    for epoch in range(4):
        drawn.clear()
        for step in range(tiles.steps_per_epoch):
            tiles.batch(epoch * tiles.steps_per_epoch + step)
        counts = collections.Counter(drawn)
        assert set(counts) == set(range(8)) and max(counts.values()) - min(counts.values()) <= 1
        orders.add(tuple(drawn))
    assert len(orders) == 4


def test_an_epoch_draws_as_many_pixels_as_there_are() -> None:
    tiles = maker([(64, 64)] * 2, tile=16)
    assert tiles.steps_per_epoch == math.ceil(2 * 64 * 64 / tiles.out_size**2)
    assert maker([(5, 5)] * 4).steps_per_epoch == 4  # but at least every image once
    assert maker([(5, 5)] * 4, batch=3).steps_per_epoch == 2


@pytest.mark.parametrize("wanted", [1, 16, 17, 100])
def test_a_tile_size_is_made_legal(wanted) -> None:
    tiles = maker([(40, 40)], tile=wanted, depth=2)
    sizes = UNet(base=1, depth=2).sizes
    assert sizes.is_legal(tiles.in_size) and sizes.output_size(tiles.in_size) == tiles.out_size >= wanted
    assert tiles.out_size - wanted < sizes.grid


def test_the_default_tile_does_not_overhang_the_smallest_image() -> None:
    for side in range(12, 40):
        tiles = maker([(side, 60), (70, 50)], tile=0, depth=2)
        smallest = tiles.in_size == 44 - 4 * 0 or not UNet(base=1, depth=2).sizes.is_legal(tiles.in_size - 4)
        assert tiles.out_size <= side or smallest


def test_the_default_tile_is_at_most_the_papers() -> None:
    config = tiny(depth=4, base=1, tile=0)
    tiles = TileMaker(config, UNet(**config.network(1, 2)), patterns([(500, 520)]))
    assert (tiles.in_size, tiles.out_size) == (572, 388)


def test_class_weights_average_to_one_and_are_limited() -> None:
    tiles = maker(TRAINING)
    labels = np.concatenate([sample.label.ravel() for sample in tiles.dataset])
    assert tiles.class_weights[labels].mean() == pytest.approx(1)
    shares = np.bincount(labels) / labels.size
    np.testing.assert_allclose(tiles.class_weights * shares, [0.5, 0.5])
    assert maker(TRAINING, weights="none").batch(0)[2] is None


def test_border_weights_stress_the_gap() -> None:
    tiles = maker(TRAINING, weights="border", border_weight=50.0)
    _, labels, weights = tiles.batch(0)
    counted = labels != IGNORE
    assert weights[counted & (labels == 0)].max() > 20
    np.testing.assert_allclose(weights[labels == 1], tiles.class_weights[1], rtol=1e-6)


# -------------------------------------------------------------------------------------------------- step


@pytest.mark.parametrize("loss", ["cross_entropy", "dice", "cross_entropy+dice", "focal"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_every_loss_falls_with_every_optimiser(loss, optimizer) -> None:
    config = tiny(loss=loss, optimizer=optimizer, base=4, momentum=0.5)
    dataset = patterns(TRAINING)
    run = start(config, dataset, {})
    batch = TileMaker(config, run.network, dataset).batch(0)
    losses = [train_step(run, *batch, 0.02 if optimizer == "sgd" else 0.003) for _ in range(12)]
    assert losses[-1] < losses[0] - 0.001
    assert run.optimizer.lr == (0.02 if optimizer == "sgd" else 0.003)


def test_dropout_of_a_step_depends_on_seed_and_step_alone() -> None:
    config = tiny(dropout=0.5)
    dataset = patterns(TRAINING)

    def loss(step: int) -> float:
        run = start(config, dataset, {})
        run.step = step
        return train_step(run, *TileMaker(config, run.network, dataset).batch(0), 0.1)

    assert loss(3) == loss(3) != loss(4)


def test_clip_limits_the_update() -> None:
    config = tiny(clip=0.01, momentum=0.0)
    dataset = patterns(TRAINING)
    run = start(config, dataset, {})
    before = [p.data.copy() for p in run.network.parameters()]
    train_step(run, *TileMaker(config, run.network, dataset).batch(0), 1.0)
    moved = math.sqrt(sum(((p.data - b) ** 2).sum() for p, b in zip(run.network.parameters(), before, strict=True)))
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_start_depends_on_the_seed_alone() -> None:
    first, again, other = (start(tiny(seed=s), patterns(TRAINING), {}).network.state_dict() for s in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["down.0.conv1.weight"], other["down.0.conv1.weight"])


# --------------------------------------------------------------------------------------------------- run


def test_a_run_leaves_its_files_and_reports_what_it_logs(tmp_path) -> None:
    reported = []
    run = run_in(tmp_path / "new" / "run", tiny(schedule="cosine", lr=0.01), report=reported.append)
    logged = events(tmp_path / "new" / "run")
    assert logged == reported
    steps = [e for e in logged if e["event"] == "step"]
    assert [e["step"] for e in steps] == list(range(1, run.step + 1))
    assert {e["steps_in_all"] for e in steps} == {run.step}
    assert [e["lr"] for e in steps] == pytest.approx(
        [0.005 * (1 + math.cos(math.pi * i / run.step)) for i in range(run.step)]
    )
    epochs = [e for e in logged if e["event"] == "epoch"]
    assert [e["epoch"] for e in epochs] == [1, 2]
    assert epochs[0]["best"] is True and {"loss", "mean_iou", "mean_dice", "pixel_accuracy"} <= set(epochs[0])
    assert run.best == max(e["mean_iou"] for e in epochs)
    assert sorted(p.name for p in (tmp_path / "new" / "run").iterdir()) == [BEST, LAST, LOG]


def test_the_best_checkpoint_is_that_of_the_best_epoch(tmp_path, monkeypatch) -> None:
    scores = iter([0.2, 0.5, 0.4])
    monkeypatch.setattr(training, "evaluate", lambda *_: {"mean_iou": next(scores), "loss": 1.0})
    run = run_in(tmp_path, tiny(epochs=3))
    assert load_checkpoint(tmp_path / BEST).metadata["step"] == run.step // 3 * 2
    assert load_checkpoint(tmp_path / LAST).metadata["step"] == run.step
    assert [e["best"] for e in events(tmp_path) if e["event"] == "epoch"] == [True, True, False]


def test_early_stop_after_patience_epochs_without_improvement(tmp_path, monkeypatch) -> None:
    scores = iter([0.2, 0.5, 0.5, 0.4, 0.9, 0.9])
    monkeypatch.setattr(training, "evaluate", lambda *_: {"mean_iou": next(scores), "loss": 1.0})
    run = run_in(tmp_path, tiny(epochs=6, patience=2))
    assert [e["mean_iou"] for e in events(tmp_path) if e["event"] == "epoch"] == [0.2, 0.5, 0.5, 0.4]
    assert events(tmp_path)[-1] == {"step": run.step, "event": "stop", "reason": "patience"}
    again, _ = resume(tmp_path)
    assert train(again, patterns(TRAINING), patterns([(20, 20)]), tmp_path).step == run.step


def test_plateau_lowers_the_rate_by_validation_loss(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(training, "evaluate", lambda *_: {"mean_iou": 0.5, "loss": 1.0})
    run_in(tmp_path, tiny(epochs=6, schedule="plateau", lr=0.01))
    steps = [e for e in events(tmp_path) if e["event"] == "step"]
    assert steps[0]["lr"] == 0.01 and steps[-1]["lr"] == pytest.approx(0.001)


def test_max_hours_stops_saved(tmp_path) -> None:
    run = run_in(tmp_path, tiny(), max_hours=1e-12)
    assert run.step == 1
    assert events(tmp_path)[-1]["reason"] == "max_hours"
    assert load_checkpoint(tmp_path / LAST).metadata["step"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_restores_the_handlers(tmp_path, number) -> None:
    before = signal.getsignal(number)

    def report(event) -> None:
        if event["event"] == "step" and event["step"] == 2:
            signal.raise_signal(number)

    with pytest.raises(Interrupted, match=f"stopped by {signal.Signals(number).name} after step 2") as caught:
        run_in(tmp_path, tiny(), report=report)
    assert (caught.value.number, caught.value.step) == (number, 2)
    assert load_checkpoint(tmp_path / LAST).metadata["step"] == 2
    assert signal.getsignal(number) is before


def test_a_second_interrupt_stops_at_once(tmp_path) -> None:
    def report(event) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, tiny(), report=report)
    assert load_checkpoint(tmp_path / LAST).metadata["step"] == 0


# ----------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("lr", [1e15, 1e30, 3e38])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_diverging_run_stops_at_the_first_loss_that_is_not_finite(tmp_path, lr, threads) -> None:
    set_num_threads(threads)
    try:
        with pytest.raises(
            NonFiniteError, match=r"the loss is (nan|inf|-inf) at step \d+: .*lower learning rate"
        ) as stop:
            run_in(tmp_path, tiny(lr=lr, momentum=0.0, save_every=1, epochs=9))
    finally:
        set_num_threads(1)
    assert "the result of '" in str(stop.value) and "module '" in str(stop.value)
    assert "\n" not in str(stop.value)
    arrays, metadata = load_checkpoint(tmp_path / LAST)
    assert all(np.isfinite(a).all() for a in arrays.values())
    losses = [e["loss"] for e in events(tmp_path) if e["event"] == "step"]
    assert np.isfinite(losses).all()
    assert metadata["step"] == len(losses)


def test_a_weight_that_overflowed_is_named(tmp_path) -> None:
    dataset = patterns(TRAINING)
    run = start(tiny(), dataset, {})
    run.network.head.bias.data[1] = np.inf
    batch = TileMaker(run.config, run.network, dataset).batch(0)
    with (
        np.errstate(all="ignore"),
        pytest.raises(NonFiniteError, match=r"the last update made values of head\.bias infinite or NaN"),
    ):
        train_step(run, *batch, 0.1)
    with pytest.raises(NonFiniteError, match=r"head\.bias holds values that are not finite after step 0"):
        run.save(tmp_path / LAST)
    assert not (tmp_path / LAST).exists()


def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path, monkeypatch) -> None:
    real, calls = runs.save_checkpoint, []
    kept = {}

    def save(path, arrays, metadata) -> None:
        calls.append(path)
        if len(calls) == 3:
            kept["bytes"] = (tmp_path / LAST).read_bytes()
            monkeypatch.setattr("minitorch_unet.files.os.fsync", full)
        real(path, arrays, metadata)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs, "save_checkpoint", save)
    with pytest.raises(DataError, match=r"cannot write .*last\.safetensors: No space left.*previous file is unchanged"):
        run_in(tmp_path, tiny(save_every=1))
    assert (tmp_path / LAST).read_bytes() == kept["bytes"]
    assert load_checkpoint(tmp_path / LAST).metadata["step"] == 1


def test_an_unwritable_folder_is_noticed_before_the_first_step(tmp_path) -> None:
    (tmp_path / LAST).mkdir()
    steps = []
    with pytest.raises(DataError, match=r"cannot write .*last\.safetensors"):
        run_in(tmp_path, tiny(), report=steps.append)
    assert steps == []


def test_prepare_checks_and_splits() -> None:
    held_in, held_out, lines = prepare(patterns([(24, 24)] * 5), "1-2")
    assert held_in.names == ["pattern 0", "pattern 3", "pattern 4"] and held_out.names == ["pattern 1", "pattern 2"]
    assert lines[-1] == "3 images to train on, 2 to validate on"
    assert any("sizes: 5 of 24x24" in line for line in lines)
