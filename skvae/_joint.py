"""Joint likelihoods: columns of several families side by side, as a table has them.

A joint likelihood is a likelihood like any other: its outputs are those of one decoder, of
which every family takes its own columns. One that has fewer outputs than others leaves the
rest of its columns idle, with gradients of 0.

Axes: ``(S, K, B, D)`` = draws, models, rows, columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from skvae._likelihoods import LIKELIHOODS, Likelihood

#: Families from left to right: the name, and how many columns each of its variables has.
Parts = tuple[tuple[str, tuple[int, ...]], ...]


def family_of(likelihood: str | Parts, variance: float | None) -> type[Likelihood]:
    """The family that a name or parts stand for, its variance learned or given."""
    if variance is None and isinstance(likelihood, str):
        return LIKELIHOODS[likelihood]
    return _joint_family(likelihood, variance)


def named_columns(likelihood: str | Parts) -> list[tuple[str, slice]]:
    """The families' names, and where each has its columns."""
    if isinstance(likelihood, str):
        return [(likelihood, slice(None))]
    ends = pairwise(accumulate((sum(sizes) for _, sizes in likelihood), initial=0))
    return [(name, slice(*each)) for (name, _), each in zip(likelihood, ends, strict=True)]


class Part(NamedTuple):
    """A family among others."""

    family: type[Likelihood]
    columns: slice
    fixed: tuple[float, ...]  # the last of its outputs, where they are given

    @property
    def n_outputs(self) -> int:
        """Those that are learned."""
        return len(self.family.parameters) - len(self.fixed)


@dataclass(frozen=True)
class Joint(Likelihood):
    """The likelihoods of all parts."""

    likelihoods: tuple[Likelihood, ...]

    parts: ClassVar[tuple[Part, ...]]

    @classmethod
    def of(cls, *outputs: Tensor) -> Joint:
        pieces = zip(cls.parts, cls._pieces(outputs), strict=True)
        return cls(tuple(part.family.of(*_own(part, piece)) for part, piece in pieces))

    @classmethod
    def start(cls, mean: Tensor, variance: Tensor) -> tuple[Tensor, ...]:
        idle = torch.zeros_like(mean)
        starts = []
        for part in cls.parts:
            own = part.family.start(mean[part.columns], variance[part.columns])
            own = own[: part.n_outputs]
            starts.append((*own, *[idle[part.columns]] * (len(cls.parameters) - len(own))))
        return tuple(torch.cat(output) for output in zip(*starts, strict=True))

    @classmethod
    def slope(cls, mean: Tensor) -> Tensor:
        return torch.cat([part.family.slope(mean[part.columns]) for part in cls.parts])

    @classmethod
    def _pieces(cls, outputs: Sequence[Tensor]) -> list[list[Tensor]]:
        """Of each part, its columns of every output; or its one of those shared by columns."""
        n_columns = outputs[0].shape[-1]
        return [
            [
                output[..., part.columns if output.shape[-1] == n_columns else slice(i, i + 1)]
                for output in outputs
            ]
            for i, part in enumerate(cls.parts)
        ]

    def gradients(self, outputs: Sequence[Tensor], x: Tensor, weights: Tensor) -> Sequence[Tensor]:
        gradients = []
        for part, p, piece in zip(self.parts, self.likelihoods, self._pieces(outputs), strict=True):
            of_cells = weights[..., part.columns] if weights.shape[-1] > 1 else weights
            own = p.gradients(_own(part, piece), x[..., part.columns], of_cells)
            idle = [torch.zeros_like(output) for output in piece[part.n_outputs :]]
            gradients.append([*own[: part.n_outputs], *idle])
        return [torch.cat(of_output, -1) for of_output in zip(*gradients, strict=True)]

    def log_prob(self, x: Tensor) -> Tensor:
        pairs = zip(self.parts, self.likelihoods, strict=True)
        return torch.cat([p.log_prob(x[..., part.columns]) for part, p in pairs], -1)

    @property
    def mean(self) -> Tensor:
        return torch.cat([p.mean for p in self.likelihoods], -1)

    def slopes_of_mean(self, outputs: Sequence[Tensor], slopes: Sequence[Tensor]) -> Tensor:
        found = []
        for part, p, piece in zip(self.parts, self.likelihoods, self._pieces(outputs), strict=True):
            own = [slope[..., part.columns] for slope in slopes[: part.n_outputs]]
            found.append(p.slopes_of_mean(_own(part, piece), own))
        return torch.cat(found, -1)

    @property
    def variance(self) -> Tensor:
        return torch.cat([p.variance for p in self.likelihoods], -1)

    @property
    def information(self) -> Tensor:
        return torch.cat([p.information for p in self.likelihoods], -1)

    def sample(self, generator: torch.Generator) -> Tensor:
        return torch.cat([p.sample(generator) for p in self.likelihoods], -1)


@lru_cache(maxsize=128)
def _joint_family(likelihood: str | Parts, variance: float | None) -> type[Likelihood]:
    sizes = {} if isinstance(likelihood, str) else dict(likelihood)
    parts = []
    for name, columns in named_columns(likelihood):
        family = LIKELIHOODS[name].sized(sizes.get(name, ()))
        fixed = () if variance is None else _outputs_at(family, variance)
        parts.append(Part(family, columns, fixed))
    if len(parts) == 1 and not parts[0].fixed:
        return parts[0].family
    n_outputs = max(part.n_outputs for part in parts)
    parameters = ("first", "second", "third")[:n_outputs]
    return type("Joint", (Joint,), {"parts": tuple(parts), "parameters": parameters})


def _outputs_at(family: type[Likelihood], variance: float) -> tuple[float, ...]:
    """The outputs after the first, at this variance; none that it does not decide."""
    if not family.is_scaled:
        return ()
    one = torch.tensor([variance], dtype=torch.float64, device="cpu")
    _, *dispersion = family.start(torch.zeros_like(one), one)
    return tuple(output.item() for output in dispersion)


def _own(part: Part, piece: Sequence[Tensor]) -> list[Tensor]:
    """The outputs that the part's family is made of."""
    fixed = [piece[0].new_full((1, 1, 1, 1), value) for value in part.fixed]
    return [*piece[: part.n_outputs], *fixed]
