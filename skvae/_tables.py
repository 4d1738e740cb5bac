"""Tables as users have them <-> arrays of numbers: likelihoods, categories, dtypes by column.

In the arrays a category is its number, and a bool is 0 or 1.

Axes: ``N`` rows, ``D`` columns of X that are modelled.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from skvae._conditions import is_missing, listed, narrowed, plain
from skvae._likelihoods import LIKELIHOODS
from skvae._sklearn import column_indices

#: Likelihoods that take a column of numbers as it is.
OF_NUMBERS = frozenset(name for name in LIKELIHOODS if name != "categorical")

_LIBRARIES = ("pandas", "polars")

# How the names of dtypes begin, of numpy, pandas and polars alike.
_KINDS = {
    "category": "category", "categorical": "category", "enum": "category", "str": "category",
    "object": "category", "large_string": "category", "bool": "bool", "int": "integer",
    "uint": "integer", "float": "float", "double": "float",
}  # fmt: skip


class Given(NamedTuple):
    """A column of the user's table."""

    name: str
    values: np.ndarray
    dtype: str
    declared: np.ndarray | None = None  # categories, where the dtype says which there are
    is_ordered: bool = False


@dataclass(frozen=True)
class Column:
    """What is known of a column after fit."""

    name: Any  # a position where there are no names
    dtype: str
    family: str  # its likelihood; "" if it is not modelled
    categories: np.ndarray | None = None  # by number
    is_ordered: bool = False

    @classmethod
    def of(cls, given: Given, family: str) -> Column:
        categories = given.declared
        if family == "categorical" and categories is None:
            categories = _categories(given)
        return cls(given.name, given.dtype, family, categories, given.is_ordered)

    @property
    def is_categorical(self) -> bool:
        """Whether it is modelled so; its dtype may have categories without that."""
        return self.family == "categorical"

    def encode(self, given: Given) -> np.ndarray:
        """(N,) numbers."""
        values, missing = given.values, is_missing(given.values)
        if missing.any() and not (values.dtype.kind == "f" and np.isinf(values).any()):
            raise ValueError(
                f"X has a missing value (NaN, None or NA) in column {self.name!r}, row "
                f"{int(np.argmax(missing))}. Drop these rows, impute the column, or make the "
                "missing a category of its own."
            )
        return self._codes(values) if self.is_categorical else self._numbers(values)

    def _codes(self, values: np.ndarray) -> np.ndarray:
        assert self.categories is not None
        number = {category: i for i, category in enumerate(self.categories.tolist())}
        codes = np.array([number.get(value, -1) for value in values.tolist()], dtype=np.float64)
        if (codes < 0).any():
            row = int(np.argmax(codes < 0))
            raise ValueError(
                f"column {self.name!r} of X has the category {values.tolist()[row]!r} (row {row}), "
                f"which was not there in fit. The categories are "
                f"{listed(self.categories.tolist())}. Fit again with rows of the new category, or "
                "declare all of them by a categorical dtype, before the first fit."
            )
        return codes

    def _numbers(self, values: np.ndarray) -> np.ndarray:
        try:
            return values.astype(np.float64)
        except (TypeError, ValueError):
            row = next(i for i, value in enumerate(values.tolist()) if not _is_number(value))
        raise ValueError(
            f"column {self.name!r} of X has {values.tolist()[row]!r} (row {row}), but its "
            f"likelihood, {self.family!r}, is of numbers. Use 'categorical' for this column."
        )

    def decode(self, numbers: np.ndarray, *, is_mean: bool) -> np.ndarray:
        """(N,) values of the column: a mean of numbers may lie between those of its dtype."""
        if self.is_categorical:
            assert self.categories is not None
            return self.categories[numbers.astype(np.intp)]
        kind = _kind(self)
        if kind == "bool":
            return numbers > 0.5
        if kind != "integer" or is_mean:
            return numbers
        return np.rint(numbers).clip(*_range(self.dtype)).astype(np.int64)


@dataclass(frozen=True)
class Table:
    """How to read X, and how to write rows like those of X."""

    columns: tuple[Column, ...]  # all that X has
    library: str = ""  # of the DataFrame that was fitted; "" for an array

    @classmethod
    def of(cls, X: Any, likelihood: Any, modelled: Sequence[int] | None = None) -> Table:
        """Of a DataFrame or array; the columns to be modelled, by default all."""
        given = given_columns(X)
        modelled = range(len(given)) if modelled is None else modelled
        families = families_of(likelihood, X, given, modelled)
        columns = tuple(Column.of(g, family) for g, family in zip(given, families, strict=True))
        return cls(columns, _library(X))

    @property
    def modelled(self) -> list[Column]:
        return [column for column in self.columns if column.family]

    @property
    def families(self) -> list[str]:
        return [column.family for column in self.modelled]

    @property
    def sizes(self) -> list[int]:
        """Categories of each modelled column; 1 for numbers."""
        return [len(column.categories) if column.is_categorical else 1 for column in self.modelled]

    def encode(self, X: Any) -> np.ndarray:
        """(N, D) numbers of the modelled columns, in float32 if these are."""
        pairs = [
            (column, given)
            for column, given in zip(self.columns, given_columns(X), strict=True)
            if column.family
        ]
        dtypes = {given.values.dtype for column, given in pairs if not column.is_categorical}
        is_single = dtypes - {np.dtype(bool)} == {np.dtype(np.float32)}
        encoded = np.column_stack([column.encode(given) for column, given in pairs])
        return encoded.astype(np.float32) if is_single else encoded

    def decode(
        self, x: np.ndarray, beside: Mapping[int, np.ndarray], *, is_mean: bool = False
    ) -> Any:
        """(N, D) numbers -> rows like those of X; ``beside`` has the columns not modelled."""
        parts = iter(x.T)
        columns = [
            column.decode(next(parts), is_mean=is_mean) if column.family else beside[i]
            for i, column in enumerate(self.columns)
        ]
        if self.library:
            return _LIBRARY_FRAMES[self.library](self.columns, columns)
        if all(values.dtype.kind in "biuf" for values in columns):
            return np.column_stack(columns).astype(x.dtype)
        table = np.empty((len(x), len(columns)), dtype=object)
        for i, values in enumerate(columns):
            table[:, i] = values
        return table

    def to_plain(self) -> dict[str, Any]:
        return {"columns": [asdict(column) for column in self.columns], "library": self.library}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Table:
        columns = tuple(Column(**column) for column in plain["columns"])
        # Copies: what is read from a memory map must not hang on its file.
        copied = (
            c if c.categories is None else replace(c, categories=np.array(c.categories))
            for c in columns
        )
        return cls(tuple(copied), plain["library"])


# ---------------------------------------------------------------------- reading


def given_columns(X: Any) -> list[Given]:
    """The columns of a DataFrame, or of an array of any kind."""
    if not hasattr(X, "columns"):
        return [_of_array(i, narrowed(values)) for i, values in enumerate(as_array(X).T)]
    return [_of_series(name, X[name]) for name in X.columns]


def check_names_differ(X: Any) -> None:
    names = [str(name) for name in getattr(X, "columns", ())]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"X has two columns of one name: {listed(twice)}. Rename one of them.")


def is_numeric(X: Any) -> bool:
    """Whether X is an array of numbers, or what scikit-learn makes or refuses to make one."""
    if hasattr(X, "columns"):
        return False
    if isinstance(X, (list, tuple)):
        try:
            return np.asarray(X).dtype.kind not in "OUS"
        except ValueError:  # rows of several lengths
            return True
    return getattr(getattr(X, "dtype", None), "kind", "f") not in "OUS"


def as_array(X: Any) -> np.ndarray:
    """Lists as objects: numbers must not turn into strings beside them."""
    return np.asarray(X, dtype=object) if isinstance(X, (list, tuple)) else plain(X)


def _of_array(position: int, values: np.ndarray) -> Given:
    return Given(f"x{position}", values, str(values.dtype).replace("<U", "str"))


def _of_series(name: Any, series: Any) -> Given:
    dtype, declared, is_ordered = series.dtype, None, False
    text = str(dtype)
    if text.startswith("Enum"):  # polars; its Categorical knows categories of other columns too
        text, declared = "Enum", dtype.categories.to_numpy()
    elif text == "category":
        declared, is_ordered = dtype.categories.to_numpy(), bool(dtype.ordered)
    return Given(name, narrowed(plain(series)), text, declared, is_ordered)


def _categories(given: Given) -> np.ndarray:
    """Those that a column has, in their order."""
    try:
        return np.unique(given.values[~is_missing(given.values)])
    except TypeError:
        types = sorted({type(value).__name__ for value in given.values.tolist()})
        raise ValueError(
            f"column {given.name!r} of X has values of several types: {listed(types)}. As "
            "categories they have no order: turn them all into strings."
        ) from None


def _kind(column: Given | Column) -> str:
    dtype = column.dtype.lower()
    for beginning, kind in _KINDS.items():
        if dtype.startswith(beginning):
            return kind
    raise ValueError(
        f"column {column.name!r} has the dtype {column.dtype}, which no likelihood is for. Drop "
        "the column, or turn it into numbers or categories."
    )


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


# ------------------------------------------------------------------- likelihoods


def families_of(
    likelihood: Any, X: Any, given: Sequence[Given], modelled: Sequence[int]
) -> list[str]:
    """The likelihood of every column of X; "" for those that are not modelled."""
    if isinstance(likelihood, str):
        names = dict.fromkeys(modelled, likelihood)
    else:
        names, rest = _named(likelihood, X)
        left = [i for i in modelled if i not in names]
        if left and rest is None:
            raise ValueError(
                f"likelihood does not name the columns {listed([given[i].name for i in left])}. "
                "Name them too, or add 'remainder', with a likelihood for all the rest or 'auto'."
            )
        names.update(dict.fromkeys(left, rest))
    auto = {i: _likely(given[i]) for i in modelled if names[i] == "auto"}
    return [{**names, **auto}[i] if i in modelled else "" for i in range(len(given))]


def _named(likelihood: Any, X: Any) -> tuple[dict[int, str], str | None]:
    """Positions of columns with the likelihood that is given for each, and that of the rest."""
    pairs = likelihood.items() if isinstance(likelihood, Mapping) else likelihood
    names: dict[int, str] = {}
    rest = None
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError(
                f"likelihood has {pair!r} where it takes pairs of a likelihood's name and columns, "
                "for instance ('poisson', ['visits'])."
            )
        name, columns = pair
        if name == "remainder":
            rest = _checked(columns, "auto")
            continue
        for position in _positions(_checked(name, "remainder"), columns, X):
            if names.setdefault(position, name) != name:
                raise ValueError(
                    f"likelihood names column {position} of X twice: {names[position]!r}, {name!r}."
                )
    return names, rest


def _checked(name: Any, other: str) -> str:
    if name not in (*LIKELIHOODS, other):
        raise ValueError(
            f"likelihood={name!r} is none of {listed([*LIKELIHOODS, other])}. A mapping has the "
            "likelihoods for keys, and for each of them its columns."
        )
    return str(name)


def _positions(name: str, columns: Any, X: Any) -> list[int]:
    table = X if hasattr(X, "shape") else as_array(X)
    try:
        return list(column_indices(table, columns(table) if callable(columns) else columns))
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"likelihood has for {name!r} the columns {columns!r}, which X has not: {error}"
        ) from None


def _likely(given: Given) -> str:
    """By the kind of a column: the likelihood that "auto" stands for."""
    kind = _kind(given)
    if kind == "integer":
        values = _of_numbers(given)
        is_count = values.min() >= 0 and values.var() >= values.mean()
        return "negative_binomial" if is_count else "gaussian"
    return {"category": "categorical", "bool": "bernoulli", "float": "gaussian"}[kind]


def _of_numbers(given: Given) -> np.ndarray:
    return Column(given.name, given.dtype, "gaussian").encode(given)


# ----------------------------------------------------------------------- writing


def _library(X: Any) -> str:
    name = type(X).__module__.partition(".")[0]
    return name if name in _LIBRARIES and hasattr(X, "columns") else ""


def _range(dtype: str) -> tuple[int, int]:
    """The integers that a dtype holds, where numpy has one of its name."""
    try:
        info = np.iinfo(dtype.lower())
    except (TypeError, ValueError):
        info = np.iinfo(np.int64)
    return int(info.min), min(int(info.max), np.iinfo(np.int64).max)


def _is_of_dtype(column: Column, values: np.ndarray) -> bool:
    """Not so are means, which lie between integers, and numbers modelled as such in spite of
    a dtype of categories: they stay the floats that they are.
    """
    if not column.family or column.is_categorical:
        return True
    return _kind(column) != "category" and (_kind(column) != "integer" or values.dtype.kind != "f")


def _pandas(columns: Sequence[Column], values: Sequence[np.ndarray]) -> Any:
    pd = importlib.import_module("pandas")

    def series(column: Column, values: np.ndarray) -> Any:
        if not _is_of_dtype(column, values):
            return pd.Series(values)
        if column.dtype == "category":
            return pd.Categorical(values, column.categories, ordered=column.is_ordered)
        return pd.Series(values).astype(column.dtype)

    pairs = zip(columns, values, strict=True)
    return pd.DataFrame({column.name: series(column, some) for column, some in pairs})


def _polars(columns: Sequence[Column], values: Sequence[np.ndarray]) -> Any:
    pl = importlib.import_module("polars")

    def series(column: Column, values: np.ndarray) -> Any:
        found = pl.Series(column.name, values.tolist() if values.dtype.kind in "OU" else values)
        if not _is_of_dtype(column, values):
            return found
        name = column.dtype.partition("(")[0]
        dtype = pl.Enum(column.categories.tolist()) if name == "Enum" else getattr(pl, name)
        return found.cast(dtype)

    return pl.DataFrame(
        [series(column, some) for column, some in zip(columns, values, strict=True)]
    )


_LIBRARY_FRAMES = {"pandas": _pandas, "polars": _polars}
