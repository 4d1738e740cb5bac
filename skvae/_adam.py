"""Adam with a learning rate and a weight decay for each model, all of it tensors.

Kingma & Ba, Adam, 2015; the decay is decoupled: Loshchilov & Hutter, 2019.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8

#: "weights", "first" and "second" moment, each by parameter name, and "n_steps".
AdamState = Mapping[str, Mapping[str, Tensor]]


class Adam:
    """The optimiser of a module whose parameters all have the model axis first.

    It lays the parameters out as one ``(K, P)`` tensor, of which the module's own become
    views, so that a step is a few operations in place however many parameters there
    are. Every operation is element-wise: the models do not see each other.
    """

    def __init__(self, module: nn.Module, alpha: Tensor) -> None:
        """``alpha`` (K,) is the weight decay of the weights; biases have none."""
        parameters = dict(module.named_parameters())
        self._shapes = {name: p.shape for name, p in parameters.items()}
        weights = torch.cat([p.detach().flatten(1) for p in parameters.values()], 1)
        self.flat = {
            "weights": weights,
            "first": torch.zeros_like(weights),
            "second": torch.zeros_like(weights),
            "n_steps": torch.zeros_like(alpha)[:, None],  # (K, 1)
        }
        self._gradients = torch.zeros_like(weights)
        self._scratch = torch.empty_like(weights)
        self._decay: Tensor | None = None  # (K, P)
        if alpha.any():
            is_weight = [
                torch.full_like(p[0].detach().flatten(), float(name.endswith("weight")))
                for name, p in parameters.items()
            ]
            self._decay = alpha[:, None] * torch.cat(is_weight)
        self._parameters = list(parameters.values())
        for parameter, view in zip(self._parameters, self._views(weights).values(), strict=True):
            parameter.data = view

    def step(self, loss: Tensor, learning_rate: Tensor) -> None:
        """One step down ``loss``, a scalar; learning_rate (K,)."""
        # Not backward(): gradients accumulated into views of one tensor cost the same
        # pass, and PyTorch warns of their strides.
        found = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
        torch.cat([gradient.flatten(1) for gradient in found], 1, out=self._gradients)
        self._descend(learning_rate)

    @torch.no_grad()
    def _descend(self, learning_rate: Tensor) -> None:
        weights, first, second, n_steps = self.flat.values()
        gradients, scratch = self._gradients, self._scratch
        n_steps += 1
        rate = learning_rate[:, None] / (1 - _BETA_1**n_steps)
        correction = (1 - _BETA_2**n_steps).sqrt()
        first.lerp_(gradients, 1 - _BETA_1)
        second.mul_(_BETA_2).addcmul_(gradients, gradients, value=1 - _BETA_2)
        torch.sqrt(second, out=scratch)
        scratch.div_(correction).add_(_EPSILON)
        torch.div(first, scratch, out=scratch)
        if self._decay is not None:
            weights.mul_(1 - learning_rate[:, None] * self._decay)
        weights.sub_(scratch.mul_(rate))

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
