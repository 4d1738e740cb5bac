"""X in the user's units <-> the columns of the model, and what that does to a density.

A row of the model has counts first, then other numbers, then categories, a column of 0 and 1
for each; then the logarithms of the counts, which only the encoder sees. Where cells are missing
they are 0, and a mask of those observed follows. Where the rates of counts are relative to the
total of the row, the logarithm of this exposure stands at the end.

Axes: ``N`` rows; ``D`` columns of X; ``D'`` columns that the likelihood explains, of which
``E`` are counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from skvae._joint import Parts
from skvae._likelihoods import LIKELIHOODS, Likelihood
from skvae._rows import Rows, chunks, is_missing_any, slices

# float32 numbers up to this size and down to its inverse are far from overflow, and so are
# their differences and products.
_SAFE_IN_FLOAT32 = 1e15

# A column whose range is this many roundings of its largest value is a constant.
_N_ROUNDINGS = 8

# Totals of rows that are kept, to draw from.
_N_TOTALS = 1000

# The exposure of a row without any counts: next to nothing is expected of it.
_LEAST_EXPOSURE = 1e-6

# Logarithms of counts are comparable as they are. In units of its deviation a word or gene that
# one row in thousands has would be an outlier there, which outweighs the rest of the row and,
# where no row to train on has it, sends the encoder anywhere.
_LEAST_SCALE_OF_COUNTS = 1.0

_ORDER = ("count", "standardised", "log", "plain", "category")
_MEASURES: dict[str, Callable[[Tensor], Tensor]] = {"log": torch.log, "count": torch.log1p}


@dataclass(frozen=True)
class Encoded:
    """Rows of X (N, D) as the model sees them, made when they are asked for.

    (n, D' + E), and D' more with a mask, and 1 more with an exposure.
    """

    x: Rows
    width: int
    standardise: Callable[[Tensor, Tensor | None], Tensor]  # rows and their exposure
    choose: Callable[[Tensor, Tensor], list[Tensor]]
    sources: Tensor | None  # (D',) of the model's columns those of X, if there is a mask
    expose: Callable[[Tensor], Tensor] | None  # rows (n, D) -> (n, 1), if counts are relative
    dtype: torch.dtype
    device: torch.device

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), self.width))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice) -> Tensor:
        return self._encode(self.x[rows])

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """(n,) -> the rows of these numbers, (n, D')."""
        return self._encode(self.x.index_select(0, index.to(self.x.device)))

    def _encode(self, some: Tensor) -> Tensor:
        exposure = None if self.expose is None else self.expose(some)
        parts = self.choose(some, self.standardise(some, exposure))
        if self.sources is not None:
            mask = ~some.isnan()[:, self.sources]
            parts = [*(part.nan_to_num(nan=0.0) for part in parts), mask]
        if exposure is not None:
            parts = [*parts, exposure.log()]
        # Rounded before they are joined: what is written twice is half as long.
        parts = [part.to(self.dtype) for part in parts]
        return (parts[0] if len(parts) == 1 else torch.cat(parts, 1)).to(self.device)

    def whole(self) -> Tensor:
        """All of them."""
        whole = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        for rows in slices(self):
            whole[rows] = self[rows]
        return whole


class Ranges(NamedTuple):
    """What values every column of X (N, D) has, in float64."""

    lowest: Tensor  # (D,)
    highest: Tensor  # (D,)
    n_known: Tensor  # (D,) cells that are not missing

    @classmethod
    def of(cls, x: Rows) -> Ranges:
        lowest = torch.full(x.shape[1:], torch.inf, dtype=torch.float64, device=x.device)
        highest, n_known = -lowest, torch.zeros_like(lowest)
        for rows in chunks(x):
            least = most = rows
            n_rows: Tensor | int = len(rows)
            if is_missing_any(rows):
                missing = rows.isnan()
                least, most = (rows.masked_fill(missing, end) for end in (torch.inf, -torch.inf))
                n_rows = (~missing).sum(0)
            lowest = lowest.minimum(least.amin(0).double())
            highest = highest.maximum(most.amax(0).double())
            n_known += n_rows
        return cls(lowest, highest, n_known)


@dataclass(frozen=True)
class ColumnCodec:
    """Takes numbers of X to the model's columns and back.

    It knows of every column of X its likelihood, and shift and scale; of a constant one the value.
    Shift and scale are those of the column's logarithm where it is positive by its likelihood,
    and of log(1 + x) where it is a count, the scale then at least 1.
    """

    shift: Tensor  # (D,) float64, on the CPU; a constant column's value
    scale: Tensor  # (D,) float64; 1 for a constant column
    varies: Tensor  # (D,) bool
    families: tuple[str, ...]  # (D,)
    sizes: tuple[int, ...]  # (D,) categories; 1 for numbers
    totals: Tensor  # float64: of rows, in order, if the rates of counts are relative to them

    @classmethod
    def of(
        cls,
        x: Rows,
        families: Sequence[str],
        sizes: Sequence[int] | None = None,
        ranges: Ranges | None = None,
        *,
        is_relative: bool = False,
    ) -> ColumnCodec:
        """Moments of x (N, D), in float64 about the middle of each column's range.

        A category is the number of it, from 0; ``sizes`` says how many there are. With
        ``is_relative`` the rates of counts are relative to the total of their row.
        """
        readings = [LIKELIHOODS[name].reading for name in families]
        totals = (
            _totals(x, readings)
            if is_relative
            else torch.zeros(0, dtype=torch.float64, device="cpu")
        )
        lowest, highest, _ = ranges or Ranges.of(x)
        measure = _Measure(readings)
        low, high = measure(torch.stack((lowest, highest)))
        middle = low / 2 + high / 2
        # In units of the range, so that no square over- or underflows.
        span = (high - low).clamp(min=torch.finfo(torch.float64).tiny)
        expose = _exposed(readings, totals)
        mean, variance = _moments(
            (measure(rows.double(), expose and expose(rows)) - middle).div_(span)
            for rows in chunks(x)
        )
        largest = torch.maximum(lowest.abs(), highest.abs())
        varies = highest - lowest > _N_ROUNDINGS * torch.finfo(x.dtype).eps * largest
        sizes = tuple(sizes or [1] * len(families))
        varies |= torch.tensor(sizes, device=x.device) > 1
        is_scaled = _where(readings, "standardised", "log", "count").to(x.device) & varies
        first = x[:1][0].double()
        constant = torch.where(varies, 0.0, torch.where(first.isnan(), lowest, first))
        scale = span * variance.sqrt()
        is_count = _where(readings, "count").to(x.device)
        scale = torch.where(is_count, scale.clamp(min=_LEAST_SCALE_OF_COUNTS), scale)
        return cls(
            torch.where(is_scaled, middle + mean * span, constant).cpu(),
            torch.where(is_scaled, scale, 1.0).cpu(),
            varies.cpu(),
            tuple(families),
            sizes,
            totals.cpu(),
        )

    def no_longer_constant(self, x: Rows, dtype: torch.dtype) -> list[int]:
        """The columns that were constant in X of this dtype, and are not in these rows (N, D)."""
        constant = (~self.varies).nonzero()[:, 0].to(x.device)
        value = self.shift.to(x.device)[constant]
        coarser = max(torch.finfo(one).eps for one in (x.dtype, dtype))
        within = _N_ROUNDINGS * coarser * value.abs()
        found = torch.zeros_like(constant, dtype=torch.bool)
        if len(constant):
            for rows in chunks(x):
                found |= ((rows[:, constant] - value).abs() > within).any(0)
        return constant[found].tolist()

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

    @cached_property  # of many columns it takes longer than the decoder's products
    def _by_reading(self) -> dict[str, list[int]]:
        """The columns that are read in each way, in the model's order."""
        found: dict[str, list[int]] = {reading: [] for reading in _ORDER}
        for i in self._order:
            found[self._readings[i]].append(i)
        return found

    def _at(self, *readings: str) -> list[int]:
        """The columns that are read in one of these ways, which stand in the model's order."""
        return [i for reading in readings for i in self._by_reading[reading]]

    def positions(self, *readings: str) -> list[int]:
        """The columns of X that vary and are read so, in the model's order; by default all."""
        return self._at(*readings or _ORDER)

    @cached_property
    def n_features(self) -> int:
        """D', the columns that the likelihood explains."""
        return sum(self.sizes[i] for i in self._order)

    @property
    def is_relative(self) -> bool:
        """Whether the rates of counts are relative to the total of their row."""
        return len(self.totals) > 0

    @cached_property
    def width(self) -> int:
        """D' + E, and 1 with an exposure."""
        return self.n_features + len(self._at("count")) + self.is_relative

    def log_exposure(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Logarithms of n exposures (n, 1), drawn from fit's rows; None without any."""
        if not self.is_relative:
            return None
        which = torch.randint(len(self.totals), (n,), generator=generator, device="cpu")
        return _exposure(self.totals[which], self.totals)[:, None].log()

    @cached_property
    def _sources(self) -> Tensor:
        """Of the columns that the likelihood explains those of X, (D',)."""
        sources = [i for i in self._order for _ in range(self.sizes[i])]
        return torch.tensor(sources, dtype=torch.long, device="cpu")

    def log_jacobian(self, encoded: Rows) -> Tensor:
        """log |d(model's columns) / dX|: what turns the model's density into one of X.

        Of the observed cells of rows of the model, (N,) in float64.
        """
        if not self._at("log") and encoded.shape[1] == self.width:  # the same for all rows
            return self._log_jacobian(encoded[:1]).expand(len(encoded))
        return torch.cat([self._log_jacobian(rows) for rows in chunks(encoded)])

    def _log_jacobian(self, encoded: Tensor) -> Tensor:
        values = self._log_scale.to(encoded.device).expand(len(encoded), -1)
        if self._at("log"):
            shift, scale = self._shift_and_scale_of_logs(encoded)
            values = values.clone()
            values[:, self._logs] += shift + encoded[:, self._logs].double() * scale
        if encoded.shape[1] > self.width:
            first = self.width - self.is_relative
            values = values * encoded[:, first : first + self.n_features]
        return -values.sum(1)

    @cached_property
    def _log_scale(self) -> Tensor:
        """Of the columns that the likelihood explains, (D',): 0 of those modelled as they are."""
        log_scale = torch.where(_where(self._readings, "count", "category"), 1.0, self.scale).log()
        return log_scale[self._sources]

    def mean_log_jacobian(self, encoded: Rows) -> float:
        """The mean of ``log_jacobian`` over rows."""
        return self.log_jacobian(encoded).mean().item()

    def _shift_and_scale_of_logs(self, like: Tensor) -> tuple[Tensor, Tensor]:
        found = self._at("log")
        return self.shift[found].to(like.device), self.scale[found].to(like.device)

    @cached_property
    def _logs(self) -> slice:
        """Where the model has logarithms."""
        first = len(self._at("count", "standardised"))
        return slice(first, first + len(self._at("log")))

    def encoded(
        self, x: Rows, dtype: torch.dtype, device: torch.device, *, with_mask: bool = False
    ) -> Encoded:
        """(N, D) -> (N, D' + E), and a mask where cells are missing: no second X in memory.

        Subtracted as in float64, rounded last.
        """
        sources = self._sources.to(x.device) if with_mask else None
        width = self.width + (self.n_features if with_mask else 0)
        standardise, expose = self._standardiser(x), _exposed(self._readings, self.totals)
        return Encoded(x, width, standardise, self._chooser(), sources, expose, dtype, device)

    def _standardiser(self, x: Rows) -> Callable[[Tensor, Tensor | None], Tensor]:
        """For rows like those of x; float32 ones need no float64 where nothing overflows."""
        shift, scale = self.shift.to(x.device), self.scale.to(x.device)
        measure, steps = _Measure(self._readings), self.float32_steps()
        if x.dtype != torch.float32 or steps is None:

            def standardise(rows: Tensor, exposure: Tensor | None) -> Tensor:
                return (measure(rows.double(), exposure) - shift).div_(scale)

            return standardise
        high, factor, rest = (step.to(x.device) for step in steps)
        return lambda rows, _: torch.addcmul(rest, rows - high, factor)

    def float32_steps(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """high, factor and rest, (D,) in float32: rows of it are (x - high) * factor + rest.

        None where float32 would overflow, or logarithms are taken.
        """
        largest = max(self.shift.abs().max(), self.scale.max(), 1 / self.scale.min())
        if largest > _SAFE_IN_FLOAT32 or any(reading in _MEASURES for reading in self._readings):
            return None
        # The shift in two parts, of which the first is a float32: a value near it, as any in
        # a column that needs the care is, less the first part is exact.
        high = self.shift.float()
        return high, (1 / self.scale).float(), ((high - self.shift) / self.scale).float()

    def _chooser(self) -> Callable[[Tensor, Tensor], list[Tensor]]:
        """What makes of rows of X, as they are and standardised, rows of the model, in parts."""
        counts = _part(self._at("count"))
        numbers = _part(self._at("standardised", "log", "plain"))
        categories = self._at("category")
        if numbers == slice(0, len(self.families)):  # and nothing else
            return lambda rows, standardised: [standardised]

        def choose(rows: Tensor, standardised: Tensor) -> list[Tensor]:
            codes = rows[:, categories].T[:, :, None] if categories else ()
            pairs = zip(codes, (self.sizes[i] for i in categories), strict=True)
            one_hot = [code == torch.arange(size, device=code.device) for code, size in pairs]
            parts = rows[:, counts], standardised[:, numbers], *one_hot, standardised[:, counts]
            return [part for part in parts if part.shape[1]] or [standardised[:, :0]]

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
        x[:, logs] = encoded[:, self._logs].double() if is_mean else x[:, logs].exp()
        return x.to(dtype)

    def mean(self, p: Likelihood) -> Tensor:
        """The mean of p(x|z), for averages over z: of logarithms E[x] in the units of X."""
        return self._of_logs(p.mean, p, lambda mean, square: mean)

    def variance(self, p: Likelihood) -> Tensor:
        """The variance of p(x|z), for averages over z: of logarithms in squared units of X."""
        return self._of_logs(
            p.variance, p, lambda mean, square: mean.square() * torch.expm1(square)
        )

    def _of_logs(
        self, values: Tensor, p: Likelihood, moment: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Values (..., D'), those of logarithms replaced by a moment of the exponential.

        ``moment`` takes E[x], and the variance of the logarithm.
        """
        if not self._at("log"):
            return values
        shift, scale = self._shift_and_scale_of_logs(values)
        loc = p.mean[..., self._logs]
        square = p.variance[..., self._logs].double() * scale.square()
        mean = (shift + loc.double() * scale + square / 2).exp()
        replaced = values.clone()
        replaced[..., self._logs] = moment(mean, square).to(values)
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


def _moments(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance (D,) over the rows of all parts (n, D), of what is not missing.

    Each part by itself, then joined: Chan, Golub & LeVeque, Algorithms for computing the sample
    variance, 1983.
    """
    n = mean = square = torch.zeros((), dtype=torch.float64, device="cpu")
    for rows in parts:
        n_part = rows.new_full(rows.shape[1:], len(rows))
        if is_missing_any(rows):
            n_part = (~rows.isnan()).sum(0).to(rows)
        mean_part = rows.nansum(0) / n_part.clamp(min=1)
        n, mean, square = n.to(rows.device), mean.to(rows.device), square.to(rows.device)
        n_both = (n + n_part).clamp(min=1)
        step = mean_part - mean
        square = (
            square + (rows - mean_part).square_().nansum(0) + step.square() * n * n_part / n_both
        )
        n, mean = n + n_part, mean + step * n_part / n_both
    return mean, square / n.clamp(min=1)


class _Measure:
    """Columns of x, the logarithms of those that are measured so; counts at an exposure of 1."""

    def __init__(self, readings: Sequence[str]) -> None:
        self._which = {name: _where(readings, name) for name in _MEASURES if name in readings}

    def __call__(self, x: Tensor, exposure: Tensor | None = None) -> Tensor:
        measured = x
        for reading, which in self._which.items():
            source = x / exposure if exposure is not None and reading == "count" else x
            values = _MEASURES[reading](source)
            all_are = bool(which.all())
            measured = values if all_are else torch.where(which.to(x.device), values, measured)
        return measured


def _totals(x: Rows, readings: Sequence[str]) -> Tensor:
    """Totals of the counts of rows, in order: all of them, or the means of as many like parts."""
    counts = _counts(readings)
    totals = torch.cat([rows[:, counts].sum(1, dtype=torch.float64) for rows in chunks(x)])
    ordered = totals.sort()[0].cpu()
    parts = ordered.tensor_split(min(len(ordered), _N_TOTALS))
    return torch.stack([part.mean() for part in parts])


def _exposed(readings: Sequence[str], totals: Tensor) -> Callable[[Tensor], Tensor] | None:
    """What gives of rows (n, D) their exposure (n, 1); None if counts are not relative."""
    if not len(totals):
        return None
    counts = _counts(readings)

    def expose(rows: Tensor) -> Tensor:
        own = rows[:, counts].sum(1, keepdim=True, dtype=torch.float64)
        return _exposure(own, totals)

    return expose


def _exposure(own: Tensor, totals: Tensor) -> Tensor:
    """The exposure of rows with these totals, in units of the mean total."""
    return (own / totals.mean().clamp(min=1.0).item()).clamp(min=_LEAST_EXPOSURE)


def _counts(readings: Sequence[str]) -> slice | list[int]:
    """Where the columns of counts are."""
    return _part([i for i, reading in enumerate(readings) if reading == "count"])


def _part(columns: list[int]) -> slice | list[int]:
    """An index of these columns: a slice, which copies nothing, where they are side by side."""
    if columns and columns == list(range(columns[0], columns[0] + len(columns))):
        return slice(columns[0], columns[0] + len(columns))
    return columns


def _where(readings: Sequence[str], *which: str) -> Tensor:
    return torch.tensor([reading in which for reading in readings], dtype=torch.bool, device="cpu")
