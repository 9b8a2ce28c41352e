"""Mixed precision in training: `autocast`, and the loss scaling that float16 needs, under PyTorch's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .backend import Scaling, autocast, kernels_for
from .optim import Optimizer
from .tensor import Tensor

__all__ = ["GradScaler", "autocast"]


class GradScaler:
    """Dynamic loss scaling, so that float16 gradients do not vanish (Micikevicius et al. 2018, section 3.2).

    The loss is multiplied by a scale, so that small gradients stay above float16's least number (6e-8); `step` divides
    the weights' float32 gradients by it again, and leaves the update out where one of them is infinite or NaN.
    `update` then multiplies the scale by `backoff_factor`, or by `growth_factor` after `growth_interval` steps without
    such a gradient. All of that happens on the loss's device. bfloat16 has float32's range and needs none of this.

        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    Raises ValueError for a scale that is not positive, and factors on the wrong side of 1.
    """

    def __init__(
        self, init_scale: float = 65536.0, growth_factor: float = 2.0, backoff_factor: float = 0.5,
        growth_interval: int = 2000,
    ) -> None:  # fmt: skip
        if not init_scale > 0:
            raise ValueError(f"GradScaler: init_scale is {init_scale}; it must be above 0")
        if not growth_factor > 1 or not 0 < backoff_factor < 1:
            raise ValueError(
                f"GradScaler: growth_factor is {growth_factor}, backoff_factor {backoff_factor}; the first must be "
                "above 1, the second between 0 and 1"
            )
        if growth_interval < 1:
            raise ValueError(f"GradScaler: growth_interval is {growth_interval}; it must be at least 1")
        self.growth_factor, self.backoff_factor, self.growth_interval = growth_factor, backoff_factor, growth_interval
        self._start = (float(init_scale), 0)  # scale and good steps, until a loss shows where they should be
        self._scaling: Scaling | None = None
        self._checked = False

    def get_scale(self) -> float:
        """The factor in use now. On a GPU the host waits for it."""
        return self._start[0] if self._scaling is None else float(self._scaling.factors[0])

    def inverse_scale(self, tensor: Tensor) -> Any:
        """1 / scale as an array without axes where this Tensor is: nobody waits for a GPU."""
        return self._state_for(tensor).factors[1]

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the scale; call `.backward()` on it."""
        return loss * Tensor(self._state_for(loss).factors[0])

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale now, e.g. to clip them; `step` then does not do it again."""
        scaling = self._state_for(optimizer.params[0])
        if scaling.unscaled:
            raise ValueError("GradScaler.unscale_: the gradients are unscaled already; call update() after each step")
        self._check(optimizer, scaling, unscale=True)

    def step(self, optimizer: Optimizer) -> bool | None:
        """Update the parameters by the unscaled gradients, unless one is not finite; whether it was done.

        On a GPU that is not known yet (None): the device decides, and nobody waits for it.
        """
        scaling = self._state_for(optimizer.params[0])
        if not scaling.unscaled:
            self._check(optimizer, scaling, unscale=False)
        optimizer.step(scaling)
        kernels = kernels_for(scaling.factors)
        return None if kernels.asynchronous else not kernels.overflowed(scaling)

    def update(self) -> None:
        """Lower the scale after an overflow, raise it after enough steps without one."""
        if self._scaling is not None and self._checked:
            how = (self.growth_factor, self.backoff_factor, self.growth_interval)
            kernels_for(self._scaling.factors).adjust_scale(self._scaling, *how)
            self._checked = self._scaling.unscaled = False

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint must keep."""
        good_steps = self._start[1] if self._scaling is None else int(self._scaling.state[1])
        return {"scale": self.get_scale(), "good_steps": good_steps}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Continue from a `state_dict`."""
        self._start, self._scaling = (float(state["scale"]), int(state["good_steps"])), None

    def _check(self, optimizer: Optimizer, scaling: Scaling, unscale: bool) -> None:
        gradients = [p.grad.data for p in optimizer.params if p.grad is not None]
        if gradients:
            kernels_for(gradients[0]).check_gradients(gradients, scaling, unscale)
        scaling.unscaled, self._checked = unscale, True

    def _state_for(self, tensor: Tensor) -> Scaling:
        """The state, in the memory of this Tensor's device."""
        if self._scaling is None:
            self._scaling = Scaling(kernels_for(tensor.data).xp, *self._start)
        return self._scaling
