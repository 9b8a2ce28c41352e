"""Settings: defaults, what is refused, TOML."""

import dataclasses

import pytest

from minitorch_unet import UNet
from minitorch_unet.config import TrainConfig, config_from, read_toml
from minitorch_unet.errors import DataError


def test_defaults_are_the_papers_where_it_says() -> None:
    config = TrainConfig()
    assert (config.base, config.depth, config.padding, config.up) == (64, 4, "valid", "transpose")
    assert (config.batch, config.optimizer, config.momentum, config.start_lr) == (1, "sgd", 0.99, 0.002)
    assert (config.weights, config.border_weight, config.border_sigma) == ("border", 10, 5)


def test_every_setting_has_a_help_text() -> None:
    assert all(field.metadata["help"] for field in dataclasses.fields(TrainConfig))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": 0}, "base is 0; it must be a finite number of at least 1"),
        ({"base": 2.0}, "base is 2.0; it must be of type int"),
        ({"base": True}, "base is True; it must be of type int"),
        ({"flips": 1}, "flips is 1; it must be of type bool"),
        ({"lr": "0.1"}, "lr is '0.1'; it must be of type float"),
        ({"lr": True}, "lr is True; it must be of type float"),
        ({"lr": -0.1}, "lr is -0.1; it must be a finite number of at least 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"border_sigma": 0.0}, "border_sigma is 0.0; it must be a finite number of at least 0.1"),
        ({"dropout": 1.0}, "dropout is 1.0; it must be below 1"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; legal are sgd, adam, adamw, rmsprop"),
        ({"padding": "full"}, "padding is 'full'; legal are valid, same"),
    ],
)
def test_wrong_values_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)


def test_whole_numbers_pass_for_floats() -> None:
    assert TrainConfig(lr=1).lr == 1.0 and type(TrainConfig(lr=1).lr) is float


def test_start_lr_depends_on_the_optimiser_unless_given() -> None:
    assert TrainConfig(optimizer="adam").start_lr == 0.001
    assert TrainConfig(optimizer="adam", lr=0.5).start_lr == 0.5


def test_config_from_names_an_unknown_setting_and_lists_what_exists() -> None:
    with pytest.raises(ValueError, match=r"unknown setting 'epoch'; known are angle, base, .*epochs"):
        config_from({"epoch": 3})
    assert config_from({"epochs": 3}) == TrainConfig(epochs=3)


def test_network_arguments_build_a_network() -> None:
    config = TrainConfig(base=2, depth=1, norm="group", dropout=0.1, up="nearest", padding="same")
    network = UNet(**config.network(3, 4))
    expected = {"in_channels": 3, "num_classes": 4, "base": 2, "depth": 1, "norm": "group", "dropout": 0.1}
    assert expected.items() <= network.config.items()
    assert (network.config["up"], network.config["padding"]) == ("nearest", "same")


def test_toml(tmp_path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('base = 8\nlr = 0.01\nflips = false\npadding = "same"\n', encoding="utf-8")
    assert config_from(read_toml(path)) == TrainConfig(base=8, lr=0.01, flips=False, padding="same")


@pytest.mark.parametrize("content", [b"base = ", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_a_damaged_toml_file_is_named(tmp_path, content) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"run\.toml: cannot be read as TOML"):
        read_toml(path)


def test_a_missing_toml_file_is_named(tmp_path) -> None:
    with pytest.raises(DataError, match=r"none\.toml: cannot be read as TOML"):
        read_toml(tmp_path / "none.toml")
