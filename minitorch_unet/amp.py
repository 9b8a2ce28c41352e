"""Mixed precision in training: `autocast`, and the loss scaling that float16 needs, under PyTorch's names."""

from __future__ import annotations

from collections.abc import Mapping

from .backend import autocast, kernels_for
from .optim import Optimizer
from .tensor import Tensor

__all__ = ["GradScaler", "autocast"]


class GradScaler:
    """Dynamic loss scaling, so that float16 gradients do not vanish (Micikevicius et al. 2018, section 3.2).

    The loss is multiplied by a scale, so that small gradients stay above float16's least number (6e-8); `step` divides
    the weights' float32 gradients by it again, and leaves the update out where one of them is infinite or NaN.
    `update` then multiplies the scale by `backoff_factor`, or by `growth_factor` after `growth_interval` steps without
    such a gradient. bfloat16 has float32's range and needs none of this.

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
        self._scale = float(init_scale)
        self.growth_factor, self.backoff_factor, self.growth_interval = growth_factor, backoff_factor, growth_interval
        self._good_steps = 0
        self._overflowed = False
        self._unscaled = False

    def get_scale(self) -> float:
        """The factor in use now."""
        return self._scale

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the scale; call `.backward()` on it."""
        return loss * self._scale

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale now, e.g. to clip them; `step` then does not do it again."""
        if self._unscaled:
            raise ValueError("GradScaler.unscale_: the gradients are unscaled already; call update() after each step")
        gradients = [p.grad.data for p in optimizer.params if p.grad is not None]
        if gradients:
            self._overflowed = not kernels_for(gradients[0]).unscale(gradients, 1 / self._scale)
        self._unscaled = True

    def step(self, optimizer: Optimizer) -> bool:
        """Unscale the gradients and update the parameters, unless a gradient is not finite; whether it was done."""
        if not self._unscaled:
            self.unscale_(optimizer)
        if not self._overflowed:
            optimizer.step()
        return not self._overflowed

    def update(self) -> None:
        """Lower the scale after an overflow, raise it after enough steps without one."""
        if self._overflowed:
            self._scale, self._good_steps = self._scale * self.backoff_factor, 0
        elif self._unscaled:
            self._good_steps += 1
            if self._good_steps == self.growth_interval:
                self._scale, self._good_steps = self._scale * self.growth_factor, 0
        self._overflowed = self._unscaled = False

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint must keep."""
        return {"scale": self._scale, "good_steps": self._good_steps}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Continue from a `state_dict`."""
        self._scale, self._good_steps = float(state["scale"]), int(state["good_steps"])
