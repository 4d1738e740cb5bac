"""Frames: the columns of DataFrames and arrays as numpy has them, and DataFrames made of such."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Hashable, Sequence
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch

from skvae._messages import listed
from skvae._sklearn import from_tensor, is_dispatched, to_numpy, to_tensor

#: Those whose DataFrames are read, and written.
LIBRARIES = ("pandas", "polars")

# How the names of dtypes begin, of numpy, pandas and polars alike.
_KINDS = {
    "category": "category", "categorical": "category", "enum": "category", "str": "category",
    "object": "category", "large_string": "category", "bool": "bool", "int": "integer",
    "uint": "integer", "float": "float", "double": "float",
}  # fmt: skip

# Of polars: their cells are no single values.
_NESTED = ("Struct", "List", "Array")

# With what the dtypes of dates, times and spans of these begin, in numpy and in the libraries.
_DATES = ("datetime", "timedelta", "period", "date", "time", "duration")


class ColumnData(NamedTuple):
    """The values of a column of a user's table, read or to be written, and their type."""

    name: Any
    values: np.ndarray
    dtype: str  # as its library writes it; to be written, "" is that of the values
    declared: np.ndarray | None = None  # categories, where the dtype says which there are
    is_ordered: bool = False  # these categories


def kind_of(name: Any, dtype: str) -> str:
    """The kind of a column with this dtype: "category", "bool", "integer" or "float"."""
    if not dtype.startswith("interval"):
        for beginning, kind in _KINDS.items():
            if dtype.lower().startswith(beginning):
                return kind
    raise unknown_dtype(name, dtype)


def unknown_dtype(name: Any, dtype: str) -> ValueError:
    return ValueError(
        f"column {name!r} has the dtype {dtype}, which no likelihood is for. Drop the column, or "
        "turn it into numbers or categories."
    )


# ---------------------------------------------------------------------- reading


def read_columns(X: Any) -> list[ColumnData]:
    """The columns of a DataFrame, or of an array of any kind."""
    if not hasattr(X, "columns"):
        return [_of_array(i, narrowed(values)) for i, values in enumerate(as_array(X).T)]
    return [_of_series(name, X[name]) for name in X.columns]


def received(X: Any) -> Any:
    """X, if it is there; of a masked array with NaN, or None among objects, where it is masked."""
    if type(X).__name__ == "LazyFrame":
        raise TypeError("X is a LazyFrame, whose rows are not there yet: give X.collect().")
    if not isinstance(X, np.ma.MaskedArray):
        return X
    kind = X.dtype.kind
    cells = np.array(X.data, np.float64 if kind in "biu" else X.dtype if kind in "fc" else object)
    cells[np.ma.getmaskarray(X)] = None if cells.dtype == object else np.nan
    return cells


def without_na(X: Any) -> Any:
    """X with NaN in place of pandas' NA and NaT among objects, of which numpy makes no number."""
    if isinstance(X, np.ndarray) and X.dtype == object:
        return np.where(is_blank(X.ravel()).reshape(X.shape), np.nan, X)
    if library_of(X) != "pandas":
        return X
    blank = {name: is_blank(X[name].to_numpy()) for name in X.columns if X[name].dtype == object}
    if not any(cells.any() for cells in blank.values()):
        return X
    X = X.copy(deep=False)
    for name, cells in blank.items():
        X[name] = np.where(cells, np.nan, X[name].to_numpy())
    return X


def check_names_differ(X: Any) -> None:
    names = [str(name) for name in getattr(X, "columns", ())]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"X has two columns of one name: {listed(twice)}. Rename one of them.")


def check_no_dates(X: Any) -> None:
    """Dates are no numbers, though numpy makes some of them: days or microseconds since 1970."""
    if library_of(X):
        names, dtypes = X.columns, list(X.dtypes)
    else:
        dtype = getattr(X, "dtype", None)
        names, dtypes = ["x0"], [dtype] if getattr(dtype, "kind", "") in ("m", "M") else []
    # Of thousands of columns a few dtypes: to put each into words takes longer than a row's answer.
    found = {dtype for dtype in set(dtypes) if str(dtype).lower().startswith(_DATES)}
    if found:
        first = next(i for i, dtype in enumerate(dtypes) if dtype in found)
        raise unknown_dtype(names[first], str(dtypes[first]))


def has_categories(X: Any) -> bool:
    """Whether a column's dtype, or a string in it, says that it is none of numbers."""
    if is_numeric(X) or (not hasattr(X, "columns") and as_array(X).ndim != 2):
        return False
    return any(kind_of(column.name, column.dtype) == "category" for column in read_columns(X))


def is_numeric(X: Any) -> bool:
    """Whether X is an array of numbers, or what scikit-learn makes or refuses to make one."""
    if hasattr(X, "columns"):
        return False
    if isinstance(X, (list, tuple)):
        try:
            return np.asarray(X).dtype.kind not in "OUST"
        except ValueError:  # rows of several lengths
            return True
    return getattr(getattr(X, "dtype", None), "kind", "f") not in "OUST"


def first_string(X: Any) -> tuple[int, int, str] | None:
    """Row, column and value of the first string, column by column, that is not a number."""
    cells = np.asarray(X, dtype=object)
    for column, values in enumerate(cells.T if cells.ndim == 2 else ()):
        for row, value in enumerate(values):
            if isinstance(value, str):
                try:
                    float(value)
                except ValueError:
                    return row, column, str(value)
    return None


def as_array(X: Any) -> np.ndarray:
    """Lists as objects: numbers must not turn into strings beside them."""
    return np.asarray(X, dtype=object) if isinstance(X, (list, tuple)) else plain(X)


def plain(values: Any) -> np.ndarray:
    """A column or table as numpy; strings of mixed columns stay what they are."""
    if isinstance(values, (list, tuple)):
        table = np.array(values, dtype=object)
        try:
            array = np.array(values)
        except ValueError:  # rows of several lengths, which are for others to refuse
            return table
        # numpy turns ["a", 1] into strings, and both into one type; objects keep theirs.
        mixed = array.dtype.kind in "US" and not all(isinstance(v, str) for v in table.ravel())
        # Integers that 64 bits do not hold, with or without a sign, it turns into floats.
        mixed = mixed or (_is_rounded(array) and _is_whole(table.ravel()))
        return table if mixed or array.dtype.kind == "O" else array
    # A date of pandas has it too, and loses its time zone by it.
    if hasattr(values, "to_numpy") and hasattr(values, "__len__"):
        return np.asarray(values.to_numpy())
    return to_numpy(values)


def narrowed(column: np.ndarray) -> np.ndarray:
    """A column of objects that are all numbers or all strings, as such; dates in one unit.

    Long doubles, which torch has not, become doubles.
    """
    if column.dtype.kind in "mM":
        return column.astype(f"{column.dtype.kind}8[us]")
    if column.dtype == np.longdouble:
        return column.astype(np.float64)
    if column.dtype.kind != "O":
        return column
    values = column.tolist()
    try:
        array = np.array(values)
    except ValueError:  # a list among them, which is for others to refuse
        return column
    if array.dtype.kind == "f" and _is_whole(column):
        return column  # NaN alone made floats of them
    is_text = all(isinstance(value, str) for value in values)
    return array if (array.dtype.kind in "biuf" or is_text) and array.ndim == 1 else column


def _is_whole(column: np.ndarray) -> bool:
    """Whether objects are integers or bools, but for those missing."""
    there = column[~is_blank(column)].tolist()
    return bool(there) and all(isinstance(value, (Integral, np.bool_)) for value in there)


def is_categorical(column: Any) -> bool:
    """Whether its dtype, of pandas or polars, says that its values are categories."""
    return str(getattr(column, "dtype", "")).lower().startswith(("category", "categorical", "enum"))


def is_blank(values: np.ndarray, *, infinite: bool = False) -> np.ndarray:
    """Which cells are missing: NaN, NaT, None or NA; or infinite, if that counts."""
    if values.dtype.kind in "fc":
        return np.asarray(~np.isfinite(values) if infinite else np.isnan(values))
    if values.dtype.kind in "mM":
        return np.asarray(np.isnat(values))
    if values.dtype.kind != "O":
        return np.zeros(len(values), dtype=bool)

    # NaN and pandas' NaT differ from themselves; its NA gives no truth value at all.
    def missing(value: Any) -> bool:
        try:
            if value is None or bool(value != value):
                return True
            return infinite and value in (np.inf, -np.inf)
        except TypeError:
            return True
        except ValueError:  # an array, which is for others to refuse
            return False

    return np.array([missing(value) for value in values], dtype=bool)


def _of_array(position: int, values: np.ndarray) -> ColumnData:
    return _of_objects(ColumnData(f"x{position}", values, values.dtype.name))


def _of_series(name: Any, series: Any) -> ColumnData:
    dtype, declared, is_ordered = series.dtype, None, False
    # Of pandas' sparse columns the dtype is that of their values.
    dtype = dtype.subtype if str(dtype).startswith("Sparse[") else dtype
    text = str(dtype.newbyteorder("=") if isinstance(dtype, np.dtype) else dtype)
    if text.startswith(_NESTED):
        raise unknown_dtype(name, text)
    if text.startswith("Enum"):  # polars; its Categorical knows categories of other columns too
        text, declared = "Enum", dtype.categories.to_numpy()
    elif text == "category":
        declared, is_ordered = narrowed(dtype.categories.to_numpy()), bool(dtype.ordered)
    values = narrowed(plain(series))
    if _is_rounded(values):
        # Beside missing cells numpy has integers as floats.
        objects = np.array(series.to_list(), dtype=object)
        values = objects if _is_whole(objects) else values
    return _of_objects(ColumnData(name, values, text, declared, is_ordered))


def _of_objects(column: ColumnData) -> ColumnData:
    """Objects that are numbers, but for those missing, as what they are."""
    if column.dtype != "object":
        return column
    types = {type(value) for value in column.values[~is_blank(column.values)].tolist()}
    # What databases have for numbers is no Real by its class.
    if not types or bool in types or not all(issubclass(one, Real | Decimal) for one in types):
        return column
    numbers = numbers_of(column, "gaussian")
    if not all(issubclass(one, Integral) for one in types):
        return column._replace(values=numbers, dtype="float64")
    return column._replace(values=column.values if _is_rounded(numbers) else numbers, dtype="Int64")


def _is_rounded(numbers: np.ndarray) -> bool:
    """Whether these floats, if they were integers, may be others now."""
    # In single precision at least: of half precision there is no 2^53.
    return numbers.dtype.kind == "f" and bool((np.abs(numbers) >= np.float32(2**53)).any())


def categories_of(column: ColumnData) -> np.ndarray:
    """The categories that a column has, in their order."""
    try:
        return np.unique(column.values[~is_blank(column.values)])
    except TypeError:
        types = sorted({type(value).__name__ for value in column.values.tolist()})
        raise ValueError(
            f"column {column.name!r} of X has values of several types: {listed(types)}. As "
            "categories they have no order: turn them all into strings."
        ) from None


def check_finite(column: ColumnData) -> None:
    """Infinity is no category."""
    is_infinite = is_blank(column.values, infinite=True) & ~is_blank(column.values)
    if is_infinite.any():
        row = int(np.argmax(is_infinite))
        raise ValueError(
            f"column {column.name!r} of X has {column.values.tolist()[row]!r} (row {row}), which "
            "is no category: X contains infinity. Put a category of its own there, or NaN if the "
            "cell is missing."
        )


def check_hashable(column: ColumnData) -> None:
    """A category is a single value, that others may be equal to."""
    if found := first_unhashable(column.values):
        row, value = found
        raise ValueError(
            f"column {column.name!r} of X has {value!r} (row {row}), which is no category: a "
            f"{type(value).__name__} is not hashable. Turn the values into strings, or drop the "
            "column."
        )


def first_unhashable(values: np.ndarray) -> tuple[int, Any] | None:
    """Row and value of the first that nothing can be found by."""
    rows = enumerate(values.tolist()) if values.dtype.kind == "O" else ()
    return next(((row, value) for row, value in rows if not isinstance(value, Hashable)), None)


def numbers_of(column: ColumnData, family: str) -> np.ndarray:
    """(N,) in float64, for a likelihood that is one of numbers; NaN where they are missing."""
    blank = is_blank(column.values)
    numbers = np.full(len(blank), np.nan)
    try:
        numbers[~blank] = column.values[~blank].astype(np.float64)
        return numbers
    except (TypeError, ValueError):
        values = column.values.tolist()
        there = np.flatnonzero(~blank).tolist()
        row = next(i for i in there if not is_number(values[i]))
    raise ValueError(
        f"column {column.name!r} of X has {values[row]!r} (row {row}), but its likelihood, "
        f"{family!r}, needs numbers. Use 'categorical' for this column."
    )


def is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


# ---------------------------------------------------------------------- writing


def library_of(X: Any) -> str:
    """The library of a DataFrame; "" for all else."""
    name = type(X).__module__.partition(".")[0]
    return name if name in LIBRARIES and hasattr(X, "columns") else ""


def frame_of(library: str, columns: Sequence[ColumnData]) -> Any:
    """A DataFrame of that library."""
    return {"pandas": _pandas, "polars": _polars}[library](columns)


def kept(column: ColumnData, X: Any, position: int) -> ColumnData:
    """A column that was decoded, with the integers that this column of X has kept as they are."""
    if column.values.dtype.kind not in "iu":
        return column
    given = _exactly(X, position)
    if given.dtype.kind in "iu":
        return column._replace(values=given)
    if given.dtype.kind != "O":
        return column
    whole = np.array([isinstance(value, Integral) for value in given.tolist()], dtype=bool)
    values = column.values.copy()
    values[whole] = given[whole].astype(values.dtype)  # of strings the numbers are kept
    return column._replace(values=values)


def _exactly(X: Any, position: int) -> np.ndarray:
    """A column in which integers that floats would round are objects."""
    if not hasattr(X, "columns"):
        return _of_array(position, narrowed(as_array(X)[:, position])).values
    name = X.columns[position]
    return _of_series(name, X[name]).values


def with_index(rows: Any, X: Any) -> Any:
    """Rows of pandas with the index of X, if that is of pandas too."""
    if library_of(rows) == library_of(X) == "pandas":
        rows.index = X.index
    return rows


def _pandas(columns: Sequence[ColumnData]) -> Any:
    pd = importlib.import_module("pandas")

    def series(column: ColumnData) -> Any:
        if column.dtype == "category":
            return pd.Categorical(column.values, column.declared, ordered=column.is_ordered)
        found = pd.Series(column.values)
        return found.astype(column.dtype) if column.dtype else found

    return pd.DataFrame({column.name: series(column) for column in columns})


def _polars(columns: Sequence[ColumnData]) -> Any:
    pl = importlib.import_module("polars")

    def series(column: ColumnData) -> Any:
        is_text = column.values.dtype.kind in "OU"
        found = pl.Series(column.name, column.values.tolist() if is_text else column.values)
        if not column.dtype:
            return found
        if column.declared is not None:
            return found.cast(pl.Enum(column.declared.tolist()))
        return found.cast(_polars_dtype(column.dtype))

    return pl.DataFrame([series(column) for column in columns])


def _polars_dtype(text: str) -> Any:
    """The dtype that is written so, for instance Datetime(time_unit='ms', time_zone=None)."""
    pl = importlib.import_module("polars")
    call = ast.parse(text, mode="eval").body
    given = call.keywords if isinstance(call, ast.Call) else []
    dtype = getattr(pl, text.partition("(")[0], None)
    # The text may be of a file that somebody made.
    if not (isinstance(dtype, type) and issubclass(dtype, pl.DataType)):
        raise ValueError(f"{text!r} is no dtype of polars.")
    parameters = {one.arg: ast.literal_eval(one.value) for one in given if one.arg}
    return dtype(**parameters) if parameters else dtype


def joined(table: Any, names: Sequence[str] | np.ndarray, columns: np.ndarray) -> Any:
    """A DataFrame or array, and more columns (N, M) at its right."""
    added = dict(zip(names, columns.T, strict=True))
    if twice := sorted(set(names) & set(getattr(table, "columns", ()))):
        raise ValueError(
            f"X has columns that are called like indicators of missing cells: {listed(twice)}. "
            "Rename them, or leave the indicators out: add_indicator=False."
        )
    if is_dispatched(table) and not isinstance(table, np.ndarray):
        x = to_tensor(table)
        return from_tensor(torch.cat([x, torch.from_numpy(columns).to(x)], 1), table)
    if not hasattr(table, "columns"):
        return np.column_stack([table, columns.astype(np.asarray(table).dtype)])
    if hasattr(table, "assign"):
        return table.assign(**added)
    pl = importlib.import_module("polars")
    return table.with_columns([pl.Series(name, column) for name, column in added.items()])
