"""Modules: what they hold, save, print and how they start."""

import math

import numpy as np
import pytest
from on_device import Tensor, host

from minitorch_unet import NonFiniteError, UNet, detect_anomaly, manual_seed, nn
from minitorch_unet import functional as F

every_device = pytest.mark.usefixtures("device")


class Block(nn.Module):
    def __init__(self) -> None:
        self.second = nn.Linear(2, 3)
        self.first = nn.Linear(3, 2, bias=False)
        self.layers = [nn.BatchNorm2d(2), (nn.ReLU()), nn.Linear(1, 1)]
        self.scale = nn.Parameter(np.ones(1, np.float32))
        self.counter = Tensor(np.zeros(1, np.float32))
        self.again = self.second


NAMES = [
    "scale", "second.weight", "second.bias", "first.weight", "layers.0.weight", "layers.0.bias", "layers.2.weight",
    "layers.2.bias",
]  # fmt: skip


def test_parameters_are_named_in_the_order_in_which_they_were_set_and_shared_ones_once() -> None:
    block = Block()
    assert [name for name, _ in block.named_parameters()] == NAMES
    assert block.parameter_count() == 1 + 9 + 6 + 4 + 2
    assert [id(p) for p in block.parameters()] == [id(p) for _, p in block.named_parameters()]


def test_a_parameter_under_two_names_in_one_module_counts_once() -> None:
    module = nn.Module()
    module.a = nn.Parameter(np.ones(2, np.float32))  # type: ignore[attr-defined]
    module.b = module.a  # type: ignore[attr-defined]
    assert [name for name, _ in module.named_parameters()] == ["a"]
    assert module.parameter_count() == 2


def test_buffers_are_the_other_tensors() -> None:
    assert [n for n, _ in Block().named_buffers()] == ["counter", "layers.0.running_mean", "layers.0.running_var"]


def test_modules_in_lists_and_tuples_are_children() -> None:
    module = nn.Module()
    module.several = (nn.ReLU(), 3, nn.Tanh())  # type: ignore[attr-defined]
    assert [name for name, _ in module.named_children()] == ["several.0", "several.2"]
    assert [name for name, _ in module.named_modules()] == ["", "several.0", "several.2"]


def test_a_module_built_inside_forward_is_not_registered_and_refused() -> None:
    class Careless(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.Linear(2, 2)(x)

    module = Careless()
    with pytest.raises(ValueError, match=r"Careless: parameters of shape \(2, 2\), \(2,\) were made inside forward"):
        module(Tensor(np.ones((1, 2), np.float32)))
    assert module.parameters() == []


def test_a_module_without_forward_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Block defines no forward"):
        Block()(1)


# ------------------------------------------------------------------------------------------------- state


def test_state_dict_holds_contiguous_copies(device) -> None:
    conv = nn.Conv2d(2, 3, 3).to(device)
    state = conv.state_dict()
    assert list(state) == ["weight", "bias"]
    assert state["weight"].shape == (3, 2, 3, 3)
    assert state["weight"].flags.c_contiguous and not host(conv.weight).flags.c_contiguous
    before = host(conv.weight).copy()
    state["weight"][:] = 7
    assert np.array_equal(host(conv.weight), before)


def test_state_dict_round_trip_with_buffers(device) -> None:
    one, two = nn.BatchNorm2d(3).to(device), nn.BatchNorm2d(3).to(device)
    one(Tensor(np.random.default_rng(0).normal(2, 3, (4, 3, 5, 5)).astype(np.float32)))
    array = two.running_mean.data
    two.load_state_dict(one.state_dict())
    assert two.running_mean.data is array  # copied in: an optimiser's references stay good
    for name, value in one.state_dict().items():
        assert np.array_equal(two.state_dict()[name], value)
    assert abs(host(two.running_mean)).max() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("bias"), "load_state_dict: bias is missing"),
        (lambda s: s.update(other=np.zeros(1)), "load_state_dict: other is unknown"),
        (lambda s: s.update(bias=np.zeros(4)), r"load_state_dict: bias has shape \(4,\), expected \(3,\)"),
    ],
)
def test_load_state_dict_is_strict_and_changes_nothing_on_error(change, message) -> None:
    conv = nn.Conv2d(2, 3, 3)
    state = {name: value + 1 for name, value in conv.state_dict().items()}
    before = conv.state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        conv.load_state_dict(state)
    assert all(np.array_equal(value, conv.state_dict()[name]) for name, value in before.items())


def test_load_state_dict_not_strict_takes_what_fits_but_never_a_wrong_shape(device) -> None:
    conv = nn.Conv2d(1, 1, 1).to(device)
    conv.load_state_dict({"bias": np.array([5.0]), "unknown": np.zeros(3)}, strict=False)
    assert host(conv.bias).tolist() == [5.0] and conv.bias.dtype == np.float32
    with pytest.raises(ValueError, match="bias has shape"):
        conv.load_state_dict({"bias": np.zeros(2)}, strict=False)


def test_load_state_dict_lists_a_few_faults_and_counts_the_rest() -> None:
    with pytest.raises(ValueError, match=r"and \d+ more"):
        UNet(base=1, depth=1).load_state_dict({})


def test_loading_between_forward_and_backward_is_noticed(device) -> None:
    layer = nn.Linear(2, 2).to(device)
    loss = layer(Tensor(np.ones((1, 2), np.float32), requires_grad=True)).sum()
    layer.load_state_dict(layer.state_dict())
    with pytest.raises(ValueError, match="changed in place"):
        loss.backward()


# ------------------------------------------------------------------------------------------------- modes


@every_device
def test_train_and_eval_reach_every_module() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    assert model.training
    assert model.eval() is model
    assert not any(module.training for _, module in model.named_modules())
    x = Tensor(np.ones((2, 50), np.float32))
    assert np.array_equal(host(model(x)), host(x))
    model.train()
    assert set(np.unique(host(model(x)))) == {0.0, 4.0}


def test_zero_grad_forgets_and_backward_adds(device) -> None:
    layer = nn.Linear(2, 1).to(device)
    x = Tensor(np.array([[1.0, 2.0]], np.float32))
    layer(x).sum().backward()
    layer(x).sum().backward()
    assert host(layer.weight.grad).tolist() == [[2.0, 4.0]]
    layer.zero_grad()
    assert all(p.grad is None for p in layer.parameters())


def test_to_changes_the_type_of_parameters_and_buffers() -> None:
    model = nn.BatchNorm2d(2).to(np.float64)
    assert {t.dtype for t in (*model.parameters(), *dict(model.named_buffers()).values())} == {np.dtype(np.float64)}


def test_repr_is_a_tree_with_shapes_and_counts() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Sequential(nn.ReLU(), nn.Linear(2, 3)))
    assert repr(model.eval()).splitlines() == [
        "Sequential  [29]",
        "  0: Conv2d(stride=1, padding=1, dilation=1, groups=1)  weight (2, 1, 3, 3), bias (2,)  [20]",
        "  1: Sequential()  [9]",
        "    0: ReLU()",
        "    1: Linear()  weight (3, 2), bias (3,)  [9]",
    ]


# -------------------------------------------------------------------------------------- initial weights


@pytest.mark.parametrize(
    ("module", "incoming"),
    [
        (lambda: nn.Conv2d(64, 32, 3), 64 * 9),
        (lambda: nn.Conv2d(64, 64, 3, groups=4), 16 * 9),
        (lambda: nn.Conv2d(512, 32, 1), 512),
        (lambda: nn.ConvTranspose2d(128, 64, 2, 2), 128),
        (lambda: nn.ConvTranspose2d(32, 16, 4, 2), 32 * 4),
        (lambda: nn.Linear(300, 200), 300),
    ],
)
def test_he_initialisation(module, incoming) -> None:
    manual_seed(1)
    made = module()
    weight = host(made.weight).astype(np.float64)
    expected = math.sqrt(2 / incoming)
    # The standard error of a standard deviation of n values is about sd / sqrt(2 n); five of them.
    assert weight.std() == pytest.approx(expected, rel=5 / math.sqrt(2 * weight.size))
    assert abs(weight.mean()) < 5 * expected / math.sqrt(weight.size)
    assert not host(made.bias).any()


def test_manual_seed_repeats_weights_and_dropout() -> None:
    def drawn(seed: int) -> list[np.ndarray]:
        manual_seed(seed)
        weight = host(nn.Conv2d(2, 2, 3).weight)
        return [weight, host(F.dropout(Tensor(np.ones(100, np.float32))))]

    assert all(np.array_equal(a, b) for a, b in zip(drawn(3), drawn(3), strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(drawn(3), drawn(4), strict=True))


@pytest.mark.parametrize("seed", [-1, 1.5, "x"])
def test_manual_seed_refuses(seed) -> None:
    with pytest.raises(ValueError, match="manual_seed: seed is"):
        manual_seed(seed)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("arguments", [(3, 4, 3, 2), (4, 3, 3, 2), (0, 2, 3, 1), (2, 0, 3, 1)])
def test_illegal_groups_and_channels_are_refused_when_built(kind, arguments) -> None:
    inside, outside, kernel, groups = arguments
    with pytest.raises(ValueError, match=f"{kind.__name__}: in_channels {inside}, out_channels {outside}"):
        kind(inside, outside, kernel, groups=groups)


# ------------------------------------------------------------------------------------------- anomaly mode


def test_anomaly_mode_names_the_module_in_forward() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            self.conv1, self.conv2 = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv2(self.conv1(x))

    class Net(nn.Module):
        def __init__(self) -> None:
            self.down = [Pair(), Pair()]

        def forward(self, x: Tensor) -> Tensor:
            return self.down[1](self.down[0](x))

    model = Net()
    for p in model.parameters():
        p.data[...] = 1
    model.down[1].conv1.weight.data[...] = 3e37
    x = Tensor(np.full((1, 1, 20, 20), 1e5, np.float32))
    with (
        np.errstate(all="ignore"),
        detect_anomaly(),
        pytest.raises(NonFiniteError, match=r"'conv2d' in module 'down\.1\.conv1' is inf at element \[0, 0, 0, 0\]"),
    ):
        model(x)


def test_anomaly_mode_names_the_block_of_a_unet(device) -> None:
    model = UNet(base=1, depth=1).to(device)
    model.down[0].conv1.weight.data[...] = 3e37
    x = Tensor(np.full((1, 1, 20, 20), 1e5, np.float32))
    with (
        np.errstate(all="ignore"),
        detect_anomaly(),
        pytest.raises(NonFiniteError, match=r"in module 'down\.0(\.conv1)?' is"),
    ):
        model(x)


@every_device
def test_anomaly_mode_names_the_module_of_a_gradient() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            self.inner = [nn.Sequential(Sqrt())]

        def forward(self, x: Tensor) -> Tensor:
            return self.inner[0](x)

    class Sqrt(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.sqrt(x)

    x = Tensor(np.array([1.0, 0.0], np.float32), requires_grad=True)
    with np.errstate(all="ignore"), detect_anomaly():
        y = Root()(x).sum()
        with pytest.raises(NonFiniteError, match=r"gradient of 'sqrt' in module 'inner\.0\.0' is inf at element \[1\]"):
            y.backward()


# ------------------------------------------------------------------- modules compute what functions compute

X = np.random.default_rng(5).normal(size=(2, 4, 6, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (nn.Conv2d(4, 2, 3, 2, 1), lambda m, x: F.conv2d(x, m.weight, m.bias, 2, 1)),
        (nn.Conv2d(4, 4, 3, dilation=2, groups=2, bias=False), lambda m, x: F.conv2d(x, m.weight, None, 1, 0, 2, 2)),
        (
            nn.ConvTranspose2d(4, 2, 3, 2, 1, 1, dilation=2),
            lambda m, x: F.conv_transpose2d(x, m.weight, m.bias, 2, 1, 1, 1, 2),
        ),
        (nn.Linear(6, 5), lambda m, x: F.linear(x, m.weight, m.bias)),
        (nn.MaxPool2d(3, 1, 1), lambda m, x: F.max_pool2d(x, 3, 1, 1)),
        (nn.MaxPool2d(2), lambda m, x: F.max_pool2d(x, 2, 2)),
        (nn.AvgPool2d(3, 2, 1), lambda m, x: F.avg_pool2d(x, 3, 2, 1)),
        (nn.Upsample(2, "bilinear"), lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear")),
        (nn.GroupNorm(2, 4), lambda m, x: F.group_norm(x, 2)),
        (nn.InstanceNorm2d(4), lambda m, x: F.instance_norm(x)),
        (nn.LayerNorm((6, 6)), lambda m, x: F.layer_norm(x, (6, 6))),
        (nn.BatchNorm2d(4), lambda m, x: F.batch_norm(x, None, None, training=True)),
        (nn.ReLU(), lambda m, x: F.relu(x)),
        (nn.LeakyReLU(0.2), lambda m, x: F.leaky_relu(x, 0.2)),
        (nn.Sigmoid(), lambda m, x: F.sigmoid(x)),
        (nn.Tanh(), lambda m, x: F.tanh(x)),
        (nn.SiLU(), lambda m, x: F.silu(x)),
        (nn.GELU("tanh"), lambda m, x: F.gelu(x, "tanh")),
    ],
    ids=lambda value: value.describe() if isinstance(value, nn.Module) else "",
)
def test_a_module_hands_its_settings_on(module, function, device) -> None:
    module.to(device)
    x = Tensor(X)
    assert np.allclose(host(module(x)), host(function(module, x)), rtol=0, atol=1e-6)


def test_batch_norm_in_eval_uses_the_running_values(device) -> None:
    module = nn.BatchNorm2d(4).to(device)
    x = Tensor(X)
    module(x)
    mean, variance = host(module.running_mean), host(module.running_var)
    assert np.allclose(mean, 0.1 * X.mean((0, 2, 3)), atol=1e-6)
    expected = (X - mean.reshape(1, 4, 1, 1)) / np.sqrt(variance.reshape(1, 4, 1, 1) + 1e-5)
    assert np.allclose(host(module.eval()(x)), expected, atol=1e-5)
    assert np.array_equal(host(module.running_mean), mean)


@every_device
def test_dropout_draws_from_its_own_generator() -> None:
    x = Tensor(np.ones(64, np.float32))
    one, two = (host(nn.Dropout(0.3, np.random.default_rng(9))(x)) for _ in range(2))
    assert np.array_equal(one, two)
