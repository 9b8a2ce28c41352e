"""Runs with a report beside them: the same bits, a record that goes on, examples, and what it may cost."""

import dataclasses
import json
import re
import signal

import numpy as np
import pytest
from small_runs import TRAINING, one_thread, patterns, run_in, tiny

from minitorch_unet import train as training
from minitorch_unet.data import IGNORE
from minitorch_unet.errors import DataError
from minitorch_unet.predict import predict_probabilities
from minitorch_unet.report import PAGE, train_with_report
from minitorch_unet.report import training as report_training
from minitorch_unet.report.examples import EXAMPLES, SIZE, Examples
from minitorch_unet.report.record import RECORD, keep_profile
from minitorch_unet.report.story import Story
from minitorch_unet.runs import LAST, LOG, read_log, resume, start
from minitorch_unet.train import Interrupted

__all__ = ["one_thread"]


def reported(folder, config, **options):
    """`run_in`, with the report."""
    dataset = patterns(TRAINING)
    run = start(config, dataset, {"data": "patterns"})
    return train_with_report(run, dataset, patterns([(20, 20)], 9), folder, **options)


def text_of(folder) -> str:
    """The page's text."""
    text = (folder / PAGE).read_text(encoding="utf-8").partition("<body>")[2]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


def test_layers_stand_in_the_order_of_the_way_through_the_network(tmp_path) -> None:
    reported(tmp_path, tiny(epochs=1, depth=2))
    _, layers, norms = Story(tmp_path).gradient_norms()
    convs = ("conv1", "conv2")
    assert layers == [
        *(f"down.{i}.{conv}" for i in range(3) for conv in convs),
        *(name for i in range(2) for name in (f"up.{i}", f"merge.{i}.conv1", f"merge.{i}.conv2")), "head",
    ]  # fmt: skip
    event = next(e for e in read_log(tmp_path / LOG) if e.get("gradients"))
    assert norms[0].tolist() == [event["gradients"][layer] for layer in layers]


def test_a_run_with_report_and_event_files_computes_the_same_bits(tmp_path) -> None:
    pytest.importorskip("tensorboardX", reason="needs the extra 'tensorboard'")
    config = tiny(epochs=3, dropout=0.2, norm="batch")
    run_in(tmp_path / "plain", config)
    reported(tmp_path / "told", config, tensorboard=True)
    assert (tmp_path / "plain" / LAST).read_bytes() == (tmp_path / "told" / LAST).read_bytes()


def stopped_at(folder, config, step: int) -> None:
    def raise_signal(event) -> None:
        if event["event"] == "step" and event["step"] == step:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        reported(folder, config, report=raise_signal)


def test_a_stopped_run_has_its_page_and_the_record_goes_on(tmp_path) -> None:
    config = tiny(epochs=4)
    whole = reported(tmp_path / "whole", config)
    folder, per_epoch = tmp_path / "bits", whole.step // 4
    stopped_at(folder, config, 2 * per_epoch + 1)
    assert f"at step {2 * per_epoch + 1} of {whole.step}" in text_of(folder)
    run, _ = resume(folder)
    train_with_report(run, patterns(TRAINING), patterns([(20, 20)], 9), folder)
    stories = Story(tmp_path / "whole"), Story(folder)
    norms = [story.gradient_norms() for story in stories]
    assert np.array_equal(norms[0][0], norms[1][0]) and np.array_equal(norms[0][2], norms[1][2])
    assert [session["step"] for session in stories[1].sessions] == [0, 2 * per_epoch + 1]
    tiles = [story.examples.tiles for story in stories]
    assert list(tiles[0][0].predictions) == list(tiles[1][0].predictions) == [0, 1, 2, 4]
    for epoch, shown in tiles[0][0].predictions.items():
        assert np.array_equal(shown, tiles[1][0].predictions[epoch])


def test_examples_that_are_damaged_do_not_keep_a_run_from_going_on(tmp_path) -> None:
    config = tiny(epochs=2)
    stopped_at(tmp_path, config, 2)
    (tmp_path / EXAMPLES).write_bytes(b"no zip")
    run, _ = resume(tmp_path)
    train_with_report(run, patterns(TRAINING), patterns([(20, 20)], 9), tmp_path)
    assert list(Story(tmp_path).examples.epochs) == [1, 2]


def test_time_is_that_of_all_sessions_together(tmp_path) -> None:
    events = [(1, 5.0), (2, 9.0), (3, 2.0), (4, 7.0)]
    lines = [{"step": s, "event": "step", "loss": 1, "lr": 1, "steps_in_all": 4, "seconds": t} for s, t in events]
    (tmp_path / LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = {"config": {}, "sessions": [{"step": 0}, {"step": 2}]}
    (tmp_path / RECORD).write_text(json.dumps(record))
    assert Story(tmp_path).seconds() == 9.0 + 7.0


def test_a_run_that_failed_says_why(tmp_path) -> None:
    with pytest.raises(training.NonFiniteError):
        reported(tmp_path, tiny(lr=1e30, momentum=0.0, epochs=9))
    assert "failed after step" in text_of(tmp_path)


def test_the_quickest_of_the_timed_steps_is_kept(tmp_path) -> None:
    from minitorch_unet.profiler import profile

    seconds, record = {3: 0.5, 4: 0.2, 5: 0.9}, {}
    timed = {step: profile() for step in seconds}
    for step, watched in timed.items():
        watched.end = seconds[step]
    keep_profile(tmp_path, record, timed)
    assert (record["profile"]["step"], record["profile"]["seconds"]) == (4, 0.2)
    assert record["profile"]["of"] == [3, 5] and "<svg" in (tmp_path / "step.svg").read_text()


def test_pages_are_written_as_long_as_they_cost_little(tmp_path, monkeypatch) -> None:
    """After epochs of 10 s pages of 0.02 s are always written; one of 1 s only once, and then at the end."""
    written, now = [], [0.0]

    def slow(folder) -> None:
        written.append(now[0])
        now[0] += cost

    monkeypatch.setattr(report_training.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(report_training, "write_report", slow)

    def epoch(event) -> None:
        now[0] += 10.0 if event["event"] == "epoch" else 0.0

    counts = []
    for cost in (0.02, 1.0):
        written.clear()
        reported(tmp_path / str(cost), tiny(epochs=8), report=epoch)
        counts.append(len(written))
    assert counts == [9, 2]


# ------------------------------------------------------------------------------------------------ examples


def test_examples_are_windows_of_the_images_where_classes_mix() -> None:
    dataset = patterns([(500, 400)])
    label = np.zeros((500, 400), np.int64)
    label[300:400, 190:] = 1
    label[:90] = IGNORE
    dataset._cache[0] = dataclasses.replace(dataset[0], label=label)
    tiles = Examples.choose(dataset, lambda sample: sample.label * 2.0).tiles
    assert 2 <= len(tiles) <= 3
    shares = []
    for tile in tiles:
        rows, columns = tile.window
        assert tile.label.shape == (SIZE, SIZE)
        assert np.array_equal(tile.label, label[rows, columns])
        assert np.array_equal(tile.weights, 2 * label[rows, columns])
        assert np.array_equal(tile.image, dataset[0].image[:, rows, columns])
        shares.append((tile.label == 1).sum() / (tile.label != IGNORE).sum())
    assert shares[0] > 0.45 and shares[0] == max(shares)
    covered = np.zeros(label.shape, int)
    for tile in tiles:
        covered[tile.window] += 1
    assert covered.max() == 1


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10])
def test_examples_come_from_images_spread_over_the_data(count) -> None:
    tiles = Examples.choose(patterns([(20, 30)] * count)).tiles
    assert [tile.index for tile in tiles] == {0: [], 1: [0], 2: [0, 1], 3: [0, 1, 2], 10: [0, 4, 9]}[count]


def test_tiles_predicted_alone_equal_those_of_the_whole_image() -> None:
    network = start(tiny(depth=2), patterns(TRAINING), {}).network.eval()
    dataset = patterns([(700, 500)])
    examples = Examples.choose(dataset)
    examples.predict(network, dataset, 1)
    examples.see(0, predict_probabilities(network, dataset[0].image))
    examples.keep(2)
    assert len(examples.tiles) == 3
    for tile in examples.tiles:
        assert np.array_equal(tile.predictions[1], tile.predictions[2])


def test_epochs_are_thinned_out_and_files_hold_all_of_it(tmp_path) -> None:
    examples = Examples.choose(patterns([(20, 30), (25, 20)]), lambda sample: np.ones(sample.label.shape, np.float32))
    rng = np.random.default_rng(0)
    for epoch in range(12):
        for index, shape in enumerate([(20, 30), (25, 20)]):
            probability = rng.uniform(size=shape)
            examples.see(index, np.stack([1 - probability, probability]))
        examples.keep(epoch)
    assert examples.epochs == [0, 1, 2, 4, 8, 11]
    shown = examples.tiles[1].predictions[11]
    assert np.array_equal(shown[1], np.rint(255 * probability)) and np.array_equal(shown[0], probability > 0.5)
    examples.save(tmp_path / EXAMPLES)
    again = Examples.load(tmp_path / EXAMPLES)
    for ours, theirs in zip(examples.tiles, again.tiles, strict=True):
        assert (ours.name, ours.index, ours.corner) == (theirs.name, theirs.index, theirs.corner)
        assert np.array_equal(ours.image, theirs.image) and np.array_equal(ours.weights, theirs.weights)
        assert ours.predictions.keys() == theirs.predictions.keys()
        assert all(np.array_equal(ours.predictions[e], theirs.predictions[e]) for e in ours.predictions)
    again.forget_after(5)
    assert again.epochs == [0, 1, 2, 4]
    (tmp_path / EXAMPLES).write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"examples\.npz: holds no examples of a run"):
        Examples.load(tmp_path / EXAMPLES)
