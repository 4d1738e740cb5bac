"""X in the user's units <-> the columns of the model, and what that does to a density.

Axes: ``N`` rows; ``D`` columns of X, of which the model sees those that vary, ``D'``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Rows converted at once: float64 copies stay small beside X.
_CHUNK = 8192

# float32 numbers up to this size and down to its inverse are far from overflow, and so are
# their differences and products.
_SAFE_IN_FLOAT32 = 1e15

# A column whose range is this many roundings of its largest value is a constant.
_N_ROUNDINGS = 8


@dataclass(frozen=True)
class Encoded:
    """Rows of X (N, D) as the model sees them, (n, D'), made when they are asked for."""

    x: Tensor
    standardise: Callable[[Tensor], Tensor]
    varies: Tensor | None  # (D,) bool; None where all columns do
    dtype: torch.dtype
    device: torch.device

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice) -> Tensor:
        standardised = self.standardise(self.x[rows])
        if self.varies is not None:
            standardised = standardised[:, self.varies]
        return standardised.to(self.device, self.dtype)


@dataclass(frozen=True)
class Columns:
    """Shift and scale of the columns that vary; the value of those that do not."""

    shift: Tensor  # (D,) float64, on the CPU; a constant column's value
    scale: Tensor  # (D,) float64; 1 for a constant column
    varies: Tensor  # (D,) bool

    @classmethod
    def of(cls, x: Tensor, *, standardised: bool) -> Columns:
        """Moments of x (N, D), in float64 about the middle of each column's range."""
        low, high = x.amin(0).double(), x.amax(0).double()
        middle = low / 2 + high / 2
        span = (high - low).clamp(min=torch.finfo(torch.float64).tiny)
        mean, square = torch.zeros_like(middle), torch.zeros_like(middle)
        for rows in x.split(_CHUNK):
            # In units of the range, so that no square over- or underflows.
            mean += ((rows.double() - middle) / span).sum(0) / len(x)
        for rows in x.split(_CHUNK):
            square += ((rows.double() - middle) / span - mean).square().sum(0) / len(x)
        largest = torch.maximum(low.abs(), high.abs())
        varies = high - low > _N_ROUNDINGS * torch.finfo(x.dtype).eps * largest
        scale = span * square.sqrt()
        shift = middle + mean * span
        if not standardised:
            shift, scale = torch.zeros_like(shift), torch.ones_like(scale)
        return cls(
            torch.where(varies, shift, x[0].double()).cpu(),
            torch.where(varies, scale, 1.0).cpu(),
            varies.cpu(),
        )

    @property
    def log_jacobian(self) -> float:
        """log |d(model's columns) / dX|: what turns the model's density into one of X."""
        return -self.scale.log().sum().item()

    def encode(self, x: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
        """(N, D) -> (N, D'): subtract as in float64, round last."""
        rows = self.encoded(x, dtype, device)
        whole = torch.empty(len(x), int(self.varies.sum()), dtype=dtype, device=device)
        for start in range(0, len(x), _CHUNK):
            whole[start : start + _CHUNK] = rows[start : start + _CHUNK]
        return whole

    def encoded(self, x: Tensor, dtype: torch.dtype, device: torch.device) -> Encoded:
        """The same for the rows that are asked for: no second X in memory."""
        varies = None if bool(self.varies.all()) else self.varies.to(x.device)
        return Encoded(x, self._standardiser(x), varies, dtype, device)

    def _standardiser(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """For rows like those of x; float32 ones need no float64 where nothing overflows."""
        shift, scale = self.shift.to(x.device), self.scale.to(x.device)
        largest = max(shift.abs().max().item(), scale.max().item(), 1 / scale.min().item())
        if x.dtype != torch.float32 or largest > _SAFE_IN_FLOAT32:
            return lambda rows: (rows - shift).div_(scale)
        # The shift in two parts, of which the first is a float32: a value near it, as any in
        # a column that needs the care is, less the first part is exact.
        high = shift.float()
        low, factor = (shift - high).float(), (1 / scale).float()
        return lambda rows: (rows - high).sub_(low).mul_(factor)

    def decode(self, encoded: Tensor, dtype: torch.dtype) -> Tensor:
        """(N, D') -> (N, D) in the units of X; constants are put back."""
        varies, shift, scale = (t.to(encoded.device) for t in (self.varies, self.shift, self.scale))
        x = shift.repeat(len(encoded), 1)
        x[:, varies] += encoded.double() * scale[varies]
        return x.to(dtype)

    def decode_variance(self, variance: Tensor) -> Tensor:
        """(D',) -> (D,) in squared units of X; 0 for constants."""
        decoded = torch.zeros_like(self.scale)
        decoded[self.varies] = variance.double().cpu() * self.scale[self.varies].square()
        return decoded
