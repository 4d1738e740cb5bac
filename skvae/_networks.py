"""Networks with the model axis: K independent networks of one shape, run as one.

Axes: ``(K, M, I)`` = models, rows (of all draws), inputs. Every parameter has K first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class Activation(NamedTuple):
    """A function with act(0) = 0, so that padded units stay silent.

    ``backward(g, u)`` is g act'(u), by the kernel that PyTorch's own gradient uses. The gain
    keeps the variance of N(0, 1) inputs through a layer: 1 / E[act(u)^2]^(1/2).
    """

    function: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    gain: float


_aten = torch.ops.aten

ACTIVATIONS: dict[str, Activation] = {
    "silu": Activation(functional.silu, _aten.silu_backward.default, 1.68),
    "relu": Activation(
        functional.relu, lambda g, u: _aten.threshold_backward.default(g, u, 0), 1.41
    ),
    "tanh": Activation(
        torch.tanh, lambda g, u: _aten.tanh_backward.default(g, torch.tanh(u)), 1.59
    ),
    "gelu": Activation(functional.gelu, _aten.gelu_backward.default, 1.53),
    "elu": Activation(
        functional.elu, lambda g, u: _aten.elu_backward.default(g, 1, 1, 1, False, u), 1.25
    ),
}


class Linear(nn.Module):
    """y = x W + b for each of K models; the outputs may have a shape of several axes."""

    weight: nn.Parameter  # (K, I, *O)
    bias: nn.Parameter | None  # (K, *O)

    def __init__(
        self,
        n_models: int,
        n_inputs: int,
        shape: tuple[int, ...],
        *,
        bias: bool = True,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__()

        def zeros(*sizes: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(sizes, dtype=torch.float32, device=device))

        self.weight = zeros(n_models, n_inputs, *shape)
        self.bias = zeros(n_models, *shape) if bias else None

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """(K, M, I) -> (K, M, prod(O)); added to ``beside`` in place of a bias."""
        if beside is None:
            assert self.bias is not None
            beside = self.bias.flatten(1)[:, None]
        return torch.baddbmm(beside, x, self.weight.flatten(2))

    def first(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """The first row of outputs of shape (P, O) alone: (K, M, I) -> (K, M, O).

        Where O is small BLAS wants the weights of an output side by side.
        """
        if beside is None:
            assert self.bias is not None
            beside = self.bias[:, :1]
        return torch.baddbmm(beside, x, self.weight[:, :, 0].mT.contiguous().mT)

    def randomise(self, generator: torch.Generator, gain: float) -> None:
        """Weights N(0, gain^2 / fan-in), bias 0."""
        scale = gain / math.sqrt(max(1, self.weight.shape[1]))
        with torch.no_grad():
            self.weight.normal_(0, scale, generator=generator)
            if self.bias is not None:
                self.bias.zero_()


class Perceptron(nn.Module):
    """A linear map and, beside it, a network of hidden layers; their outputs are added.

    With the weights of ``head`` at zero it is the linear map, whatever the hidden
    layers hold. Without hidden layers there is nothing else.
    """

    def __init__(
        self,
        n_models: int,
        n_inputs: int,
        hidden_layer_sizes: Sequence[int],
        output_shape: tuple[int, int],
        activation: str,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__()
        sizes = (n_inputs, *hidden_layer_sizes)
        self.output_shape = output_shape
        self.activation = ACTIVATIONS[activation]
        self.linear = Linear(n_models, n_inputs, output_shape, device=device)
        self.hidden = nn.ModuleList(
            Linear(n_models, n_in, (n_out,), device=device) for n_in, n_out in pairwise(sizes)
        )
        self.head = (
            Linear(n_models, sizes[-1], output_shape, bias=False, device=device)
            if hidden_layer_sizes
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(K, M, I) -> (K, M, P, O)."""
        outputs: Tensor = self.linear(x)
        if self.head is not None:
            outputs = self.head(self._last_hidden(x), outputs)
        return outputs.view(*outputs.shape[:2], *self.output_shape)

    def first(self, x: Tensor) -> Tensor:
        """The first of the P alone: (K, M, I) -> (K, M, O)."""
        outputs = self.linear.first(x)
        return outputs if self.head is None else self.head.first(self._last_hidden(x), outputs)

    def with_jacobian(self, x: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """What ``forward`` gives, and its derivatives in the last n inputs, (K, M, n, P, O)."""
        outputs: Tensor = self.linear(x)
        direct = self.linear.weight.flatten(2)[:, None, -n:]  # of every row alike
        jacobian = direct.expand(*outputs.shape[:2], *direct.shape[2:])
        if self.head is not None:
            changes = torch.eye(x.shape[2], dtype=x.dtype, device=x.device)[-n:]  # of the inputs
            for layer in cast(Iterable[Linear], self.hidden):
                sums = layer(x)
                x = self.activation.function(sums)
                slope = self.activation.backward(torch.ones_like(sums), sums)
                # Of the first layer one product for all rows.
                changes = (changes @ layer.weight[:, None]) * slope[:, :, None]  # (K, M, n, H)
            outputs = self.head(x, outputs)
            jacobian = (changes @ self.head.weight.flatten(2)[:, None]).add_(direct)
        return (
            outputs.view(*outputs.shape[:2], *self.output_shape),
            jacobian.unflatten(3, self.output_shape),
        )

    def _last_hidden(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = self.activation.function(layer(x))
        return x

    def randomise(self, generator: torch.Generator, gain: float) -> None:
        """A random network beside a linear map of zeros; ``gain`` is that of the outputs.

        Without hidden layers the linear map itself is random.
        """
        n_before = 1.0  # the inputs are standardised; later layers see activations
        for layer in cast(Iterable[Linear], self.hidden):
            layer.randomise(generator, n_before)
            n_before = self.activation.gain
        (self.linear if self.head is None else self.head).randomise(generator, gain * n_before)
