"""Adam with a learning rate and a weight decay for each model, all of it tensors.

Kingma & Ba, Adam, 2015; the decay is decoupled: Loshchilov & Hutter, 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8
_LEAST_RATE = 1e-30  # 0, at the end of a schedule, would divide

# Numbers of which a step by one kernel saves, against operation by operation, what it takes to be
# told of one more tensor.
_NUMBERS_A_TENSOR = 1_000

#: "weights", "first" and "second" moment, each by parameter name, and "n_steps".
AdamState = Mapping[str, Mapping[str, Tensor]]


class Adam:
    """The optimiser of a module whose parameters all have the model axis first.

    It lays the parameters out in one tensor, of which the module's own become views, so that
    a step is one kernel or a few operations in place however many parameters there are. On a
    GPU it is ``(K, P)``: an operation reaches all of them with a number for each model. On the
    CPU one parameter comes after the other, each of them ``(K, ...)`` in one piece, since no
    product is written there between the models. All of it is element by element: the models
    do not see each other.
    """

    def __init__(self, module: nn.Module, alpha: Tensor, n_planned: int) -> None:
        """``alpha`` (K,) is the weight decay of the weights; biases have none.

        ``n_planned`` is the number of steps that ``plan`` prepares.
        """
        parameters = dict(module.named_parameters())
        self._shapes = {name: p.shape for name, p in parameters.items()}
        self._widths = [shape[1:].numel() for shape in self._shapes.values()]
        n_models, is_on_cpu = len(alpha), alpha.device.type == "cpu"
        size = n_models * sum(self._widths)
        weights = alpha.new_zeros(size if is_on_cpu else (n_models, sum(self._widths)))
        self.flat = {
            "weights": weights,
            "first": torch.zeros_like(weights),
            "second": torch.zeros_like(weights),
            "n_steps": torch.zeros_like(alpha)[:, None],  # (K, 1)
        }
        gradient = torch.zeros_like(weights)
        self._n_planned = n_planned
        flat = _Flat(weights, gradient, self.flat["first"], self.flat["second"])
        self._elementwise = Elementwise(flat, self._blocks, n_models, n_planned)
        self._one_kernel = OneKernel(flat, self._blocks, n_models) if is_on_cpu else None
        self._step = self._elementwise.step
        self._decay: list[Tensor] = []  # blocks like those of the weights
        self._kept: Tensor | None = None
        if alpha.any():
            decay, self._kept = torch.zeros_like(weights), torch.empty_like(weights)
            for name, view in self._views(decay).items():
                if name.endswith("weight"):
                    view += alpha.view(-1, *[1] * (view.ndim - 1))
            self._decay = self._blocks(decay)
        gradients = self._views(gradient)
        for name, view in self._views(weights).items():
            view.copy_(parameters[name].detach())
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
        if self._kept is not None:
            for kept, decay in zip(self._blocks(self._kept), self._decay, strict=True):
                torch.sub(1, learning_rate[:, None] * decay, out=kept)
        count += self._n_planned

    def step(self) -> None:
        """One step along ``grad`` of all parameters, upwards."""
        if self._kept is not None:
            self.flat["weights"].mul_(self._kept)
        self._step()

    def keep(self, of_models: Sequence[bool], kept: Mapping[str, Tensor]) -> None:
        """Have ``kept``, laid out like ``self.flat``, hold these models as they are now."""
        if all(of_models):
            for name, part in self.flat.items():
                kept[name].copy_(part)
            return
        mask = torch.tensor(of_models, device=self.flat["weights"].device)[:, None]
        for name, part in self.flat.items():
            for new, old in zip(self._blocks(part), self._blocks(kept[name]), strict=True):
                torch.where(mask, new, old, out=old)

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
        if flat.shape[1:] == (1,):
            return {"n_steps": flat}
        blocks = self._blocks(flat) if flat.ndim == 1 else flat.split(self._widths, 1)
        parts = zip(blocks, self._shapes.items(), strict=True)
        return {
            name: part.unflatten(1, shape[1:]) if part.numel() else part.reshape(shape)
            for part, (name, shape) in parts
        }

    def _blocks(self, flat: Tensor) -> list[Tensor]:
        """What an operation with a number for each model can be done to, (K, ...) each."""
        if flat.ndim == 2:
            return [flat]
        n_models = len(self.flat["n_steps"])
        parts = flat.split([n_models * width for width in self._widths])
        return [part.view(n_models, w) for part, w in zip(parts, self._widths, strict=True)]


class _Flat(NamedTuple):
    """What a step reads and writes, each ``(K, P)`` or ``(K P,)``."""

    weights: Tensor
    gradient: Tensor
    first: Tensor
    second: Tensor


#: Of one of these, views with the model axis first.
_Blocks = Callable[[Tensor], list[Tensor]]


class OneKernel:
    """A step without the decay, by the kernel that torch.optim has for the CPU.

    It reads and writes every number once, which takes a third of the time that the same
    takes operation by operation. A call of it has one rate, and of each tensor one count:
    models that are alike in both share a call, and neighbours among them a tensor.
    """

    def __init__(self, flat: _Flat, blocks: _Blocks, n_models: int) -> None:
        self._flat, self._blocks = flat, [blocks(part) for part in flat]
        self.counts = torch.zeros(n_models, dtype=torch.float32, device="cpu")
        self._calls: list[Callable[[], None]] = []

    def plan(self, learning_rate: Tensor, n_steps: Tensor) -> bool:
        """From so many steps on; False if models differ so that it is not the quicker way."""
        kinds = list(zip(learning_rate.tolist(), n_steps.tolist(), strict=True))
        groups: dict[tuple[float, float], list[slice]] = {}
        for kind, alike in groupby(range(len(kinds)), kinds.__getitem__):
            first, *others = alike
            groups.setdefault(kind, []).append(slice(first, first + 1 + len(others)))
        n_tensors = len(self._blocks[0]) * sum(map(len, groups.values()))
        if len(groups) > 1 and n_tensors * _NUMBERS_A_TENSOR > self._flat.weights.numel():
            return False
        self.counts.copy_(n_steps)
        self._calls = [self._call(neighbours, rate) for (rate, _), neighbours in groups.items()]
        return True

    def _call(self, models: Sequence[slice], learning_rate: float) -> Callable[[], None]:
        """A step of some models that are alike, of which one count tells."""
        parts = [[part] for part in self._flat]  # all models in one tensor
        if models[0].stop - models[0].start < len(self.counts):
            parts = [
                [block[some] for block in blocks for some in models] for blocks in self._blocks
            ]
        return partial(
            torch.ops.aten._fused_adam_.default,
            *parts,
            [],
            [self.counts[models[0].start]] * len(parts[0]),
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
    """A step without the decay, one operation after the other.

    Rates and counts are tensors, which a graph can read.
    """

    def __init__(self, flat: _Flat, blocks: _Blocks, n_models: int, n_planned: int) -> None:
        self._flat = flat
        self._scratch = torch.empty_like(flat.weights)
        self._scratch_blocks = blocks(self._scratch)
        self._sizes = flat.weights.new_zeros(n_planned, 2, n_models, 1)
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
        for block in self._scratch_blocks:
            block.mul_(stretch).add_(epsilon)
        weights.addcdiv_(first, self._scratch)
        self.position += 1


def at_rest(weights: Mapping[str, Tensor]) -> AdamState:
    """The state before the first step, but for the weights themselves."""
    zeros = {name: torch.zeros_like(t) for name, t in weights.items()}
    n_steps = next(iter(weights.values())).new_zeros(1, 1)
    return {"first": zeros, "second": zeros, "n_steps": {"n_steps": n_steps}}
