"""The gradient of a bound in all parameters of K models, by hand.

autograd finds the same products. But it keeps books of every operation, which in small
networks takes longer than the operations themselves; and what the parameters look like to
a product (flat, transposed) is the same in every step, and is noted here once.

Axes: ``(S, K, B, D)`` = draws, models, rows, columns; ``(K, M, I)`` = models, rows of all
draws, inputs; ``Z`` components, ``C`` condition columns, ``P`` outputs for each column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from skvae._bounds import Bound, Terms
from skvae._networks import Linear, Perceptron
from skvae._vae import (
    VAE,
    Posterior,
    by_draw,
    decoder_inputs,
    explained,
    expose,
    join,
    log_exposure,
    log_prob_observed,
    observed,
    seen,
)


class Gradient:
    """Fills ``grad`` of a model's parameters, which have to stay where they are."""

    def __init__(self, model: VAE, bound: Bound, beta: Tensor) -> None:
        """beta (K,)."""
        self._bound, self._beta = bound, beta
        self._encoder, self._decoder = _Network(model.encoder), _Network(model.decoder)
        self._architecture = model.architecture
        # The likelihood's outputs that are not decoded, and their gradients.
        self._dispersions = [part.detach() for part in model.dispersions()]
        assert model.dispersion.grad is not None
        self._of_dispersion = model.dispersion.grad[None, :, :, None].unbind(2)

    def fill(
        self,
        x: Tensor,
        c: Tensor,
        noise: Tensor,
        encoder_masks: Sequence[Tensor] = (),
        decoder_masks: Sequence[Tensor] = (),
    ) -> Tensor:
        """That of the bound's mean over the rows; returns the bound, ``(K, B)``.

        (K, B, D), (K, B, C), (S, K, B, Z); a mask for each hidden layer: dropout.
        """
        a = self._architecture
        encoded, encoder_trace = self._encoder.forward(join(c, seen(x, a)), encoder_masks)
        q = Posterior.of(encoded)
        z = q.rsample(noise)
        decoded, decoder_trace = self._decoder.forward(decoder_inputs(z, c), decoder_masks)
        n_decoded, by_cell = a.n_decoded, by_draw(decoded, len(noise))
        expose(by_cell, log_exposure(x, a), a)
        outputs = [*by_cell.unbind(3), *self._dispersions]
        p = a.family.of(*outputs)
        terms = Terms(log_prob_observed(p, x, a), z, q.loc, q.log_scale)
        n_conditions, mask = c.shape[-1], observed(x, a)

        def of_z(weights: Tensor) -> Tensor:
            """Back through the decoder, its own parameters filled on the way."""
            of_cells = weights[..., None] if mask is None else weights[..., None] * mask
            found = p.gradients(outputs, explained(x, a), of_cells)
            for target, part in zip(self._of_dispersion, found[n_decoded:], strict=True):
                target.copy_(part)
            of_decoded = found[0].unsqueeze(3)  # one alone is not copied
            if n_decoded > 1:
                of_decoded = torch.stack(tuple(found[:n_decoded]), 3)
            rows = of_decoded.transpose(0, 1).flatten(1, 2)
            inputs = self._decoder.backward(decoder_trace, rows, of_inputs=True)
            of_z = inputs[..., n_conditions:] if n_conditions else inputs
            return by_draw(of_z, len(noise))

        # The clamp of log_scale is passed over: where it acts, what pulls back gets through.
        of_encoded = torch.stack(self._bound.gradients(terms, self._beta, of_z), 2)
        self._encoder.backward(encoder_trace, of_encoded, of_inputs=False)
        return self._bound.value(terms, self._beta)


class _Trace(NamedTuple):
    """What the backward pass needs of the forward pass, a tensor for each layer."""

    inputs: list[Tensor]  # (K, M, I)
    sums: list[Tensor]  # (K, M, H), before the activation
    masks: Sequence[Tensor]  # (K, M, H), with dropout


class _Network:
    """A perceptron's passes, forward and backward."""

    def __init__(self, perceptron: Perceptron) -> None:
        self._activation = perceptron.activation
        self._shape = perceptron.output_shape
        self._linear = _Layer(perceptron.linear)
        self._hidden = [_Layer(layer) for layer in cast(Iterable[Linear], perceptron.hidden)]
        self._head = None if perceptron.head is None else _Layer(perceptron.head)

    def forward(self, x: Tensor, masks: Sequence[Tensor]) -> tuple[Tensor, _Trace]:
        """(K, M, I) -> (K, M, P, O)."""
        trace = _Trace([x], [], masks)
        outputs = self._linear.forward(x)
        if self._head is not None:
            for i, layer in enumerate(self._hidden):
                trace.sums.append(layer.forward(trace.inputs[-1]))
                h = self._activation.function(trace.sums[-1])
                trace.inputs.append(h * masks[i] if masks else h)
            outputs = self._head.forward(trace.inputs[-1], outputs)
        return outputs.view(*outputs.shape[:2], *self._shape), trace

    def backward(self, trace: _Trace, gradient: Tensor, *, of_inputs: bool) -> Tensor:
        """From the gradient of the outputs (K, M, P, O) to that of the inputs, if asked for."""
        gradient = gradient.flatten(2)
        self._linear.fill(trace.inputs[0], gradient)
        result = self._linear.backward(gradient) if of_inputs else gradient
        if self._head is not None:
            self._head.fill(trace.inputs[-1], gradient)
            g = self._head.backward(gradient)
            for i in reversed(range(len(self._hidden))):
                g = g * trace.masks[i] if trace.masks else g
                g = self._activation.backward(g, trace.sums[i])
                self._hidden[i].fill(trace.inputs[i], g)
                if i:
                    g = self._hidden[i].backward(g)
                elif of_inputs:
                    result = self._hidden[i].backward(g, result)
        return result


class _Layer:
    """Views of a linear map's parameters and of their ``grad``."""

    def __init__(self, layer: Linear) -> None:
        assert layer.weight.grad is not None
        self._weight = layer.weight.detach().flatten(2)  # (K, I, O)
        self._transposed = self._weight.mT
        self._weight_gradient = layer.weight.grad.flatten(2)
        self._bias = self._bias_gradient = None
        if layer.bias is not None:
            assert layer.bias.grad is not None
            self._bias = layer.bias.detach().flatten(1)[:, None]  # (K, 1, O)
            self._bias_gradient = layer.bias.grad.flatten(1)  # (K, O)

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """(K, M, I) -> (K, M, O); added to ``beside``, where it stands, in place of a bias."""
        if beside is not None:
            return beside.baddbmm_(x, self._weight)
        assert self._bias is not None
        return torch.baddbmm(self._bias, x, self._weight)

    def fill(self, x: Tensor, gradient: Tensor) -> None:
        """``grad`` of the parameters, from the inputs and the gradient of the outputs."""
        torch.bmm(x.mT, gradient, out=self._weight_gradient)
        if self._bias_gradient is not None:
            torch.sum(gradient, 1, out=self._bias_gradient)

    def backward(self, gradient: Tensor, beside: Tensor | None = None) -> Tensor:
        """From the gradient of the outputs to that of the inputs; added to ``beside``, as above."""
        if beside is None:
            return torch.bmm(gradient, self._transposed)
        return beside.baddbmm_(gradient, self._transposed)
