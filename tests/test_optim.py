"""Optimisers against plain NumPy formulas, schedules against tables, clipping."""

import math

import numpy as np
import pytest
from on_device import Tensor, array, host

from minitorch_unet import optim
from minitorch_unet.nn import Parameter

STEPS = 6
every_device = pytest.mark.usefixtures("device")


def parameter(values: np.ndarray) -> Parameter:
    return Parameter(array(values))


def gradients(seed: int = 0) -> list[list[np.ndarray]]:
    """For each step the gradients of two parameters, (3, 2) and (4,)."""
    rng = np.random.default_rng(seed)
    return [[rng.normal(size=(3, 2)), rng.normal(size=4)] for _ in range(STEPS)]


def starts() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=(3, 2)), rng.normal(size=4)]


def run(make, steps=None) -> list[np.ndarray]:
    params = [parameter(a.copy()) for a in starts()]
    optimizer = make(params)
    for grads in gradients()[:steps]:
        for p, g in zip(params, grads, strict=True):
            p.grad = Tensor(g.copy())
        optimizer.step()
    return [host(p) for p in params]


# Oracles: PyTorch's documented pseudo code, one value array at a time. (theta, gradients) -> theta.


def sgd(theta, grads, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    buffer = None
    for g in grads:
        g = g + weight_decay * theta
        if momentum:
            buffer = g.copy() if buffer is None else momentum * buffer + (1 - dampening) * g
            g = g + momentum * buffer if nesterov else buffer
        theta = theta - lr * g
    return theta


def adam(theta, grads, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for t, g in enumerate(grads, 1):
        if decoupled:
            theta = theta - lr * weight_decay * theta
        else:
            g = g + weight_decay * theta
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        theta = theta - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
    return theta


def rmsprop(theta, grads, lr, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False):
    v, mean, buffer = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
    for g in grads:
        g = g + weight_decay * theta
        v = alpha * v + (1 - alpha) * g**2
        spread = v
        if centered:
            mean = alpha * mean + (1 - alpha) * g
            spread = v - mean**2
        buffer = momentum * buffer + g / (np.sqrt(spread) + eps)
        theta = theta - lr * buffer
    return theta


CASES = [
    (optim.SGD, sgd, {"lr": 0.1}),
    (optim.SGD, sgd, {"lr": 0.1, "weight_decay": 0.3}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.99}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.2}),
    (optim.Adam, adam, {"lr": 0.1}),
    (optim.Adam, adam, {"lr": 0.1, "betas": (0.5, 0.7), "eps": 0.1, "weight_decay": 0.3}),
    (optim.AdamW, adam, {"lr": 0.1, "weight_decay": 0.3}),
    (optim.RMSprop, rmsprop, {"lr": 0.1}),
    (optim.RMSprop, rmsprop, {"lr": 0.1, "alpha": 0.5, "eps": 0.1, "weight_decay": 0.3}),
    (optim.RMSprop, rmsprop, {"lr": 0.1, "momentum": 0.8, "centered": True}),
]
IDS = [f"{kind.__name__}-{'-'.join(options)}" for kind, _, options in CASES]


@every_device
@pytest.mark.parametrize(("kind", "oracle", "options"), CASES, ids=IDS)
def test_against_the_formula(kind, oracle, options) -> None:
    extra = {"decoupled": True} if kind is optim.AdamW else {}
    for i, (found, theta) in enumerate(zip(run(lambda p: kind(p, **options)), starts(), strict=True)):
        expected = oracle(theta, [step[i] for step in gradients()], **options, **extra)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
        assert abs(found - theta).max() > 0.01


@every_device
def test_adamw_decays_by_a_hundredth_unless_told() -> None:
    expected = adam(starts()[0], [step[0] for step in gradients()], 1e-3, weight_decay=1e-2, decoupled=True)
    np.testing.assert_allclose(run(optim.AdamW)[0], expected, rtol=1e-12)


@every_device
@pytest.mark.parametrize(("kind", "oracle", "options"), CASES, ids=IDS)
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_state_dict_continues_bit_for_bit(kind, oracle, options, stop) -> None:
    whole = run(lambda p: kind(p, **options))
    params = [parameter(a.copy()) for a in run(lambda p: kind(p, **options), stop)]

    def resumed() -> optim.Optimizer:
        before = [parameter(a.copy()) for a in starts()]
        first = kind(before, **options)
        for grads in gradients()[:stop]:
            for p, g in zip(before, grads, strict=True):
                p.grad = Tensor(g.copy())
            first.step()
        second = kind(params, **{**options, "lr": 55.0})
        second.load_state_dict(first.state_dict())
        assert second.lr == options["lr"] and second.steps == stop
        return second

    optimizer = resumed()
    for grads in gradients()[stop:]:
        for p, g in zip(params, grads, strict=True):
            p.grad = Tensor(g.copy())
        optimizer.step()
    assert all(np.array_equal(host(p), w) for p, w in zip(params, whole, strict=True))


@every_device
def test_state_dict_holds_copies() -> None:
    p = parameter(np.ones(2, np.float32))
    optimizer = optim.SGD([p], 0.1, momentum=0.9)
    state = optimizer.state_dict()
    p.grad = Tensor(np.ones(2, np.float32))
    optimizer.step()
    assert state["velocity.0"].tolist() == [0, 0] and int(state["steps"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("velocity.0"), "velocity.0: found nothing, expected shape"),
        (lambda s: s.update({"velocity.0": np.zeros(3)}), r"velocity.0: found shape \(3,\), expected shape \(2,\)"),
        (lambda s: s.pop("steps"), "steps is missing"),
        (lambda s: s.pop("lr"), "lr is missing"),
    ],
)
def test_load_state_dict_names_what_does_not_fit(change, message) -> None:
    optimizer = optim.SGD([parameter(np.ones(2, np.float32))], 0.1, momentum=0.9)
    state = optimizer.state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)


@every_device
def test_a_parameter_without_gradient_stays() -> None:
    p = parameter(np.ones(2, np.float32))
    other = parameter(np.ones(2, np.float32))
    other.grad = Tensor(np.ones(2, np.float32))
    optim.Adam([p, other]).step()
    with pytest.raises(ValueError, match="Adam: step: none of its 1 parameters has a gradient; call backward"):
        optim.Adam([p]).step()
    assert host(p).tolist() == [1, 1]


def test_a_step_between_forward_and_backward_is_noticed() -> None:
    p = parameter(np.ones(2, np.float32))
    p.grad = Tensor(np.ones(2, np.float32))
    loss = (p * p).sum()
    optim.SGD([p], 0.1).step()
    with pytest.raises(ValueError, match="changed in place"):
        loss.backward()


@every_device
def test_zero_grad_and_type() -> None:
    p = parameter(np.ones(2, np.float32))
    p.grad = Tensor(np.ones(2, np.float32))
    optimizer = optim.RMSprop([p], 0.1)
    optimizer.step()
    optimizer.zero_grad()
    assert p.grad is None and p.dtype == np.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.SGD([], 0.1), "SGD: params is empty"),
        (lambda p: optim.SGD(p, -1.0), "SGD: lr is -1.0; it must be a number of at least 0"),
        (lambda p: optim.SGD(p, math.nan), "SGD: lr is nan"),
        (lambda p: optim.SGD(p, momentum=-0.1), "SGD: momentum is -0.1"),
        (lambda p: optim.SGD(p, nesterov=True), "nesterov needs momentum > 0"),
        (lambda p: optim.SGD(p, momentum=0.9, dampening=0.1, nesterov=True), "dampening 0, found 0.9 and 0.1"),
        (lambda p: optim.Adam(p, betas=(0.9, 1.0)), r"Adam: betas are \(0.9, 1.0\)"),
        (lambda p: optim.AdamW(p, eps=-1), "AdamW: eps is -1"),
        (lambda p: optim.RMSprop(p, alpha="a"), "RMSprop: alpha is 'a'"),
    ],
)
def test_wrong_settings_are_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make([parameter(np.ones(1, np.float32))])


# --------------------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (optim.constant(2.0), {0: 2, 99: 2}),
        (optim.step_decay(1.0, 10), {0: 1, 9: 1, 10: 0.1, 19: 0.1, 20: 0.01}),
        (optim.step_decay(1.0, 2, 0.5), {1: 1, 2: 0.5, 5: 0.25}),
        (optim.cosine(1.0, 100), {0: 1, 50: 0.5, 25: (1 + math.sqrt(0.5)) / 2, 100: 0, 150: 0}),
        (optim.cosine(3.0, 10, 1.0), {0: 3, 5: 2, 10: 1, 11: 1}),
        (optim.poly(1.0, 10, 2.0), {0: 1, 5: 0.25, 10: 0, 12: 0}),
        (optim.poly(1.0, 10), {9: 0.1**0.9}),
        (optim.warm_up(optim.constant(1.0), 4), {0: 0.25, 1: 0.5, 3: 1, 4: 1, 100: 1}),
        (optim.warm_up(optim.step_decay(1.0, 2), 4), {0: 0.25, 2: 0.075}),
        (optim.warm_up(optim.constant(1.0), 0), {0: 1}),
    ],
)
def test_schedules(schedule, expected) -> None:
    assert {step: schedule(step) for step in expected} == pytest.approx(expected)


def test_step_decay_refuses_no_steps() -> None:
    with pytest.raises(ValueError, match="step_decay: every is 0"):
        optim.step_decay(1.0, 0)


def test_plateau_min_waits_patience_then_lowers_and_waits_again() -> None:
    plateau = optim.Plateau(1.0, patience=2, factor=0.5)
    rates = [plateau.update(score) for score in (5, 4, 4, 4, 4, 4, 4, 4, 3)]
    assert rates == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_plateau_max_takes_a_rising_score_as_good() -> None:
    plateau = optim.Plateau(1.0, mode="max", patience=0, factor=0.5)
    assert [plateau.update(score) for score in (0.1, 0.2, 0.3, 0.3, 0.2, 0.4)] == [1, 1, 1, 0.5, 0.25, 0.25]


def test_plateau_min_takes_a_rising_score_as_bad() -> None:
    plateau = optim.Plateau(1.0, mode="min", patience=0, factor=0.5)
    assert [plateau.update(score) for score in (0.1, 0.2, 0.3)] == [1, 0.5, 0.25]


def test_plateau_threshold_is_relative_and_the_rate_has_a_floor() -> None:
    plateau = optim.Plateau(1.0, patience=0, threshold=0.1, factor=0.1, minimum=0.05)
    assert plateau.update(10.0) == 1
    assert plateau.update(9.5) == 0.1  # less than 10 % better
    assert plateau.update(8.9) == 0.1
    assert plateau.update(8.9) == 0.05
    assert plateau.update(math.nan) == 0.05


def test_plateau_continues_from_its_state() -> None:
    scores = [3, 2, 2, 2, 1.5, 1.6, 1.7, 1.8]
    whole = optim.Plateau(1.0, patience=1)
    rates = [whole.update(score) for score in scores]
    for stop in range(len(scores)):
        first, second = optim.Plateau(1.0, patience=1), optim.Plateau(9.0, patience=1)
        for score in scores[:stop]:
            first.update(score)
        second.load_state_dict(first.state_dict())
        assert [second.update(score) for score in scores[stop:]] == rates[stop:]


def test_plateau_refuses_an_unknown_mode() -> None:
    with pytest.raises(ValueError, match=r"Plateau: mode is 'mean'; legal are 'min' .* and 'max'"):
        optim.Plateau(1.0, mode="mean")


# ---------------------------------------------------------------------------------------------- clipping


def with_gradients(*arrays) -> list[Parameter]:
    params = [parameter(np.zeros_like(np.asarray(a, np.float32))) for a in arrays]
    for p, a in zip(params, arrays, strict=True):
        p.grad = Tensor(np.asarray(a, np.float32))
    return params


@every_device
def test_clip_grad_norm() -> None:
    params = [*with_gradients([3.0, 0.0], [[4.0]]), parameter(np.zeros(1, np.float32))]
    assert optim.grad_norm(params) == 5
    assert optim.clip_grad_norm_(params, 1.0) == 5
    np.testing.assert_allclose(host(params[0].grad), [0.6, 0], rtol=1e-5)
    np.testing.assert_allclose(host(params[1].grad), [[0.8]], rtol=1e-5)
    assert params[2].grad is None


@every_device
def test_clip_grad_norm_leaves_small_gradients_alone() -> None:
    params = with_gradients([3.0, 4.0])
    assert optim.clip_grad_norm_(iter(params), 5.5) == 5
    assert host(params[0].grad).tolist() == [3, 4]


@every_device
def test_grad_norm_does_not_overflow_in_float32() -> None:
    assert optim.grad_norm(with_gradients([3e30, 4e30])) == pytest.approx(5e30)


@every_device
def test_clip_grad_value() -> None:
    params = with_gradients([3.0, -4.0, 0.5])
    optim.clip_grad_value_(params, 1.0)
    assert host(params[0].grad).tolist() == [1, -1, 0.5]


@pytest.mark.parametrize("clip", [optim.clip_grad_norm_, optim.clip_grad_value_])
@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
def test_clipping_needs_a_limit_above_zero(clip, limit) -> None:
    with pytest.raises(ValueError, match=f"{clip.__name__}: .* must be above 0"):
        clip(with_gradients([1.0]), limit)
