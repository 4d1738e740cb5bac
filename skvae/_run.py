"""A run: one requested training of one model, and its stream of rows and noise.

Axes: ``(T, S, K, B, D)`` = steps of a block, draws, models, rows of a batch, columns;
``Z`` components, ``N`` rows of X, ``V`` rows for validation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from skvae._adam import AdamState
from skvae._vae import VAE, pad

# A block of rows and noise drawn at once: at most this many steps, and about this many
# numbers. All it depends on is the same for every run of a group, never K or the memory
# there is, so that a run draws the same numbers in any company.
_MAX_BLOCK_STEPS = 64
_MAX_BLOCK_NUMBERS = 2**22
_NOMINAL_COMPONENTS = 64


@dataclass(frozen=True)
class Run:
    """One requested training of one model."""

    model: VAE  # lone: where the training starts
    rows: Tensor  # (n,) of X, to train on
    validation_rows: Tensor  # (V,) of X, to stop early by; may be empty
    seed: int  # of the order of the rows and of all noise
    batch_size: int = 128
    n_importance_samples: int = 1
    beta: float = 1.0
    learning_rate: float = 1e-3
    schedule: str = "adaptive"
    alpha: float = 0.0
    dropout: float = 0.0
    max_iter: int = 500
    n_iter_no_change: int = 20
    tol: float = 1e-3
    binarise: bool = False  # draw bits with the probabilities x at every step
    optimizer: AdamState | None = None  # to go on with, instead of at rest

    @property
    def n_bits(self) -> int:
        """Columns of which bits are drawn."""
        bits = self.model.architecture.bits
        return len(range(bits.start, bits.stop)) if self.binarise else 0

    @property
    def n_steps(self) -> int:
        """Steps of a round, which is one pass over the rows."""
        return math.ceil(len(self.rows) / self.batch_size)

    @property
    def n_block_steps(self) -> int:
        """Steps whose rows and noise are drawn at once."""
        numbers = self.n_importance_samples * self.batch_size * _NOMINAL_COMPONENTS
        numbers += self.batch_size * self.n_bits
        return max(1, min(_MAX_BLOCK_STEPS, _MAX_BLOCK_NUMBERS // numbers))

    @property
    def group(self) -> Hashable:
        """Runs of the same group can be stacked into one model."""
        architecture = self.model.architecture
        return (
            replace(architecture, n_components=0, hidden_layer_sizes=()),
            len(architecture.hidden_layer_sizes),
            self.batch_size,
            self.n_importance_samples,
            self.n_steps,
            self.binarise,
            self.dropout > 0,
            len(self.validation_rows) > 0,
        )


class Batch(NamedTuple):
    """Rows and noise of T steps; K is 1 from a stream, and more once joined."""

    rows: Tensor  # (T, K, B)
    noise: Tensor  # (T, S, K, B, Z)     standard normal
    uniforms: Tensor  # (T, K, B, D)     to draw bits with, of the columns that are bits
    encoder_masks: tuple[Tensor, ...]  # (T, K, B, H) for each hidden layer, with dropout
    decoder_masks: tuple[Tensor, ...]  # (T, K, S B, H)

    @classmethod
    def join(cls, batches: Sequence[Batch]) -> Batch:
        """Along K, padded with zeros: idle components have no noise."""
        rows, noise, uniforms, encoder_masks, decoder_masks = zip(*batches, strict=True)
        return cls(
            torch.cat(rows, 1),
            join_padded(noise, 2),
            torch.cat(uniforms, 1),
            tuple(join_padded(masks, 1) for masks in zip(*encoder_masks, strict=True)),
            tuple(join_padded(masks, 1) for masks in zip(*decoder_masks, strict=True)),
        )

    def tensors(self) -> list[Tensor]:
        rows, noise, uniforms, encoder_masks, decoder_masks = self
        return [rows, noise, uniforms, *encoder_masks, *decoder_masks]

    def at(self, step: Tensor) -> Batch:
        """One step's part, the axis T gone; ``step`` (1,) stays on the device."""

        def one(part: Tensor) -> Tensor:
            return part.index_select(0, step)[0] if part.numel() else part[0]

        rows, noise, uniforms, encoder_masks, decoder_masks = self
        return Batch(
            one(rows),
            one(noise),
            one(uniforms),
            tuple(map(one, encoder_masks)),
            tuple(map(one, decoder_masks)),
        )


class Stream:
    """The endless shuffled rows of one run, and its noise, from its own generator."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._like = run.model.encoder.linear.weight
        self._generator = torch.Generator(self._like.device).manual_seed(run.seed)
        # Rows are shuffled on the host: a GPU would sort numbers for every pass of every run.
        self._shuffler = self._generator
        if self._like.device.type != "cpu":
            self._shuffler = torch.Generator("cpu").manual_seed(run.seed)
        # Of this pass over the rows, what is left.
        self._order = torch.empty(0, dtype=torch.long, device="cpu")

    def validation_noise(self) -> Tensor:
        """(S, 1, V, Z). For the ELBO two draws, each the other's mirror image."""
        run = self._run
        shape = (1, len(run.validation_rows), run.model.architecture.n_components)
        if run.n_importance_samples == 1:
            noise = self._draw(torch.randn, (1, *shape))
            return torch.cat((noise, -noise))
        return self._draw(torch.randn, (run.n_importance_samples, *shape))

    def block(self) -> Batch:
        """The next steps' rows and noise."""
        run, a = self._run, self._run.model.architecture
        n_steps, size, n_draws = run.n_block_steps, run.batch_size, run.n_importance_samples
        hidden = a.hidden_layer_sizes if run.dropout else ()
        return Batch(
            self._next_rows(n_steps * size).view(n_steps, 1, size),
            self._draw(torch.randn, (n_steps, n_draws, 1, size, a.n_components)),
            self._draw(torch.rand, (n_steps, 1, size, run.n_bits)),
            tuple(self._mask((n_steps, 1, size, width)) for width in hidden),
            tuple(self._mask((n_steps, 1, n_draws * size, width)) for width in hidden[::-1]),
        )

    def _next_rows(self, n: int) -> Tensor:
        parts, rows = [], self._run.rows
        while n:
            if not len(self._order):
                self._order = torch.randperm(len(rows), generator=self._shuffler, device="cpu")
            parts.append(self._order[:n])
            self._order = self._order[n:]
            n -= len(parts[-1])
        return rows[torch.cat(parts).to(rows.device)]

    def _mask(self, shape: tuple[int, ...]) -> Tensor:
        kept = self._draw(torch.rand, shape) >= self._run.dropout
        return kept.to(self._like.dtype) / (1 - self._run.dropout)

    def _draw(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        return draw(
            shape, generator=self._generator, dtype=self._like.dtype, device=self._like.device
        )


def join_padded(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Concatenate along ``dim``, every other axis padded with zeros to the longest."""
    longest = [max(sizes) for sizes in zip(*(part.shape for part in parts), strict=True)]

    def padded(part: Tensor) -> Tensor:
        shape = list(longest)
        shape[dim] = part.shape[dim]
        return pad(part, tuple(shape))

    return torch.cat([padded(part) for part in parts], dim)
