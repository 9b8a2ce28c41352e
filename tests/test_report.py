"""The report of a run: what it is made from, what it says, and that a run with it computes the same bits."""

import dataclasses
import html.parser
import json
import re
import shutil
import signal
import sys

import numpy as np
import pytest
from small_runs import TRAINING, one_thread, patterns, run_in, tiny, write_patterns

from minitorch_unet import cli, report
from minitorch_unet import train as training
from minitorch_unet.cli.options import opening, source_of
from minitorch_unet.config import TrainConfig
from minitorch_unet.data import IGNORE
from minitorch_unet.errors import DataError
from minitorch_unet.predict import load_network, predict_probabilities
from minitorch_unet.report import PAGE, Report, train_with_report, write_report
from minitorch_unet.report import training as report_training
from minitorch_unet.report.examples import EXAMPLES, SIZE, Examples
from minitorch_unet.report.record import RECORD, keep_profile
from minitorch_unet.report.story import Story
from minitorch_unet.runs import LAST, LOG, read_log, resume, start
from minitorch_unet.train import Interrupted

__all__ = ["one_thread"]

SMALL = ["--base", 2, "--depth", 1, "--tile", 16, "--weights", "balanced", "--validation", 1]


def call(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


def reported(folder, config, **options):
    """`run_in`, with the report."""
    dataset = patterns(TRAINING)
    run = start(config, dataset, {"data": "patterns"})
    return train_with_report(run, dataset, patterns([(20, 20)], 9), folder, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of the command line; only read."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_patterns(folder / "data", TRAINING)
    settings = [*SMALL, "--epochs", 3, "--schedule", "cosine", "--no-flips", "--seed", 7]
    assert call("train", "--data", data, "--output", folder / "run", *settings) == 0
    return folder / "run"


class Reader(html.parser.HTMLParser):
    """Text, tags and addresses of a page; raises for elements that are not closed in their order."""

    EMPTY = ("meta", "link", "img", "br", "path", "rect")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.links, self.text = [], [], [], ""
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += " " + data


# ---------------------------------------------------------------------------------------------------- the page


def test_the_page_needs_nothing_beside_itself_and_is_whole(trained) -> None:
    text = (trained / PAGE).read_text(encoding="utf-8")
    page = Reader(text)
    assert all(link.startswith("data:") for link in page.links) and len(page.links) > 8
    assert "script" not in page.tags
    assert not re.search(r"https?:", text.replace('xmlns="http://www.w3.org/2000/svg"', ""))
    assert len(text) < 2_000_000
    titles = ("Loss", "Scores", "Learning rate", "Norm of the gradient", "Examples over time", "Gradients by layer",
              "Where a step's time goes", "Data", "Settings")  # fmt: skip
    for title in titles:
        assert f"<h2>{title}</h2>" in html.unescape(text)


def test_the_page_tells_the_numbers_of_the_run(trained) -> None:
    text = re.sub(r"\s+", " ", Reader((trained / PAGE).read_text(encoding="utf-8")).text)
    events = read_log(trained / LOG)
    best = max((e for e in events if e["event"] == "epoch"), key=lambda e: e["mean_iou"])
    steps = [e for e in events if e["event"] == "step"]
    assert f"best mean IoU {best['mean_iou']:.4f} (epoch {best['epoch']})" in text
    assert f"finished: {len(steps)} steps" in text and "parameters 434" in text
    labels = [patterns(TRAINING)[i].label for i in (0, 2)]  # 1 is validation
    share = 100 * np.concatenate([label.ravel() for label in labels]).mean()
    assert f"class 1 {share:.1f} %" in text
    assert "24 × 24 (1), 24 × 33 (1)" in text and "30 × 24" in text
    assert "epoch 0: " in text and "epoch 3: " in text
    for layer in ("down.0.conv1", "up.0", "head"):
        assert layer in text
    found = json.loads((trained / RECORD).read_text())["profile"]
    assert f"Step {found['step']}, the quickest of steps 3 to 7, as it trained" in text
    slowest = found["op"][0]
    assert f"{slowest['op']} {slowest['phase']} {slowest['time'] * 1e3:,.1f}" in text
    assert sum(row["time"] for row in found["op"]) <= found["seconds"]
    assert {row["phase"] for row in found["op"]} == {"forward", "backward", "update"}


def test_the_command_computes_the_same_again(trained) -> None:
    """What the page gives for the shell, read by the command line's own parser, is the run's settings and source."""
    story = Story(trained)
    words = story.command().split()
    assert words[0] == "minitorch-unet" and " ".join(words) in Reader((trained / PAGE).read_text()).text
    options = cli.build_parser().parse_args(words[1:])
    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(TrainConfig)}
    config = TrainConfig(**{name: value for name, value in given.items() if value is not None})
    assert dataclasses.asdict(config) == story.config
    source = {"data": str(options.data), **source_of(options)}
    known = {name: value for name, value in story.source.items() if name != "images"}
    assert (opening(story.source) | source).items() >= known.items()
    assert options.threads == story.sessions[0]["threads"] == 1


def test_foreign_text_is_escaped(tmp_path) -> None:
    folder = tmp_path / "a<b>&c"
    dataset = patterns(TRAINING)
    named = patterns([(20, 20)], 9)
    named.entries = (dataclasses.replace(named.entries[0], name="<script>alert(1)</script>"),)
    train_with_report(start(tiny(epochs=1), dataset, {"data": "x"}), dataset, named, folder)
    text = (folder / PAGE).read_text(encoding="utf-8")
    assert "<script>" not in text and "<b>" not in text
    assert "&lt;script&gt;alert(1)" in text and "a&lt;b&gt;&amp;c" in text


def test_more_than_two_classes_are_shown_in_colours() -> None:
    from minitorch_unet.report import pictures
    from minitorch_unet.report.examples import Tile

    label = np.array([[0, 1, 2], [2, IGNORE, 0]], np.int16)
    guess = np.stack([np.array([[0, 2, 2], [0, 1, 1]], np.uint8), np.zeros((2, 3), np.uint8)])
    tile = Tile("t", 0, (0, 0), np.zeros((1, 2, 3), np.float32), label, None, {1: guess})
    assert pictures.class_count(tile) == 3
    shown = pictures.prediction(tile, 1, 3)
    assert len({tuple(c) for c in shown.reshape(-1, 3)}) == 3 and not shown[0, 0].any()
    right, missed, false, ignored = pictures.ERRORS
    expected = [[right, false, right], [missed, ignored, false]]
    assert np.array_equal(pictures.errors(tile, 1), np.array(expected))
    assert pictures.right_share(tile, 1) == pytest.approx(2 / 5)
    assert pictures.strip(tile, 1).shape == (2, 4 * 3 + 3 * 4, 3)


def test_a_notebook_shows_the_same_page_in_a_frame(trained) -> None:
    shown = Report(trained)._repr_html_()
    assert shown.startswith("<iframe ") and 'sandbox=""' in shown
    source = re.search(r'srcdoc="([^"]*)"', shown)
    assert source and html.unescape(source[1]) == Report(trained).html()
    assert "finished" in repr(Report(trained))


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


# ---------------------------------------------------------------------------------------- runs with a report


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
    text = Reader((folder / PAGE).read_text(encoding="utf-8")).text
    assert f"at step {2 * per_epoch + 1} of {whole.step}" in re.sub(r"\s+", " ", text)
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
    assert "failed after step" in Reader((tmp_path / PAGE).read_text(encoding="utf-8")).text


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


def test_without_matplotlib_there_is_a_page_all_the_same(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    data = write_patterns(tmp_path / "data", TRAINING)
    assert call("train", "--data", data, "--output", tmp_path / "run", *SMALL, "--epochs", 1) == 0
    assert f"{tmp_path}/run/{PAGE}" in capsys.readouterr().out
    assert '<path class="line' in (tmp_path / "run" / PAGE).read_text(encoding="utf-8")


# -------------------------------------------------------------------------------------------- the command


def test_report_makes_the_page_anew(trained, tmp_path, capsys) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    before = (folder / PAGE).read_text(encoding="utf-8")
    (folder / PAGE).unlink()
    assert call("report", folder) == 0
    assert capsys.readouterr().out == f"look at {folder}/{PAGE}\n"
    assert (folder / PAGE).read_text(encoding="utf-8").replace(str(folder), str(trained)) == before


def test_a_run_from_before_there_were_reports_gets_what_can_be_said(trained, tmp_path, capsys) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    for name in (RECORD, EXAMPLES, PAGE):
        (folder / name).unlink()
    log = [line for line in (folder / LOG).read_text().splitlines() if '"gradients"' not in line]
    (folder / LOG).write_text("\n".join(log) + "\n")
    assert call("report", folder) == 0
    text = Reader((folder / PAGE).read_text(encoding="utf-8")).text
    assert "best mean IoU" in text and "This run kept none." in text and "This run recorded none." in text
    assert "--schedule cosine" in text


def test_a_folder_without_a_run_is_refused_in_one_line(tmp_path, capsys) -> None:
    for folder, part in ((tmp_path, "holds neither"), (tmp_path / "none", "no such folder")):
        assert call("report", folder) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and part in err and str(folder) in err


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


def test_tiles_predicted_alone_equal_those_of_the_whole_image(trained) -> None:
    network, _ = load_network(trained)
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


def test_the_public_names(trained) -> None:
    assert set(report.__all__) == {"PAGE", "Report", "tensorboard_missing", "train_with_report", "write_report"}
    with pytest.raises(DataError, match="no such folder"):
        write_report(trained / "none")
