"""Conditions: labels and numbers <-> the columns c that both networks are given.

Axes: ``N`` rows, ``C`` columns of c, ``M`` combinations of labels seen in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import type_of_target
from torch import Tensor

from skvae._frames import (
    first_unhashable,
    is_blank,
    is_categorical,
    is_number,
    narrowed,
    plain,
)
from skvae._messages import listed, new_category_error, warn_user
from skvae._sklearn import to_numpy

#: The columns of a condition, with their names where they have any.
Values = Sequence[tuple[str | None, np.ndarray]]


class Condition(NamedTuple):
    """The condition of the rows of a fit."""

    values: Values
    kinds: Sequence[str]  # of each column: "label", "category" or "number"
    source: str  # where it was: in "columns" of X, the "keyword" or the "target" y


# More labels than these, and than one for so many rows, are rather numbers.
_FEW_LABELS = 20
_ROWS_OF_A_LABEL = 4


@dataclass(frozen=True)
class Labels:
    """A column of labels, one column of c for each category."""

    name: str
    categories: np.ndarray  # (n_categories,), sorted

    @classmethod
    def of(cls, name: str, values: np.ndarray) -> Labels:
        try:
            categories = np.unique(values)
            is_ordered = values.dtype.kind != "O" or len(categories) == len(set(values))
        except TypeError:
            is_ordered = False
        if not is_ordered:  # labels of several types, or sets, have no order but their text
            by_text = sorted(set(values), key=lambda v: (str(type(v)), str(v)))
            categories = np.fromiter(by_text, object, len(by_text))
        return cls(name, categories)

    def codes(self, values: np.ndarray) -> np.ndarray:
        """The position of each value among the categories, ``(N,)``."""
        position = {category: i for i, category in enumerate(self.categories.tolist())}
        codes = np.array([position.get(value, -1) for value in values.tolist()], dtype=np.intp)
        if (codes < 0).any():
            raise new_category_error(
                f"condition column {self.name!r}",
                values,
                codes,
                self.categories,
                "Give one of these, or fit again with rows of the new category; in "
                "cross-validation, cv=StratifiedKFold() keeps every category in every fold.",
            )
        return codes

    def encode(self, values: np.ndarray) -> np.ndarray:
        return np.eye(len(self.categories))[self.codes(values)]


@dataclass(frozen=True)
class Number:
    """A column of numbers, standardised: one column of c."""

    name: str
    mean: float
    scale: float

    @classmethod
    def of(cls, name: str, values: np.ndarray) -> Number:
        values = values.astype(np.float64)
        largest = float(np.abs(values).max())
        # A range of a few roundings is a constant's, whose deviation is no scale.
        if np.ptp(values / (largest or 1.0)) <= 8 * np.finfo(np.float64).eps:
            return cls(name, float(values[0]), 1.0)
        values = values / largest  # whose squares are numbers
        return cls(name, largest * float(values.mean()), largest * float(values.std()))

    def encode(self, values: np.ndarray) -> np.ndarray:
        try:
            if values.dtype.kind in "mMc":
                raise TypeError("neither a date nor a complex number is one on a line")
            numbers = values.astype(np.float64)
        except (TypeError, ValueError, OverflowError):
            cells = values.tolist()
            row = next((i for i, value in enumerate(cells) if not is_number(value)), 0)
            raise ValueError(
                f"condition column {self.name!r} was a column of numbers in fit; "
                f"now it holds {cells[row]!r} (row {row}), which is none that a float64 can hold. "
                "Give numbers, or fit again with labels."
            ) from None
        with np.errstate(over="ignore"):
            encoded = (numbers - self.mean) / self.scale
        is_far = np.abs(encoded) > np.finfo(np.float32).max
        if is_far.any():
            row = int(np.argmax(is_far))
            raise ValueError(
                f"condition column {self.name!r} has {numbers[row]:g} (row {row}), which is "
                f"further from its mean in fit, {self.mean:g}, than a float32 can tell. Give a "
                "number of the range that it had in fit."
            )
        return encoded[:, None]


@dataclass(frozen=True)
class ConditionCodec:
    """Takes the columns of a condition to those of c, and combinations of labels back.

    Without a condition c has no columns, and there is one combination.
    """

    columns: tuple[Labels | Number, ...] = ()
    #: c of each combination of labels seen in training (M, C), and the log of its share.
    combinations: np.ndarray | None = field(default_factory=lambda: np.zeros((1, 0)))
    log_prior: np.ndarray = field(default_factory=lambda: np.zeros(1))
    codes: np.ndarray = field(
        default_factory=lambda: np.zeros((1, 0), dtype=np.intp)
    )  # (M, columns)
    is_named: bool = False  # whether the names are the user's, and not made up

    @classmethod
    def of(cls, condition: Condition) -> ConditionCodec:
        values, kinds = condition.values, condition.kinds
        columns = tuple(
            Number.of(_name(i, name), v) if kind == "number" else Labels.of(_name(i, name), v)
            for i, ((name, v), kind) in enumerate(zip(values, kinds, strict=True))
        )
        is_named = all(name is not None for name, _ in values)
        labels = [column for column in columns if isinstance(column, Labels)]
        if len(labels) < len(columns):
            return cls(columns, None, np.zeros(0), is_named=is_named)
        codes = np.column_stack([c.codes(v) for c, (_, v) in zip(labels, values, strict=True)])
        seen, counts = np.unique(codes, axis=0, return_counts=True)
        encoded = [np.eye(len(column.categories))[seen[:, i]] for i, column in enumerate(labels)]
        return cls(columns, np.hstack(encoded), np.log(counts / counts.sum()), seen, is_named)

    @property
    def n_columns(self) -> int:
        return sum(len(c.categories) if isinstance(c, Labels) else 1 for c in self.columns)

    @property
    def labels(self) -> list[np.ndarray]:
        return [column.categories for column in self.columns if isinstance(column, Labels)]

    @property
    def numbers(self) -> list[str]:
        """Names of the columns that are numbers."""
        return [column.name for column in self.columns if isinstance(column, Number)]

    def ordered(self, values: Values) -> list[np.ndarray]:
        """The columns of a condition in the order of fit: by name where both have names."""
        names = [column.name for column in self.columns]
        if len(values) != len(names):
            raise ValueError(
                f"condition has {len(values)} column(s), but the model was fitted with "
                f"{len(names)}: {listed(names)}."
            )
        given = {name: column for name, column in values if name is not None}
        if len(names) == 1 or not self.is_named or len(given) < len(names):
            return [column for _, column in values]
        if set(given) != set(names):
            raise ValueError(
                f"condition has the columns {listed(list(given))}, but the model was fitted with "
                f"{listed(names)}. Rename them, or pass an array to go by their order."
            )
        return [given[name] for name in names]

    def encode(self, values: Values) -> np.ndarray:
        """Columns of the condition -> c (N, C)."""
        ordered = zip(self.columns, self.ordered(values), strict=True)
        return np.hstack([column.encode(values) for column, values in ordered])

    def tensor(
        self, values: Values, n_rows: int, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """c (N, C) of the values, or of no columns of them."""
        if not self.columns:
            return torch.zeros(n_rows, 0, dtype=dtype, device=device)
        return torch.from_numpy(self.encode(values)).to(device, dtype)

    def values(self, combinations: np.ndarray) -> list[np.ndarray]:
        """The labels of these combinations (given by number), one array a column."""
        return [
            column.categories[self.codes[combinations, i]]
            for i, column in enumerate(self.columns)
            if isinstance(column, Labels)
        ]


def columns_named(condition_columns: Any) -> list[Any]:
    """The names and positions in `condition_columns`, which a single one may be by itself."""
    if condition_columns is None:
        return []
    is_one = isinstance(condition_columns, str | Integral)
    return [condition_columns] if is_one else list(condition_columns)


def read_condition(
    condition: Any, n_rows: int | None = None, *, names: Sequence[str] = ()
) -> list[tuple[str | None, np.ndarray]]:
    """Whatever a user calls a condition -> its columns, with their names if they have any.

    Where any number of rows will do, a single value is a condition of one row. Raises
    ValueError for missing values and for a length that is not ``n_rows``.
    """
    if isinstance(condition, (Mapping, Set)):
        raise _no_table(condition, "A DataFrame has columns with names.")
    if issparse(condition):
        raise _no_table(condition, "Make it dense: condition.toarray().")
    if type(condition).__name__ == "LazyFrame":
        raise _no_table(condition, "Its rows are not there yet: give condition.collect().")
    condition = _unmasked(condition)
    columns: list[tuple[str | None, np.ndarray]]
    if _is_frame(condition):
        given = [str(name) for name in condition.columns]
        if len(set(given)) < len(given):
            raise ValueError(f"condition has two columns of one name: {listed(given)}.")
        columns = [(str(name), plain(condition[name])) for name in condition.columns]
    else:
        name = getattr(condition, "name", None)
        values = plain(condition)
        if values.ndim == 0 and _is_iterable(condition):
            raise _no_table(condition, "Make it a list: list(condition).")
        if values.ndim == 0 and n_rows is not None:
            repeated = f"[{condition!r}] * {n_rows}"
            raise ValueError(
                f"condition has to be a column or a table with a value for every row; got the "
                f"single value {condition!r}. Write {[condition] if n_rows == 1 else repeated}."
            )
        values = np.atleast_1d(values)
        # A Series is one column, though of polars' structs numpy makes a table.
        if values.ndim == 1 or len(getattr(condition, "shape", ())) == 1:
            columns = [(None if name is None else str(name), values)]
        elif values.ndim == 2:
            columns = [(None, column) for column in values.T]
        else:
            raise ValueError(f"condition has {values.ndim} axes; it has to be a column or a table.")
    if not columns:
        raise ValueError("condition is a table without columns.")
    if n_rows is None and not len(columns[0][1]):
        raise ValueError("condition has no rows.")
    if names:
        columns = [(name, values) for name, (_, values) in zip(names, columns, strict=True)]
    columns = [(name, narrowed(values)) for name, values in columns]
    for i, (given_name, values) in enumerate(columns):
        name = _name(i, given_name)
        if n_rows is not None and len(values) != n_rows:
            raise ValueError(
                f"condition column {name!r} has {len(values)} rows, but {n_rows} are needed: one "
                f"for each row of X (or of Z, or of n_samples)."
            )
        if values.ndim > 1 or values.dtype.names is not None:
            raise ValueError(
                f"condition column {name!r} has several values in a cell. Give a DataFrame with a "
                "column for each of them."
            )
        if found := first_unhashable(values):
            row, value = found
            raise ValueError(
                f"condition column {name!r} has {value!r} (row {row}), which is no label: a "
                f"{type(value).__name__} is not hashable. Labels are strings or numbers."
            )
        missing = is_blank(values, infinite=True)
        if missing.any():
            raise ValueError(
                f"condition column {name!r} is missing (NaN, None or infinite) in row "
                f"{int(np.argmax(missing))}. Every row needs a condition: drop these rows, or "
                f"make the missing a category of its own."
            )
    return columns


def _no_table(condition: Any, remedy: str) -> TypeError:
    return TypeError(
        f"condition has to be a column or a table with a row for each row; got a "
        f"{type(condition).__name__}. {remedy}"
    )


def _unmasked(given: Any) -> Any:
    """An array with None where a masked one is masked, which is as missing."""
    if not isinstance(given, np.ma.MaskedArray):
        return given
    if not np.ma.is_masked(given):
        return given.data
    cells = np.array(given.data, dtype=object)
    cells[np.ma.getmaskarray(given)] = None
    return cells


def _is_iterable(condition: Any) -> bool:
    """Whether it has values, of which numpy makes no array: those of a generator for instance."""
    is_single = isinstance(condition, str | bytes) or hasattr(condition, "ndim")
    return isinstance(condition, Iterable) and not is_single


def _is_frame(condition: Any) -> bool:
    return hasattr(condition, "columns") and hasattr(condition, "to_numpy")


def _name(position: int, name: str | None) -> str:
    """The name of a column, made up where it has none."""
    return f"condition[{position}]" if name is None else name


def kinds_of(condition: Any, values: Values) -> list[str]:
    """Of the columns of a condition: floats are a "number"; all else is a "label", or a "category"
    if its dtype says so.
    """
    return _kinds(
        condition, values, lambda column: "number" if column.dtype.kind == "f" else "label"
    )


def kinds_of_target(y: Any, values: Values) -> list[str]:
    """Of the columns of y, which are those of its values."""
    return _kinds(y, values, _kind_of_target)


def _kinds(given: Any, values: Values, kind: Callable[[np.ndarray], str]) -> list[str]:
    """ "category" if a column's dtype says so, else of what kind its values are."""
    columns = [given[name] for name in given.columns] if _is_frame(given) else [given]
    columns *= len(values) // len(columns)  # all columns of an array are of its dtype
    return [
        "category" if is_categorical(one) else kind(column)
        for one, (_, column) in zip(columns, values, strict=True)
    ]


def _kind_of_target(y: np.ndarray) -> str:
    """y is a label or a number as scikit-learn sees a target."""
    if y.dtype.kind == "O":  # of several types
        return "label"
    return "number" if type_of_target(y, input_name="y").startswith("continuous") else "label"


def warn_of_many_labels(condition: Condition) -> None:
    """Numbers that are labels only since they are whole: seldom what was meant."""
    pairs = zip(condition.values, condition.kinds, strict=True)
    for i, ((name, column), kind) in enumerate(pairs):
        if kind != "label" or column.dtype.kind not in "iuf":
            continue
        n_labels = len(np.unique(column))
        if n_labels > max(_FEW_LABELS, len(column) // _ROWS_OF_A_LABEL):
            warn_user(
                f"condition column {_name(i, name)!r} has {n_labels} different numbers in "
                f"{len(column)} rows, and each of them is taken for a label of its own. If they "
                "are numbers, give them as floats: condition=values.astype(float)."
            )


def read_target(y: Any, n_rows: int, *, warn: bool = True) -> list[tuple[str | None, np.ndarray]]:
    """y -> its columns with their names; ``warn`` of one column that is none of scikit-learn's."""
    name = getattr(y, "name", None)
    y = _unmasked(y)
    # Of lists, too, numbers must not turn into strings beside them.
    given = plain(y) if isinstance(y, (list, tuple)) else y
    values = to_numpy(
        check_array(given, ensure_2d=False, dtype=None, ensure_all_finite=False, input_name="y")
    )
    if values.ndim == 2 and values.shape[1] == 1:
        values = column_or_1d(values, warn=warn)
    names = [name or "y"]
    if values.ndim == 2:
        names = list(getattr(y, "columns", [f"y{i}" for i in range(values.shape[1])]))
    # scikit-learn has one dtype for all, and floats for integers that may be missing.
    is_typed = hasattr(y, "to_numpy")
    return read_condition(y if is_typed else values, n_rows, names=[str(name) for name in names])
