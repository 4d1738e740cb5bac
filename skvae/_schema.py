"""The schema of X, and by it X <-> arrays of numbers: a category is its number, a bool 0 or 1.

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
    ColumnData,
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
from skvae._messages import new_category_error


@dataclass(frozen=True)
class Field:
    """What is known of a column of X after fit, but for its values."""

    name: Any  # a made up one where there are no names
    dtype: str
    family: str  # its likelihood; "" if it is not modelled
    categories: np.ndarray | None = None  # by number
    is_declared: bool = False  # the dtype says which categories there are
    is_ordered: bool = False

    @classmethod
    def of(cls, column: ColumnData, family: str) -> Field:
        categories, is_declared = column.declared, column.declared is not None
        if family and family != "categorical":
            kind_of(column.name, column.dtype)  # what cannot be written again is not learned
        if family == "categorical" and categories is None:
            check_hashable(column)
            categories = categories_of(column)
        return cls(column.name, column.dtype, family, categories, is_declared, column.is_ordered)

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

    def encode(self, column: ColumnData, unknown: str) -> np.ndarray:
        """(N,) numbers; NaN where they are missing, or by ``unknown`` a category is new."""
        if not self.is_categorical:
            return numbers_of(column, self.family)
        return self._codes(column, unknown)

    def _codes(self, column: ColumnData, unknown: str) -> np.ndarray:
        assert self.categories is not None
        values, is_infinite = column.values, is_blank(self.categories, infinite=True)
        numbers = enumerate(self.categories.tolist())
        number = {category: i for i, category in numbers if not is_infinite[i]}
        codes = np.full(len(values), np.nan)
        there = ~is_blank(values)
        try:
            codes[there] = [number.get(value, -1) for value in values[there].tolist()]
        except TypeError:
            check_hashable(column)
            raise
        if (codes < 0).any():  # not for every cell, but where it may be
            check_finite(column)
        if unknown == "missing":
            codes[codes < 0] = np.nan
        if (codes < 0).any():
            raise new_category_error(
                f"column {self.name!r} of X",
                values,
                codes,
                self.categories,
                "Fit again with rows of the new category, declare all of them by a categorical "
                "dtype before the first fit, or let new ones count as missing: "
                "handle_unknown='missing'.",
            )
        return codes

    def decode(self, numbers: np.ndarray, *, is_mean: bool) -> ColumnData:
        """(N,) numbers -> a column like the one that was read.

        Where means of integers lie between these, and where a category that is modelled as a
        number is drawn as one, they are no longer of the column's dtype.
        """
        if self.is_categorical:
            assert self.categories is not None
            return self._data(self.categories[numbers.astype(np.intp)])
        kind = kind_of(self.name, self.dtype)
        is_between = kind == "integer" and is_mean and bool((numbers != np.rint(numbers)).any())
        if kind == "category" or is_between:
            return ColumnData(self.name, numbers, "")
        if kind == "integer":
            numbers = _integers(numbers, self.dtype)
        return self._data(numbers > 0.5 if kind == "bool" else numbers)

    def _data(self, values: np.ndarray) -> ColumnData:
        declared = self.categories if self.is_declared else None
        return ColumnData(self.name, values, self.dtype, declared, self.is_ordered)


@dataclass(frozen=True)
class Schema:
    """What columns X has: how to read such rows, and how to write them."""

    fields: tuple[Field, ...]  # of all columns that X has
    library: str = ""  # of the DataFrame that was fitted; "" for an array

    @classmethod
    def of(cls, X: Any, likelihood: Any, modelled: Sequence[int] | None = None) -> Schema:
        """The schema of a DataFrame or array; all columns are modelled if none are named."""
        read = read_columns(X)
        families = resolve_likelihoods(likelihood, X, read, modelled)
        pairs = zip(read, families, strict=True)
        return cls(tuple(Field.of(column, name) for column, name in pairs), library_of(X))

    @property
    def modelled(self) -> list[Field]:
        return [field for field in self.fields if field.family]

    @property
    def families(self) -> list[str]:
        return [field.family for field in self.modelled]

    @property
    def sizes(self) -> list[int]:
        """Categories of each modelled column; 1 for numbers."""
        return [field.size for field in self.modelled]

    def encode(self, X: Any, unknown: str) -> np.ndarray:
        """(N, D) numbers of the modelled columns, in float32 if these are."""
        read = zip(self.fields, read_columns(X), strict=True)
        pairs = [(field, column) for field, column in read if field.family]
        dtypes = {column.values.dtype for field, column in pairs if not field.is_categorical}
        is_single = dtypes - {np.dtype(bool)} == {np.dtype(np.float32)}
        encoded = np.column_stack([field.encode(column, unknown) for field, column in pairs])
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
            field.decode(next(parts), is_mean=is_mean) if field.family else field._data(beside[i])
            for i, field in enumerate(self.fields)
        ]
        if completed is not None:
            # A category that was not there in fit may count as missing.
            columns = [
                column if field.is_categorical else kept(column, completed, i)
                for i, (field, column) in enumerate(zip(self.fields, columns, strict=True))
            ]
        if self.library:
            return frame_of(self.library, columns)
        if all(column.values.dtype.kind in "biuf" for column in columns):
            return np.column_stack([column.values for column in columns]).astype(x.dtype)
        table = np.empty((len(x), len(columns)), dtype=object)
        for i, column in enumerate(columns):
            table[:, i] = column.values
        return table

    def to_plain(self) -> dict[str, Any]:
        return {"columns": [asdict(field) for field in self.fields], "library": self.library}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Schema:
        """Raises ValueError where it is not what `to_plain` gives."""
        fields = tuple(Field(**field) for field in plain["columns"])
        for field in fields:
            categories = field.categories
            if field.family and not field.is_categorical:
                kind_of(field.name, field.dtype)
            is_list = isinstance(categories, np.ndarray) and categories.ndim == 1
            if not isinstance(field.dtype, str) or not (is_list or categories is None):
                raise ValueError(f"its column {field.name!r} cannot be")
        if plain["library"] not in ("", *LIBRARIES):
            raise ValueError(f"it has DataFrames of {plain['library']!r}")
        return cls(fields, plain["library"])


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
