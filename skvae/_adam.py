"""Adam with a learning rate and a weight decay for each model, all of it tensors.

Kingma & Ba, Adam, 2015; the decay is decoupled: Loshchilov & Hutter, 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import accumulate, groupby, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8
_LEAST_RATE = 1e-30  # 0, at the end of a schedule, would divide

# Numbers of which a step by one kernel saves, against operation by operation, what its call takes.
_NUMBERS_A_CALL = 10_000

#: "weights", "first" and "second" moment, each by parameter name, and "n_steps".
AdamState = Mapping[str, Mapping[str, Tensor]]


class Adam:
    """The optimiser of a module whose parameters all have the model axis first.

    It lays the parameters out as one ``(K, P)`` tensor, of which the module's own become
    views, so that a step is one kernel or a few operations in place however many parameters
    there are. All of it is element by element: the models do not see each other.
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
        gradient = torch.zeros_like(weights)
        self._n_planned = n_planned
        flat = _Flat(weights, gradient, self.flat["first"], self.flat["second"])
        self._elementwise = Elementwise(flat, n_planned)
        self._one_kernel = OneKernel(flat) if weights.device.type == "cpu" else None
        self._step = self._elementwise.step
        self._decay = self._kept = None  # (K, P)
        if alpha.any():
            is_weight = [
                torch.full_like(p[0].detach().flatten(), float(name.endswith("weight")))
                for name, p in parameters.items()
            ]
            self._decay = alpha[:, None] * torch.cat(is_weight)
            self._kept = torch.empty_like(self._decay)
        gradients = self._views(gradient)
        for name, view in self._views(weights).items():
            parameters[name].data = view
            parameters[name].grad = gradients[name]

    @property
    def changing(self) -> list[Tensor]:
        """All that a step changes."""
        counts = [] if self._one_kernel is None else [self._one_kernel.counts]
        return [*self.flat.values(), self._elementwise.position, *counts]

    def plan(self, learning_rate: Tensor) -> None:
        """Prepare the next steps; learning_rate (K,). Their count is at once the last one's."""
        count = self.flat["n_steps"]
        if self._one_kernel is not None and self._one_kernel.plan(learning_rate, count[:, 0]):
            self._step = self._one_kernel.step
        else:
            self._elementwise.plan(learning_rate, count[:, 0])
            self._step = self._elementwise.step
        if self._decay is not None:
            torch.sub(1, learning_rate[:, None] * self._decay, out=self._kept)
        count += self._n_planned

    def step(self) -> None:
        """One step along ``grad`` of all parameters, upwards."""
        if self._kept is not None:
            self.flat["weights"].mul_(self._kept)
        self._step()

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


class _Flat(NamedTuple):
    """What a step reads and writes, each ``(K, P)``."""

    weights: Tensor
    gradient: Tensor
    first: Tensor
    second: Tensor


class OneKernel:
    """A step without the decay, by the kernel that torch.optim has for the CPU.

    It reads and writes every number once, which takes a third of the time that the same
    takes operation by operation. The kernel has one rate and one count for each tensor:
    neighbours that are alike in both share a call.
    """

    def __init__(self, flat: _Flat) -> None:
        self._flat = flat
        self.counts = torch.zeros(len(flat.weights), dtype=torch.float32, device="cpu")
        self._calls: list[Callable[[], None]] = []

    def plan(self, learning_rate: Tensor, n_steps: Tensor) -> bool:
        """From so many steps on; False if models differ so that it is not the quicker way."""
        models = zip(learning_rate.tolist(), n_steps.tolist(), strict=True)
        groups = [(rate, len(list(alike))) for (rate, _), alike in groupby(models)]
        if len(groups) > 1 + self._flat.weights.numel() // _NUMBERS_A_CALL:
            return False
        self.counts.copy_(n_steps)
        ends = accumulate((n for _, n in groups), initial=0)
        self._calls = [
            self._call(slice(*pair), rate)
            for pair, (rate, _) in zip(pairwise(ends), groups, strict=True)
        ]
        return True

    def _call(self, models: slice, learning_rate: float) -> Callable[[], None]:
        """A step of some models that are alike, of which one count tells."""
        parts = ([part[models]] for part in self._flat)
        return partial(
            torch.ops.aten._fused_adam_.default,
            *parts,
            [],
            [self.counts[models.start]],
            lr=-learning_rate,  # upwards; `maximize` would keep moments of the opposite sign
            beta1=_BETA_1,
            beta2=_BETA_2,
            weight_decay=0.0,
            eps=_EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def step(self) -> None:
        self.counts += 1
        for call in self._calls:
            call()


class Elementwise:
    """The same operation by operation, by tensors of rates and counts: a graph can read them."""

    def __init__(self, flat: _Flat, n_planned: int) -> None:
        self._flat = flat
        self._scratch = torch.empty_like(flat.weights)
        self._sizes = flat.weights.new_zeros(n_planned, 2, len(flat.weights), 1)
        # Of the next step among those that are planned.
        self.position = torch.zeros(1, dtype=torch.long, device=flat.weights.device)

    def plan(self, learning_rate: Tensor, n_steps: Tensor) -> None:
        """What depends on the number of a step alone is computed for all at once."""
        steps = torch.arange(1, len(self._sizes) + 1, device=n_steps.device)[:, None]
        counts = n_steps.double() + steps  # (T, K)
        correction = (1 - _BETA_2**counts).sqrt()
        rate = learning_rate * correction / (1 - _BETA_1**counts)
        # With these two, a step is first / (stretch * sqrt(second) + epsilon).
        stretch = 1 / rate.clamp(min=_LEAST_RATE)
        self._sizes.copy_(torch.stack((stretch, _EPSILON * correction * stretch), 1)[..., None])
        self.position.zero_()

    def step(self) -> None:
        weights, gradient, first, second = self._flat
        stretch, epsilon = self._sizes.index_select(0, self.position)[0].unbind(0)
        first.lerp_(gradient, 1 - _BETA_1)
        second.mul_(_BETA_2).addcmul_(gradient, gradient, value=1 - _BETA_2)
        torch.sqrt(second, out=self._scratch)
        self._scratch.mul_(stretch).add_(epsilon)
        weights.addcdiv_(first, self._scratch)
        self.position += 1


def at_rest(weights: Mapping[str, Tensor]) -> AdamState:
    """The state before the first step, but for the weights themselves."""
    zeros = {name: torch.zeros_like(t) for name, t in weights.items()}
    n_steps = next(iter(weights.values())).new_zeros(1, 1)
    return {"first": zeros, "second": zeros, "n_steps": {"n_steps": n_steps}}
