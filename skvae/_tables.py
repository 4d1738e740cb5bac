"""Tables as users have them <-> arrays of numbers: a category is its number, a bool 0 or 1.

Axes: ``N`` rows, ``D`` columns of X that are modelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from skvae._families import resolve_likelihoods
from skvae._frames import (
    LIBRARIES,
    Cells,
    categories_of,
    check_finite,
    check_hashable,
    frame_of,
    is_blank,
    kept,
    kind_of,
    library_of,
    numbers_of,
    read_columns,
)
from skvae._messages import listed


@dataclass(frozen=True)
class Column:
    """What is known of a column after fit."""

    name: Any  # a made up one where there are no names
    dtype: str
    family: str  # its likelihood; "" if it is not modelled
    categories: np.ndarray | None = None  # by number
    is_declared: bool = False  # the dtype says which categories there are
    is_ordered: bool = False

    @classmethod
    def of(cls, cells: Cells, family: str) -> Column:
        categories, is_declared = cells.declared, cells.declared is not None
        if family and family != "categorical":
            kind_of(cells.name, cells.dtype)  # what cannot be written again is not learned
        if family == "categorical" and categories is None:
            check_hashable(cells)
            categories = categories_of(cells)
        return cls(cells.name, cells.dtype, family, categories, is_declared, cells.is_ordered)

    @property
    def is_categorical(self) -> bool:
        """Whether it is modelled so; its dtype may have categories without that."""
        return self.family == "categorical"

    @property
    def size(self) -> int:
        """How many categories it is modelled with; 1 for numbers."""
        if not self.is_categorical:
            return 1
        assert self.categories is not None
        return len(self.categories)

    def encode(self, cells: Cells, unknown: str) -> np.ndarray:
        """(N,) numbers; NaN where they are missing, or by ``unknown`` a category is new."""
        if not self.is_categorical:
            return numbers_of(cells, self.family)
        return self._codes(cells, unknown)

    def _codes(self, cells: Cells, unknown: str) -> np.ndarray:
        assert self.categories is not None
        values, is_infinite = cells.values, is_blank(self.categories, infinite=True)
        numbers = enumerate(self.categories.tolist())
        number = {category: i for i, category in numbers if not is_infinite[i]}
        codes = np.full(len(values), np.nan)
        there = ~is_blank(values)
        try:
            codes[there] = [number.get(value, -1) for value in values[there].tolist()]
        except TypeError:
            check_hashable(cells)
            raise
        if (codes < 0).any():  # not for every cell, but where it may be
            check_finite(cells)
        if unknown == "missing":
            codes[codes < 0] = np.nan
        if (codes < 0).any():
            row = int(np.argmax(codes < 0))
            raise ValueError(
                f"column {self.name!r} of X has the category {values.tolist()[row]!r} (row {row}), "
                f"which was not there in fit. The categories are "
                f"{listed(self.categories.tolist())}. Fit again with rows of the new category, "
                "declare all of them by a categorical dtype before the first fit, or let new ones "
                "count as missing: handle_unknown='missing'."
            )
        return codes

    def decode(self, numbers: np.ndarray, *, is_mean: bool) -> Cells:
        """(N,) numbers -> cells like those that were read.

        Where means of integers lie between these, and where a category that is modelled as a
        number is drawn as one, they are no longer of the column's dtype.
        """
        if self.is_categorical:
            assert self.categories is not None
            return self._cells(self.categories[numbers.astype(np.intp)])
        kind = kind_of(self.name, self.dtype)
        is_between = kind == "integer" and is_mean and bool((numbers != np.rint(numbers)).any())
        if kind == "category" or is_between:
            return Cells(self.name, numbers, "")
        if kind == "integer":
            numbers = _integers(numbers, self.dtype)
        return self._cells(numbers > 0.5 if kind == "bool" else numbers)

    def _cells(self, values: np.ndarray) -> Cells:
        declared = self.categories if self.is_declared else None
        return Cells(self.name, values, self.dtype, declared, self.is_ordered)


@dataclass(frozen=True)
class Table:
    """How to read X, and how to write rows like those of X."""

    columns: tuple[Column, ...]  # all that X has
    library: str = ""  # of the DataFrame that was fitted; "" for an array

    @classmethod
    def of(cls, X: Any, likelihood: Any, modelled: Sequence[int] | None = None) -> Table:
        """Of a DataFrame or array; the columns to be modelled, by default all."""
        read = read_columns(X)
        families = resolve_likelihoods(likelihood, X, read, modelled)
        columns = tuple(Column.of(cells, name) for cells, name in zip(read, families, strict=True))
        return cls(columns, library_of(X))

    @property
    def modelled(self) -> list[Column]:
        return [column for column in self.columns if column.family]

    @property
    def families(self) -> list[str]:
        return [column.family for column in self.modelled]

    @property
    def sizes(self) -> list[int]:
        """Categories of each modelled column; 1 for numbers."""
        return [column.size for column in self.modelled]

    def encode(self, X: Any, unknown: str) -> np.ndarray:
        """(N, D) numbers of the modelled columns, in float32 if these are."""
        read = zip(self.columns, read_columns(X), strict=True)
        pairs = [(column, cells) for column, cells in read if column.family]
        dtypes = {cells.values.dtype for column, cells in pairs if not column.is_categorical}
        is_single = dtypes - {np.dtype(bool)} == {np.dtype(np.float32)}
        encoded = np.column_stack([column.encode(cells, unknown) for column, cells in pairs])
        return encoded.astype(np.float32) if is_single else encoded

    def decode(
        self,
        x: np.ndarray,
        beside: Mapping[int, np.ndarray],
        *,
        is_mean: bool = False,
        completed: Any = None,
    ) -> Any:
        """(N, D) numbers -> rows like those of X; ``beside`` has the columns not modelled.

        Where they complete the rows of an X, integers of it stay what they are: as numbers of
        float64 they are rounded beyond 2^53.
        """
        parts = iter(x.T)
        columns = [
            column.decode(next(parts), is_mean=is_mean)
            if column.family
            else column._cells(beside[i])
            for i, column in enumerate(self.columns)
        ]
        if completed is not None:
            # A category that was not there in fit may count as missing.
            columns = [
                cells if column.is_categorical else kept(cells, completed, i)
                for i, (column, cells) in enumerate(zip(self.columns, columns, strict=True))
            ]
        if self.library:
            return frame_of(self.library, columns)
        if all(cells.values.dtype.kind in "biuf" for cells in columns):
            return np.column_stack([cells.values for cells in columns]).astype(x.dtype)
        table = np.empty((len(x), len(columns)), dtype=object)
        for i, cells in enumerate(columns):
            table[:, i] = cells.values
        return table

    def to_plain(self) -> dict[str, Any]:
        return {"columns": [asdict(column) for column in self.columns], "library": self.library}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Table:
        """Raises ValueError where it is not what `to_plain` gives."""
        columns = tuple(Column(**column) for column in plain["columns"])
        for column in columns:
            categories = column.categories
            if column.family and not column.is_categorical:
                kind_of(column.name, column.dtype)
            is_list = isinstance(categories, np.ndarray) and categories.ndim == 1
            if not isinstance(column.dtype, str) or not (is_list or categories is None):
                raise ValueError(f"its column {column.name!r} cannot be")
        if plain["library"] not in ("", *LIBRARIES):
            raise ValueError(f"it has DataFrames of {plain['library']!r}")
        return cls(columns, plain["library"])


def _integers(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """The nearest ones that the dtype holds, where numpy has one of its name."""
    try:
        info = np.iinfo(dtype.lower())
    except (TypeError, ValueError):
        info = np.iinfo(np.int64)
    last = float(info.max)
    if last > info.max:  # the largest of 64 bits is no float: the next one below it
        last = float(np.nextafter(last, 0))
    nearest: np.ndarray = np.rint(numbers).clip(float(info.min), last)
    return nearest.astype(info.dtype)
