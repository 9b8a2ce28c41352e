"""The report of a run: what it is made from, what it says, and that a run with it computes the same bits."""

import dataclasses
import html.parser
import json
import re
import shutil
import sys

import numpy as np
import pytest
from small_runs import TRAINING, one_thread, patterns, tiny, write_patterns

from minitorch_unet import cli, report
from minitorch_unet.cli.options import opening, source_of
from minitorch_unet.config import TrainConfig
from minitorch_unet.data import IGNORE
from minitorch_unet.errors import DataError
from minitorch_unet.report import PAGE, Report, train_with_report, write_report
from minitorch_unet.report.examples import EXAMPLES
from minitorch_unet.report.record import RECORD
from minitorch_unet.report.story import Story
from minitorch_unet.runs import LOG, read_log, start

__all__ = ["one_thread"]

SMALL = ["--base", 2, "--depth", 1, "--tile", 16, "--weights", "balanced", "--validation", 1]


def call(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


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
    assert options.output == trained.with_name(f"{trained.name}-again")  # this folder holds a run already
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
    shown = pictures.prediction(tile, 1, 3)
    assert len({tuple(c) for c in shown.reshape(-1, 3)}) == 3 and not shown[0, 0].any()
    right, missed, false, ignored = pictures.ERRORS
    expected = [[right, false, right], [missed, ignored, false]]
    assert np.array_equal(pictures.errors(tile, 1), np.array(expected))
    assert pictures.right_share(tile, 1) == pytest.approx(2 / 5)
    assert pictures.strip(tile, 1, 3).shape == (2, 4 * 3 + 3 * 4, 3)


def test_a_notebook_shows_the_same_page_in_a_frame(trained) -> None:
    shown = Report(trained)._repr_html_()
    assert shown.startswith("<iframe ") and 'sandbox=""' in shown
    source = re.search(r'srcdoc="([^"]*)"', shown)
    assert source and html.unescape(source[1]) == Report(trained).html()
    assert "finished" in repr(Report(trained))


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


def test_without_matplotlib_there_is_a_page_all_the_same(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    data = write_patterns(tmp_path / "data", TRAINING)
    assert call("train", "--data", data, "--output", tmp_path / "run", *SMALL, "--epochs", 1) == 0
    assert f"{tmp_path}/run/{PAGE}" in capsys.readouterr().out
    assert '<path class="line' in (tmp_path / "run" / PAGE).read_text(encoding="utf-8")


def test_the_public_names(trained) -> None:
    assert set(report.__all__) == {"PAGE", "Report", "tensorboard_missing", "train_with_report", "write_report"}
    with pytest.raises(DataError, match="no such folder"):
        write_report(trained / "none")
