"""The likelihood of every column, as users name them or by their dtypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skvae._frames import ColumnData, as_array, kind_of, numbers_of
from skvae._likelihoods import LIKELIHOODS, MOST_COUNT
from skvae._messages import listed
from skvae._sklearn import column_indices

#: Likelihoods that take a column of numbers as it is.
OF_NUMBERS = frozenset(name for name in LIKELIHOODS if name != "categorical")

# Of few rows chance alone would allow for anything: grades and years are no counts.
_LEAST_DISPERSION = 0.7


def resolve_likelihoods(
    likelihood: Any,
    X: Any,
    columns: Sequence[ColumnData],
    modelled: Sequence[int] | None = None,
    known: Sequence[str] | None = None,
) -> list[str]:
    """The likelihood of every column of X; "" for those that are not modelled.

    ``known`` is what "auto" was found to be in an earlier X.
    """
    modelled = range(len(columns)) if modelled is None else modelled
    if isinstance(likelihood, str):
        names = dict.fromkeys(modelled, likelihood)
    else:
        names, rest = _named(likelihood, X)
        left = [i for i in modelled if i not in names]
        if rest is not None:
            names.update(dict.fromkeys(left, rest))
        elif left:
            raise ValueError(
                f"likelihood does not name the columns {listed([columns[i].name for i in left])}. "
                "Name them too, or add 'remainder', with a likelihood for all the rest or 'auto'."
            )
    auto = {
        i: _likely(columns[i]) if known is None else known[i]
        for i in modelled
        if names[i] == "auto"
    }
    return [{**names, **auto}[i] if i in modelled else "" for i in range(len(columns))]


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
            if rest is not None:
                raise ValueError(f"likelihood has 'remainder' twice: {rest!r}, {columns!r}.")
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
        chosen = columns(table) if callable(columns) else columns
        if isinstance(chosen, (set, frozenset)):
            chosen = sorted(chosen)
        return list(column_indices(table, chosen))
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"likelihood has for {name!r} the columns {columns!r}, which are none of X: {error}"
        ) from None


def _vary_as_counts(values: np.ndarray) -> bool:
    """Whether whole numbers vary at least as much as counts: their variance is their mean or more.

    That of events which do not know of each other is the mean but for chance, with a standard
    deviation of sqrt(2 / n) of it, of which three are allowed for.
    """
    if not len(values) or not 0 <= values.min() <= values.max() <= MOST_COUNT:
        return False
    least = max(_LEAST_DISPERSION, 1 - 3 * np.sqrt(2 / len(values)))
    return bool(values.var() >= least * values.mean())


def _likely(column: ColumnData) -> str:
    """By the kind of a column: the likelihood that "auto" stands for."""
    kind = kind_of(column.name, column.dtype)
    if kind == "integer":
        values = numbers_of(column, "negative_binomial")
        values = values[~np.isnan(values)]
        return "negative_binomial" if _vary_as_counts(values) else "gaussian"
    return {"category": "categorical", "bool": "bernoulli", "float": "gaussian"}[kind]
