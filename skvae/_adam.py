"""Adam with a learning rate and a weight decay for each model, all of it tensors.

Kingma & Ba, Adam, 2015; the decay is decoupled: Loshchilov & Hutter, 2019.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8
_LEAST_RATE = 1e-30  # 0, at the end of a schedule, would divide

#: "weights", "first" and "second" moment, each by parameter name, and "n_steps".
AdamState = Mapping[str, Mapping[str, Tensor]]


class Adam:
    """The optimiser of a module whose parameters all have the model axis first.

    It lays the parameters out as one ``(K, P)`` tensor, of which the module's own become
    views, so that a step is a few operations in place however many parameters there
    are. Every operation is element-wise: the models do not see each other.
    """

    def __init__(self, module: nn.Module, alpha: Tensor, n_planned: int) -> None:
        """``alpha`` (K,) is the weight decay of the weights; biases have none.

        ``n_planned`` is the number of steps that ``plan`` prepares.
        """
        parameters = dict(module.named_parameters())
        self._shapes = {name: p.shape for name, p in parameters.items()}
        weights = torch.cat([p.detach().flatten(1) for p in parameters.values()], 1)
        self.flat = {
            "weights": weights,
            "first": torch.zeros_like(weights),
            "second": torch.zeros_like(weights),
            "n_steps": torch.zeros_like(alpha)[:, None],  # (K, 1)
        }
        self._gradient = torch.zeros_like(weights)
        self._scratch = torch.empty_like(weights)
        self._sizes = weights.new_zeros(n_planned, 2, len(alpha), 1)
        self._position = torch.zeros(1, dtype=torch.long, device=weights.device)
        self._decay = self._kept = None  # (K, P)
        if alpha.any():
            is_weight = [
                torch.full_like(p[0].detach().flatten(), float(name.endswith("weight")))
                for name, p in parameters.items()
            ]
            self._decay = alpha[:, None] * torch.cat(is_weight)
            self._kept = torch.empty_like(self._decay)
        gradients = self._views(self._gradient)
        for name, view in self._views(weights).items():
            parameters[name].data = view
            parameters[name].grad = gradients[name]

    @property
    def changing(self) -> list[Tensor]:
        """All that a step changes."""
        return [*self.flat.values(), self._position]

    def plan(self, learning_rate: Tensor) -> None:
        """Prepare the next steps; learning_rate (K,).

        What depends on their number alone is computed for all at once, and their count is
        at once that after the last.
        """
        count = self.flat["n_steps"]
        steps = torch.arange(1, len(self._sizes) + 1, device=count.device)[:, None, None]
        counts = count.double() + steps  # (T, K, 1)
        correction = (1 - _BETA_2**counts).sqrt()
        rate = learning_rate[:, None] * correction / (1 - _BETA_1**counts)
        # With these two, a step is first / (stretch * sqrt(second) + epsilon).
        stretch = 1 / rate.clamp(min=_LEAST_RATE)
        self._sizes.copy_(torch.stack((stretch, _EPSILON * correction * stretch), 1))
        if self._decay is not None:
            torch.sub(1, learning_rate[:, None] * self._decay, out=self._kept)
        count += len(self._sizes)
        self._position.zero_()

    def step(self) -> None:
        """One step along ``grad`` of all parameters, upwards."""
        weights, first, second, _ = self.flat.values()
        gradient, scratch = self._gradient, self._scratch
        stretch, epsilon = self._sizes.index_select(0, self._position)[0].unbind(0)
        first.lerp_(gradient, 1 - _BETA_1)
        second.mul_(_BETA_2).addcmul_(gradient, gradient, value=1 - _BETA_2)
        torch.sqrt(second, out=scratch)
        scratch.mul_(stretch).add_(epsilon)
        if self._kept is not None:
            weights.mul_(self._kept)
        weights.addcdiv_(first, scratch)
        self._position += 1

    def load(self, state: AdamState) -> None:
        """Go on from this state."""
        for name, part in state.items():
            for target, value in zip(
                self._views(self.flat[name]).values(), part.values(), strict=True
            ):
                target.copy_(value)

    def state(self, flat: Mapping[str, Tensor]) -> AdamState:
        """Views of tensors laid out like ``self.flat``, by parameter name."""
        return {name: self._views(part) for name, part in flat.items()}

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        if flat.shape[1] == 1:
            return {"n_steps": flat}
        widths = [shape[1:].numel() for shape in self._shapes.values()]
        parts = zip(flat.split(widths, 1), self._shapes.items(), strict=True)
        return {
            name: part.unflatten(1, shape[1:]) if part.numel() else part.reshape(shape)
            for part, (name, shape) in parts
        }


def at_rest(weights: Mapping[str, Tensor]) -> AdamState:
    """The state before the first step, but for the weights themselves."""
    zeros = {name: torch.zeros_like(t) for name, t in weights.items()}
    n_steps = next(iter(weights.values())).new_zeros(1, 1)
    return {"first": zeros, "second": zeros, "n_steps": {"n_steps": n_steps}}
