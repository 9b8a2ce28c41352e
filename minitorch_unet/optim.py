"""Optimisers, learning-rate schedules, gradient clipping. Formulas and defaults are PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .backend import Scaling, kernels_for, to_device, to_numpy, unscaled
from .schedules import Plateau, Schedule, constant, cosine, poly, step_decay, warm_up
from .tensor import Tensor, state

__all__ = [
    "SGD", "Adam", "AdamW", "Optimizer", "Plateau", "RMSprop", "Schedule", "clip_grad_norm_", "clip_grad_value_",
    "constant", "cosine", "grad_norm", "poly", "step_decay", "warm_up",
]  # fmt: skip


class _Ready(NamedTuple):
    """A parameter, its gradient, and what the optimiser keeps of it."""

    p: Tensor
    gradient: Any
    slots: dict[str, Any]


class Optimizer:
    """Changes parameters by their gradients. `lr` may be set at any time; arrays kept per parameter are in `slots`.

    On a GPU all parameters are updated in one launch. Learning rate and number of steps lie in its memory (`clock`), so
    that a recorded step can be played again with other ones; `lr` is written there when it is set, and asking for
    `steps` waits for the device. All parameters are on one device.
    """

    slot_names: tuple[str, ...] = ()
    betas: tuple[float, float] = (0.0, 0.0)

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        self.params = _listed(params)
        name = type(self).__name__
        if not self.params:
            raise ValueError(f"{name}: params is empty; give the parameters to train")
        if len({id(p) for p in self.params}) < len(self.params):
            raise ValueError(f"{name}: params holds a parameter more than once; it would be updated as often")
        _not_negative(name, lr=lr)
        devices = {p.device for p in self.params}
        if len(devices) > 1:
            raise ValueError(f"{name}: params are on the devices {', '.join(sorted(devices))}; they must be on one")
        self._kernels, self._device = kernels_for(self.params[0].data), self.params[0].device
        self.clock = self._kernels.new_clock(lr)
        self.slots = [{name: self._kernels.xp.zeros_like(p.data) for name in self.slot_names} for p in self.params]

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self.clock.lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self.clock.lr = lr

    @property
    def steps(self) -> int:
        """How many updates there have been."""
        return self.clock.steps

    def update(self, p: Any, g: Any, slots: dict[str, Any]) -> None:
        """Change the array p by its gradient g, in place; subclasses define it, or `update_all`."""
        raise NotImplementedError

    def update_all(
        self, params: list[Any], gradients: list[Any], slots: list[dict[str, Any]], scaling: Scaling | None
    ) -> None:
        """Change arrays by their gradients, in place; the step is counted already."""
        if not self._kernels.overflowed(scaling):
            for p, g, own in zip(params, gradients, slots, strict=True):
                self.update(p, unscaled(g, scaling), own)

    def step(self, scaling: Scaling | None = None) -> None:
        """One update of every parameter that has a gradient; `scaling` is what a `GradScaler` hands over.

        Raises ValueError if none has. A backward pass that adds to these gradients afterwards will warn.
        """
        self._check_device()
        both = zip(self.params, self.slots, strict=True)
        ready = [_Ready(p, p.grad.data, slots) for p, slots in both if p.grad is not None]
        if not ready:
            raise ValueError(
                f"{type(self).__name__}: step: none of its {len(self.params)} parameters has a gradient; call "
                "backward() of a loss that depends on them, and zero_grad() before it rather than after"
            )
        self._kernels.count_step(self.clock, self.betas, scaling)
        self._update(ready, scaling)
        for p in self.params:
            if p.grad is not None:
                p.grad._used = True

    def _update(self, ready: list[_Ready], scaling: Scaling | None = None) -> None:
        params, gradients = [item.p.data for item in ready], [item.gradient for item in ready]
        given = (params, gradients, [item.slots for item in ready], scaling)
        if state.profiler is not None:
            state.profiler.run_update(self, self._kernels, *given)
        else:
            self.update_all(*given)
        for item in ready:
            item.p._version[0] += 1

    def backward_and_step(self, loss: Tensor) -> None:
        """`loss.backward()` and `step()` in one: every parameter is updated as soon as its gradient is complete.

        The gradient is then released, so that never all of them are in memory; `.grad` is neither read nor written.
        The result is that of the two calls after `zero_grad()`. On a GPU the gradients are kept until the end, where
        one launch updates all parameters.
        """
        self._check_device()
        self._kernels.count_step(self.clock, self.betas)
        slots = {id(p): s for p, s in zip(self.params, self.slots, strict=True)}
        waiting: list[_Ready] = []

        def update(p: Tensor, gradient: Tensor) -> bool:
            if id(p) in slots:
                waiting.append(_Ready(p, gradient.data, slots[id(p)]))
                if not self._kernels.asynchronous:
                    self._update([waiting.pop()])
            return id(p) in slots

        loss.backward(on_gradient=update)
        if waiting:
            self._update(waiting)

    def _check_device(self) -> None:
        if self.params[0].device != self._device:
            raise ValueError(
                f"{type(self).__name__}: params were on {self._device} when it was made and are on "
                f"{self.params[0].device} now; make the optimiser after moving the module"
            )

    def zero_grad(self) -> None:
        """Forget all gradients; without this, backward adds to those of the last step."""
        for p in self.params:
            p.grad = None

    def state_dict(self) -> dict[str, np.ndarray]:
        """Everything needed to continue: `steps`, `lr`, and `<slot>.<parameter number>` arrays, in host memory."""
        arrays = {
            f"{name}.{i}": np.array(to_numpy(array), order="C")
            for i, slots in enumerate(self.slots)
            for name, array in slots.items()
        }
        return {"steps": np.array(self.steps), "lr": np.array(self.lr), **arrays}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave. Raises ValueError for missing or misshapen entries."""
        for name in ("steps", "lr"):
            if name not in state_dict:
                raise ValueError(f"load_state_dict: {name} is missing")
        for i, slots in enumerate(self.slots):
            for name, array in slots.items():
                value = state_dict.get(f"{name}.{i}")
                if value is None or value.shape != array.shape:
                    found = "nothing" if value is None else f"shape {value.shape}"
                    raise ValueError(f"load_state_dict: {name}.{i}: found {found}, expected shape {array.shape}")
                array[...] = to_device(np.asarray(value, dtype=array.dtype), self.params[i].device)
        self.clock = self._kernels.new_clock(float(state_dict["lr"]), int(state_dict["steps"]))


class SGD(Optimizer):
    """v = momentum v + (1 - dampening) (g + weight_decay p), v = g at the first step; p -= lr v.

    With nesterov p -= lr (g + momentum v). The paper's U-Net: momentum 0.99, one image a step.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
        weight_decay: float = 0.0, nesterov: bool = False,
    ) -> None:  # fmt: skip
        _not_negative("SGD", momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(f"SGD: nesterov needs momentum > 0 and dampening 0, found {momentum} and {dampening}")
        self.momentum, self.dampening, self.weight_decay, self.nesterov = momentum, dampening, weight_decay, nesterov
        self.slot_names = ("velocity",) if momentum else ()
        super().__init__(params, lr)

    def update_all(
        self, params: list[Any], gradients: list[Any], slots: list[dict[str, Any]], scaling: Scaling | None
    ) -> None:
        """See the class."""
        velocities = [own.get("velocity") for own in slots]
        how = (self.clock, self.momentum, self.dampening, self.weight_decay, self.nesterov, scaling)
        self._kernels.sgd_update_all(params, gradients, velocities, *how)


class Adam(Optimizer):
    """p -= lr m' / (sqrt(s') + eps), m and s running means of g and g^2, primes: divided by 1 - beta^step.

    weight_decay adds weight_decay p to g. Kingma and Ba 2015.
    """

    slot_names = ("mean", "square")
    decoupled = False

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        name = type(self).__name__
        _not_negative(name, eps=eps, weight_decay=weight_decay)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"{name}: betas are {betas}; both must be at least 0 and below 1")
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        super().__init__(params, lr)

    def update_all(
        self, params: list[Any], gradients: list[Any], slots: list[dict[str, Any]], scaling: Scaling | None
    ) -> None:
        """See the class."""
        means, squares = ([own[name] for own in slots] for name in ("mean", "square"))
        how = (self.clock, self.betas, self.eps, self.weight_decay, self.decoupled, scaling)
        self._kernels.adam_update_all(params, gradients, means, squares, *how)


class AdamW(Adam):
    """Adam with decoupled weight decay: p *= 1 - lr weight_decay before the step. Loshchilov and Hutter 2019."""

    decoupled = True

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay)


class RMSprop(Optimizer):
    """p -= lr g / (sqrt(s) + eps), s a running mean of g^2 (centered: less the squared mean of g), maybe momentum."""

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False,
    ) -> None:  # fmt: skip
        _not_negative("RMSprop", alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
        self.alpha, self.eps, self.weight_decay, self.momentum = alpha, eps, weight_decay, momentum
        self.slot_names = ("square", *(["mean"] if centered else []), *(["velocity"] if momentum else []))
        super().__init__(params, lr)

    def update(self, p: Any, g: Any, slots: dict[str, Any]) -> None:
        """See the class."""
        kernels_for(p).rmsprop_update(
            p, g, slots["square"], slots.get("mean"), slots.get("velocity"), self.lr,
            self.alpha, self.eps, self.weight_decay, self.momentum,
        )  # fmt: skip


def _listed(params: Iterable[Tensor] | Tensor) -> list[Tensor]:
    """The parameters; a single one, whose rows one could walk as well, is meant as a whole."""
    return [params] if isinstance(params, Tensor) else list(params)


def _not_negative(name: str, **values: float) -> None:
    for argument, value in values.items():
        if not (isinstance(value, int | float) and value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name}: {argument} is {value!r}; it must be a number of at least 0")


# --------------------------------------------------------------------------------------------------- gradients


def grad_norm(params: Iterable[Tensor] | Tensor) -> float:
    """Euclidean norm of all gradients taken as one vector."""
    squares = [(p.grad.data.astype(np.float64) ** 2).sum() for p in _listed(params) if p.grad is not None]
    # Put together before the host looks at them: on a GPU it then waits once.
    return math.sqrt(math.fsum(kernels_for(squares[0]).xp.stack(squares).tolist())) if squares else 0.0


def clip_grad_norm_(params: Iterable[Tensor] | Tensor, max_norm: float) -> float:
    """Scale all gradients together so that their common norm is at most max_norm; return the norm before."""
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm_: max_norm is {max_norm}; it must be above 0")
    params = [p for p in _listed(params) if p.grad is not None]
    norm = grad_norm(params)
    if norm > max_norm:
        for p in params:
            p.grad = _changed(p.grad, "multiply", max_norm / (norm + 1e-6))
    return norm


def clip_grad_value_(params: Iterable[Tensor] | Tensor, clip_value: float) -> None:
    """Limit every single gradient value to -clip_value .. clip_value."""
    if not clip_value > 0:
        raise ValueError(f"clip_grad_value_: clip_value is {clip_value}; it must be above 0")
    for p in _listed(params):
        if p.grad is not None:
            p.grad = _changed(p.grad, "clip", -clip_value, clip_value)


def _changed(gradient: Any, function: str, *numbers: float) -> Tensor:
    """function(gradient, *numbers) in the gradient's memory order, which CuPy would not keep by itself."""
    xp = kernels_for(gradient.data).xp
    return Tensor(getattr(xp, function)(gradient.data, *numbers, out=xp.empty_like(gradient.data)))
