"""TensorBoard event files of a run, read back record by record."""

import collections
import io
import json
import signal
import struct
import sys

import numpy as np
import pytest
from PIL import Image
from small_runs import TRAINING, one_thread, patterns, tiny, write_patterns

from minitorch_unet import cli
from minitorch_unet.report import train_with_report
from minitorch_unet.report.story import Story
from minitorch_unet.runs import LOG, read_log, resume, start
from minitorch_unet.train import Interrupted

__all__ = ["one_thread"]

SMALL = ["--base", 2, "--depth", 1, "--tile", 16, "--weights", "none", "--validation", 1, "--epochs", 1]


def read_events(folder) -> list:
    """The events of all files: a record is its length (8 bytes), 4 of checksum, the event, 4 of checksum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="needs the extra 'tensorboard'")
    events = []
    for path in sorted((folder / "tensorboard").iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            events.append(event_pb2.Event.FromString(content[at + 12 : at + 12 + length]))
            at += 16 + length
    return events


def values(folder) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value) of all scalars."""
    found = collections.defaultdict(list)
    for event in read_events(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found[value.tag].append((event.step, value.simple_value))
    return found


def reported(folder, config, **options):
    pytest.importorskip("tensorboardX", reason="needs the extra 'tensorboard'")
    run = start(config, patterns(TRAINING), {"data": "patterns"})
    return train_with_report(run, patterns(TRAINING), patterns([(20, 20)], 9), folder, tensorboard=True, **options)


def expected(folder) -> dict[str, list[tuple[int, float]]]:
    """The same from the log."""
    found = collections.defaultdict(list)
    for event in read_log(folder / LOG):
        if event["event"] == "step":
            found["loss/training"].append((event["step"], event["loss"]))
            found["learning_rate"].append((event["step"], event["lr"]))
            for layer, norm in event.get("gradients", {}).items():
                found[f"gradient_norm/{layer}"].append((event["step"], norm))
        elif event["event"] == "epoch":
            found["loss/validation"].append((event["step"], event["loss"]))
            for name in ("mean_iou", "mean_dice", "pixel_accuracy"):
                found[f"score/{name}"].append((event["step"], event[name]))
    return found


def check(folder) -> None:
    found, wanted = values(folder), expected(folder)
    assert found.keys() == wanted.keys() and "gradient_norm/head" in wanted
    for tag in wanted:
        assert [step for step, _ in found[tag]] == [step for step, _ in wanted[tag]], tag
        np.testing.assert_allclose([v for _, v in found[tag]], [v for _, v in wanted[tag]], rtol=1e-6)


def test_event_files_hold_what_the_log_holds_and_the_examples(tmp_path) -> None:
    run = reported(tmp_path, tiny(epochs=3))
    check(tmp_path)
    images = {}
    for event in read_events(tmp_path):
        for value in event.summary.value:
            if value.HasField("image"):
                images[event.step] = np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)))
                assert value.tag == "example/0"
    assert sorted(images) == [run.step // 3 * epoch for epoch in (1, 2, 3)]
    tile = Story(tmp_path).examples.tiles[0]
    for epoch in (1, 2):
        picture = images[run.step // 3 * epoch]
        height, width = tile.label.shape
        assert picture.shape == (height, 4 * width + 12, 3)
        assert np.array_equal(picture[:, width + 4 : 2 * width + 4, 0], 255 * (tile.label == 1))
        assert np.array_equal(picture[:, 2 * width + 8 : 3 * width + 8, 0], tile.predictions[epoch][1])


def test_a_resumed_run_has_every_step_once(tmp_path) -> None:
    """Killed after steps that the checkpoint does not know: they are in the old event file, and computed again."""

    class Killed(BaseException):
        pass

    config = tiny(epochs=3, save_every=1000)
    per_epoch = reported(tmp_path / "whole", tiny(epochs=1)).step

    def kill(event) -> None:
        if event["event"] == "step" and event["step"] == per_epoch + 2:
            raise Killed

    with pytest.raises(Killed):
        reported(tmp_path / "bits", config, report=kill)
    assert [step for step, _ in values(tmp_path / "bits")["loss/training"]][-1] == per_epoch + 1
    for moment in (2 * per_epoch + 1, None):
        run, _ = resume(tmp_path / "bits")

        def stop(event, moment=moment) -> None:
            if event["step"] == moment:
                signal.raise_signal(signal.SIGINT)

        data = patterns(TRAINING), patterns([(20, 20)], 9)
        if moment is None:
            train_with_report(run, *data, tmp_path / "bits", stop, tensorboard=True)
        else:
            with pytest.raises(Interrupted):
                train_with_report(run, *data, tmp_path / "bits", stop, tensorboard=True)
        check(tmp_path / "bits")
    assert [step for step, _ in values(tmp_path / "bits")["loss/training"]] == list(range(1, 3 * per_epoch + 1))
    times = [event.wall_time for event in read_events(tmp_path / "bits")]
    assert max(times) - min(times) < 3600 and min(times) > 1.6e9


def test_without_the_library_it_is_one_line_before_anything_is_trained(tmp_path, monkeypatch, capsys) -> None:
    data = write_patterns(tmp_path / "data", TRAINING)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    arguments = ["train", "--data", data, "--output", tmp_path / "run", "--tensorboard", *SMALL]
    assert cli.main([str(a) for a in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and not (tmp_path / "run").exists()
    assert "--tensorboard needs the library tensorboardX; pip install 'minitorch-unet[tensorboard]'" in err


def test_the_command_line_writes_them_where_asked_and_only_there(tmp_path, capsys) -> None:
    pytest.importorskip("tensorboardX", reason="needs the extra 'tensorboard'")
    data = write_patterns(tmp_path / "data", TRAINING)
    for name, extra in (("with", ["--tensorboard"]), ("without", [])):
        arguments = ["train", "--data", data, "--output", tmp_path / name, *SMALL, *extra]
        assert cli.main([str(a) for a in arguments]) == 0
    assert not (tmp_path / "without" / "tensorboard").exists()
    check(tmp_path / "with")
    assert json.loads((tmp_path / "with" / "record.json").read_text())["sessions"][0]["step"] == 0
