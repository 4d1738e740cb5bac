"""X in the user's units <-> the columns of the model, and what that does to a density.

A row of the model has counts first, then other numbers, then categories, a column of 0 and 1
for each; then the logarithms of the counts, which only the encoder sees. Where cells are missing
they are 0, and a mask of those observed stands at the end.

Axes: ``N`` rows; ``D`` columns of X; ``D'`` columns that the likelihood explains, of which
``E`` are counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from skvae._joint import Parts
from skvae._likelihoods import LIKELIHOODS, Likelihood

# Rows converted at once: float64 copies stay small beside X.
_CHUNK = 8192

# float32 numbers up to this size and down to its inverse are far from overflow, and so are
# their differences and products.
_SAFE_IN_FLOAT32 = 1e15

# A column whose range is this many roundings of its largest value is a constant.
_N_ROUNDINGS = 8

_ORDER = ("count", "standardised", "log", "plain", "category")
_MEASURES: dict[str, Callable[[Tensor], Tensor]] = {"log": torch.log, "count": torch.log1p}


@dataclass(frozen=True)
class Encoded:
    """Rows of X (N, D) as the model sees them, made when they are asked for.

    (n, D' + E), and D' more with a mask.
    """

    x: Tensor
    standardise: Callable[[Tensor], Tensor]
    choose: Callable[[Tensor, Tensor], Tensor]
    sources: Tensor | None  # (D',) of the model's columns those of X, if there is a mask
    dtype: torch.dtype
    device: torch.device

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice) -> Tensor:
        some = self.x[rows]
        encoded = self.choose(some, self.standardise(some))
        if self.sources is not None:
            mask = ~some.isnan()[:, self.sources]
            encoded = torch.cat((encoded.nan_to_num(nan=0.0), mask.to(encoded)), 1)
        return encoded.to(self.device, self.dtype)


@dataclass(frozen=True)
class Columns:
    """Of every column of X its likelihood, and shift and scale; a constant one's value.

    Shift and scale are those of the column's logarithm where it is positive by its likelihood,
    and of log(1 + x) where it is a count.
    """

    shift: Tensor  # (D,) float64, on the CPU; a constant column's value
    scale: Tensor  # (D,) float64; 1 for a constant column
    varies: Tensor  # (D,) bool
    families: tuple[str, ...]  # (D,)
    sizes: tuple[int, ...]  # (D,) categories; 1 for numbers

    @classmethod
    def of(cls, x: Tensor, families: Sequence[str], sizes: Sequence[int] | None = None) -> Columns:
        """Moments of x (N, D), in float64 about the middle of each column's range.

        A category is the number of it, from 0; ``sizes`` says how many there are.
        """
        readings = [LIKELIHOODS[name].reading for name in families]
        lowest, highest, n = _ranges(x)
        low, high = _measured(torch.stack((lowest, highest)), readings)
        middle = low / 2 + high / 2
        span = (high - low).clamp(min=torch.finfo(torch.float64).tiny)
        mean, square = torch.zeros_like(middle), torch.zeros_like(middle)
        for rows in x.split(_CHUNK):
            # In units of the range, so that no square over- or underflows.
            mean += ((_measured(rows.double(), readings) - middle) / span).nansum(0) / n
        for rows in x.split(_CHUNK):
            deviation = (_measured(rows.double(), readings) - middle) / span - mean
            square += deviation.square().nansum(0) / n
        largest = torch.maximum(lowest.abs(), highest.abs())
        varies = highest - lowest > _N_ROUNDINGS * torch.finfo(x.dtype).eps * largest
        sizes = tuple(sizes or [1] * len(families))
        varies |= torch.tensor(sizes, device=x.device) > 1
        is_scaled = _where(readings, "standardised", "log", "count").to(x.device) & varies
        first = torch.where(x[0].isnan(), lowest, x[0].double())
        constant = torch.where(varies, 0.0, first)
        return cls(
            torch.where(is_scaled, middle + mean * span, constant).cpu(),
            torch.where(is_scaled, span * square.sqrt(), 1.0).cpu(),
            varies.cpu(),
            tuple(families),
            sizes,
        )

    @cached_property
    def likelihood(self) -> str | Parts:
        """What an ``Architecture`` takes: one name, or the families from left to right."""
        names = dict.fromkeys(self.families[i] for i in self._order)
        if len(names) < 2 and not self._at("category"):
            name = next(iter(names or self.families))
            return "gaussian" if name == "categorical" else name  # of no columns at all
        sizes = [(self.families[i], self.sizes[i]) for i in self._order]
        return tuple((name, tuple(n for other, n in sizes if other == name)) for name in names)

    @cached_property
    def _readings(self) -> list[str]:
        return [LIKELIHOODS[name].reading for name in self.families]

    @cached_property
    def _order(self) -> list[int]:
        """The columns that vary as the model has them, those of a family side by side."""
        place = {name: i for i, name in enumerate(LIKELIHOODS)}

        def key(i: int) -> tuple[int, int]:
            return _ORDER.index(self._readings[i]), place.get(self.families[i], 0)

        return sorted(self.varies.nonzero()[:, 0].tolist(), key=key)

    def _at(self, *readings: str) -> list[int]:
        """The columns that are read so, in the model's order."""
        return [i for i in self._order if self._readings[i] in readings]

    def positions(self, *readings: str) -> list[int]:
        """The columns of X that vary and are read so, in the model's order; by default all."""
        return self._at(*readings or _ORDER)

    @property
    def _is_all(self) -> bool:
        """Whether the model sees all columns, each as one, in their own order."""
        return self._at("standardised", "plain") == list(range(len(self.families)))

    @property
    def n_features(self) -> int:
        """D', the columns that the likelihood explains."""
        return sum(self.sizes[i] for i in self._order)

    @property
    def width(self) -> int:
        """D' + E."""
        return self.n_features + len(self._at("count"))

    @cached_property
    def _sources(self) -> Tensor:
        """Of the columns that the likelihood explains those of X, (D',)."""
        sources = [i for i in self._order for _ in range(self.sizes[i])]
        return torch.tensor(sources, dtype=torch.long)

    def log_jacobian(self, encoded: Tensor | Encoded) -> Tensor:
        """log |d(model's columns) / dX|: what turns the model's density into one of X.

        Of the observed cells of rows of the model, (N,) in float64.
        """
        n_rows = len(encoded)
        if not self._at("log") and encoded[:1].shape[1] == self.width:  # the same for all rows
            return self._log_jacobian(encoded[:1]).expand(n_rows)
        starts = range(0, n_rows, _CHUNK)
        return torch.cat([self._log_jacobian(encoded[i : i + _CHUNK]) for i in starts])

    def _log_jacobian(self, encoded: Tensor) -> Tensor:
        log_scale = torch.where(_where(self._readings, "count", "category"), 1.0, self.scale).log()
        of_columns = log_scale[self._sources].to(encoded.device)  # a count is modelled as it is
        values = of_columns.expand(len(encoded), -1)
        if places := self._places():
            shift, scale = self._shift_and_scale_of_logs(encoded)
            values = values.clone()
            values[:, places] += shift + encoded[:, places].double() * scale
        if encoded.shape[1] > self.width:
            values = values * encoded[:, self.width :]
        return -values.sum(1)

    def mean_log_jacobian(self, encoded: Tensor) -> float:
        """The same averaged over rows."""
        return self.log_jacobian(encoded).mean().item()

    def _shift_and_scale_of_logs(self, like: Tensor) -> tuple[Tensor, Tensor]:
        found = self._at("log")
        return self.shift[found].to(like.device), self.scale[found].to(like.device)

    def _places(self) -> list[int]:
        """Where the model has logarithms."""
        first = len(self._at("count", "standardised"))
        return list(range(first, first + len(self._at("log"))))

    def encode(
        self, x: Tensor, dtype: torch.dtype, device: torch.device, *, with_mask: bool = False
    ) -> Tensor:
        """(N, D) -> (N, D' + E), and a mask where cells are missing.

        Subtracted as in float64, rounded last.
        """
        rows = self.encoded(x, dtype, device, with_mask=with_mask)
        width = self.width + (0 if rows.sources is None else self.n_features)
        whole = torch.empty(len(x), width, dtype=dtype, device=device)
        for start in range(0, len(x), _CHUNK):
            whole[start : start + _CHUNK] = rows[start : start + _CHUNK]
        return whole

    def encoded(
        self, x: Tensor, dtype: torch.dtype, device: torch.device, *, with_mask: bool = False
    ) -> Encoded:
        """The same for the rows that are asked for: no second X in memory.

        ``with_mask`` gives a mask where nothing is missing too.
        """
        has_mask = with_mask or bool(x.amin().isnan())
        sources = self._sources.to(x.device) if has_mask else None
        return Encoded(x, self._standardiser(x), self._chooser(), sources, dtype, device)

    def _standardiser(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """For rows like those of x; float32 ones need no float64 where nothing overflows."""
        shift, scale = self.shift.to(x.device), self.scale.to(x.device)
        steps = self.float32_steps()
        if x.dtype != torch.float32 or steps is None:
            return lambda rows: (_measured(rows.double(), self._readings) - shift).div_(scale)
        high, low, factor = (step.to(x.device) for step in steps)
        return lambda rows: (rows - high).sub_(low).mul_(factor)

    def float32_steps(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """high, low and factor, (D,) in float32: rows of it are (x - high - low) * factor.

        None where float32 would overflow, or logarithms are taken.
        """
        largest = max(self.shift.abs().max(), self.scale.max(), 1 / self.scale.min())
        if largest > _SAFE_IN_FLOAT32 or any(reading in _MEASURES for reading in self._readings):
            return None
        # The shift in two parts, of which the first is a float32: a value near it, as any in
        # a column that needs the care is, less the first part is exact.
        high = self.shift.float()
        return high, (self.shift - high).float(), (1 / self.scale).float()

    def _chooser(self) -> Callable[[Tensor, Tensor], Tensor]:
        """From rows of X, and the same standardised, to rows of the model."""
        if self._is_all:
            return lambda rows, standardised: standardised
        counts, numbers = self._at("count"), self._at("standardised", "log", "plain")
        categories = self._at("category")

        def choose(rows: Tensor, standardised: Tensor) -> Tensor:
            codes = rows[:, categories].T[:, :, None]
            pairs = zip(codes, (self.sizes[i] for i in categories), strict=True)
            one_hot = [code == torch.arange(size, device=code.device) for code, size in pairs]
            ends = rows[:, counts], standardised[:, numbers], *one_hot, standardised[:, counts]
            return torch.cat([end.to(standardised.dtype) for end in ends], 1)

        return choose

    def decode(self, encoded: Tensor, dtype: torch.dtype, *, is_mean: bool = False) -> Tensor:
        """(N, D') -> (N, D) in the units of X, draws or what ``mean`` gives; with constants.

        Of the columns of categories the largest counts.
        """
        shift, scale = self.shift.to(encoded.device), self.scale.to(encoded.device)
        x = shift.repeat(len(encoded), 1)
        counts, numbers = self._at("count"), self._at("standardised", "log", "plain")
        categories = self._at("category")
        sizes = [self.sizes[i] for i in categories]
        ends = encoded.double().split([len(counts), len(numbers), sum(sizes)], 1)
        x[:, counts], x[:, numbers] = ends[0], shift[numbers] + ends[1] * scale[numbers]
        for i, shares in zip(categories, ends[2].split(sizes, 1), strict=True):
            x[:, i] = shares.argmax(1).to(x)
        logs = self._at("log")
        x[:, logs] = encoded[:, self._places()].double() if is_mean else x[:, logs].exp()
        return x.to(dtype)

    def mean(self, p: Likelihood) -> Tensor:
        """Of p(x|z), what can be averaged: of logarithms E[x] in the units of X."""
        return self._of_logs(p.mean, p, lambda mean, square: mean)

    def variance(self, p: Likelihood) -> Tensor:
        """Of p(x|z), likewise: of logarithms the variance in squared units of X."""
        return self._of_logs(
            p.variance, p, lambda mean, square: mean.square() * torch.expm1(square)
        )

    def _of_logs(
        self, values: Tensor, p: Likelihood, moment: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Values (..., D'), those of logarithms replaced by a moment of the exponential.

        ``moment`` takes E[x], and the variance of the logarithm.
        """
        if not (places := self._places()):
            return values
        shift, scale = self._shift_and_scale_of_logs(values)
        loc, square = p.mean[..., places], p.variance[..., places].double() * scale.square()
        mean = (shift + loc.double() * scale + square / 2).exp()
        replaced = values.clone()
        replaced[..., places] = moment(mean, square).to(values)
        return replaced

    def decode_variance(self, variance: Tensor) -> Tensor:
        """(D',) of ``variance`` -> (D,) in squared units of X; 0 for constants.

        Categories have none: NaN.
        """
        decoded = torch.zeros_like(self.scale)
        variance = variance.double().cpu()
        plain, n_counts = self._at("standardised", "log", "plain"), len(self._at("count"))
        unit = torch.where(_where(self._readings, "log"), 1.0, self.scale.square())
        decoded[self._at("count")] = variance[:n_counts]
        decoded[plain] = variance[n_counts : n_counts + len(plain)] * unit[plain]
        decoded[self._at("category")] = torch.nan
        return decoded


def _ranges(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least and largest value of each column, and how many are there, in float64."""
    lowest = torch.full(x.shape[1:], torch.inf, dtype=torch.float64, device=x.device)
    highest, n = -lowest, torch.zeros_like(lowest)
    for rows in x.split(_CHUNK):
        missing = rows.isnan()
        lowest = lowest.minimum(rows.masked_fill(missing, torch.inf).amin(0).double())
        highest = highest.maximum(rows.masked_fill(missing, -torch.inf).amax(0).double())
        n += (~missing).sum(0)
    return lowest, highest, n


def _measured(x: Tensor, readings: Sequence[str]) -> Tensor:
    """Columns of x, the logarithms of those that are measured so."""
    measured = x
    for reading, measure in _MEASURES.items():
        if reading in readings:
            measured = torch.where(_where(readings, reading).to(x.device), measure(x), measured)
    return measured


def _where(readings: Sequence[str], *which: str) -> Tensor:
    return torch.tensor([reading in which for reading in readings], dtype=torch.bool)
