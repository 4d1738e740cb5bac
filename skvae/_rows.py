"""Tables of rows, (N, D): tensors, and what makes the rows that are asked for.

A table that is zero but for a few cells, lies on a disk, or is too large for a device is never
there as a whole in the form that the model sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# Numbers in the rows that are taken at once where all are gone through: on a CPU float64 copies
# stay in the cache, on a GPU there is enough to keep it busy.
_CHUNK_NUMBERS = {"cpu": 2**18, "cuda": 2**24}

# Numbers of the rows that are made ahead.
_WINDOW_NUMBERS = 2**22


class Rows(Protocol):
    """What a tensor (N, D) is asked for here, and need not be a tensor for."""

    @property
    def shape(self) -> torch.Size: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Tensor: ...

    def index_select(self, dim: int, index: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class SparseRows:
    """Rows of which a few cells are not zero: compressed sparse rows."""

    first: Tensor  # (N + 1,) where the cells of each row begin
    columns: Tensor  # (M,) of every cell
    values: Tensor  # (M,)
    n_columns: int

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), self.n_columns))

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        return self.values.device

    def __len__(self) -> int:
        return len(self.first) - 1

    def __getitem__(self, rows: slice) -> Tensor:
        return self.index_select(0, torch.arange(len(self), device=self.device)[rows])

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """(n,) -> (n, D), dense."""
        begin = self.first[index].long()
        counts = self.first[index + 1].long() - begin
        row = torch.arange(len(index), device=self.device).repeat_interleave(counts)
        # Cells are counted through all rows; from there to where each row has its own.
        before = counts.cumsum(0) - counts
        cells = torch.arange(len(row), device=self.device) + (begin - before)[row]
        dense = self.values.new_zeros(len(index), self.n_columns)
        where = (row, self.columns[cells].long())
        return dense.index_put_(where, self.values[cells], accumulate=True)


@dataclass(frozen=True)
class Chosen:
    """Some rows of a table."""

    rows: Rows
    which: Tensor  # (n,)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), *self.rows.shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        return self.rows.dtype

    @property
    def device(self) -> torch.device:
        return self.rows.device

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, rows: slice) -> Tensor:
        return self.rows.index_select(0, self.which[rows])

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        return self.rows.index_select(0, self.which[index])


class Window:
    """Where the rows of a block's steps are found in one tensor: in the table, if that is one.

    Else in the rows of some steps at a time, made and laid side by side before these are taken:
    a step is the same in both cases, and reads them from where they always are.
    """

    def __init__(self, x: Rows, asked: Tensor) -> None:
        """``asked`` (T, K, B) are the rows of x for every step; who changes them says so."""
        self._x, self._asked = x, asked
        self._first = -1  # the step whose rows come first
        if isinstance(x, Tensor):
            self.table = x
            return
        n_steps, *shape = asked.shape
        n_rows = math.prod(shape)
        self._n_steps = max(1, min(n_steps, _WINDOW_NUMBERS // max(1, n_rows * x.shape[1])))
        size = self._n_steps * n_rows
        self.table = torch.empty(size, x.shape[1], dtype=x.dtype, device=x.device)
        every = torch.arange(size, device=x.device).view(self._n_steps, *shape)
        self._places = every.repeat(math.ceil(n_steps / self._n_steps), 1, 1)

    def renew(self) -> None:
        """Other rows are asked for."""
        self._first = -1

    def show(self, step: int) -> None:
        """Make the rows of this step, and of those after it, if they are not there."""
        if self.table is self._x:
            return
        first = step - step % self._n_steps
        if first != self._first:
            rows = self._asked[first : first + self._n_steps].flatten()
            self.table[: len(rows)] = self._x.index_select(0, rows)
            self._first = first

    def places(self, step: Tensor, rows: Tensor) -> Tensor:
        """Where the rows (K, B) of a step (1,) are in the table, (K, B)."""
        return rows if self.table is self._x else self._places.index_select(0, step)[0]


def chunks(x: Rows) -> Iterator[Tensor]:
    """All rows of x, some at a time."""
    return (x[rows] for rows in slices(x))


def slices(x: Rows) -> Iterator[slice]:
    """Where these are."""
    size = max(1, _CHUNK_NUMBERS[x.device.type] // max(1, x.shape[1]))
    return (slice(i, i + size) for i in range(0, len(x), size))


def mean_rows(x: Rows, read: Callable[[Tensor], tuple[Tensor, Tensor | None]]) -> Tensor:
    """Means (D,) in float64 of what ``read`` makes of rows: values, and a mask of those there.

    Without a mask all are.
    """
    total: Tensor | float = 0.0
    n_there: Tensor | float = 0.0
    for rows in chunks(x):
        values, mask = read(rows)
        there = values if mask is None else values * mask
        total = total + there.sum(0, dtype=torch.float64)
        n_there = n_there + (len(values) if mask is None else mask.sum(0, dtype=torch.float64))
    assert isinstance(total, Tensor)
    return total / n_there


def has_missing(x: Rows) -> bool:
    """Whether a cell is NaN."""
    return any(is_missing_any(rows) for rows in chunks(x))


def is_missing_any(rows: Tensor) -> bool:
    """Whether a cell of a tensor is NaN. Its sum, which is quicker, tells if none is."""
    return bool(rows.sum().isnan()) and bool(rows.isnan().any())
