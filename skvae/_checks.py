"""What of X no model can explain: values outside of a support, columns without any."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from skvae._codec import Ranges
from skvae._likelihoods import LIKELIHOODS, MOST_COUNT
from skvae._rows import Rows, slices

_COUNTS = "Counts are of whole things; for other numbers use likelihood='gaussian'."
_REMEDIES = {
    # Without clip it leaves that range by a rounding, and with new rows by more.
    "bernoulli": "Scale X to that range, with MinMaxScaler(clip=True), or use "
    "likelihood='gaussian'.",
    "poisson": _COUNTS,
    "negative_binomial": _COUNTS,
    "lognormal": "Only positive numbers have a logarithm: shift the column, or use "
    "likelihood='gaussian'.",
}


#: What users call a cell, by its row and column, or with ":" for a row the column.
Place = Callable[[int | str, int], str]


def check_support(x: Rows, families: Sequence[str], place: Place) -> None:
    """x (N, D) has a likelihood for each column; ``place`` is what users call a cell.

    Categories have been looked up by now, and are their numbers.
    """
    for name in dict.fromkeys(families):
        support = LIKELIHOODS[name].support
        if name == "categorical" or support.low == -math.inf:
            continue
        positions = [i for i, family in enumerate(families) if family == name]
        for where in slices(x):
            rows = x[where]
            rows = rows if len(positions) == len(families) else rows[:, positions]
            outside = support.outside(rows)
            if outside.any():
                row, column = (int(i) for i in outside.nonzero()[0])
                named = place(where.start + row, positions[column])
                value = rows[row, column].item()
                shown = f"{value:g}"
                if not support.outside(rows.new_tensor(float(shown))):  # 1 of 1.0000000000000002
                    shown = repr(value)
                raise ValueError(
                    f"likelihood={name!r} needs values in {support}; {named} is {shown}. "
                    f"{_REMEDIES[name]}"
                )


def check_ranges(ranges: Ranges, families: Sequence[str], place: Place) -> None:
    """Every column has cells that are not missing, and none that a fit cannot follow."""
    for column in (ranges.n_known == 0).nonzero()[:1, 0].tolist():
        raise ValueError(f"{place(':', column)} is missing in every row. Leave the column out.")
    for column in (ranges.highest - ranges.lowest).isinf().nonzero()[:1, 0].tolist():
        low, high = (end[column].item() for end in (ranges.lowest, ranges.highest))
        raise ValueError(
            f"{place(':', column)} spans {low:g} to {high:g}, a range that float64 cannot hold. "
            "Divide the column by a large number, or take its logarithm."
        )
    check_counts(ranges, families, place)


def check_counts(ranges: Ranges, families: Sequence[str], place: Place) -> None:
    """No count is more than the largest mean."""
    for column in (ranges.highest > MOST_COUNT).nonzero()[:, 0].tolist():
        if LIKELIHOODS[families[column]].reading == "count":
            raise ValueError(
                f"{place(':', column)} has counts up to {ranges.highest[column].item():g}, and "
                f"likelihood={families[column]!r} goes up to {MOST_COUNT:g}. Use 'gaussian' or "
                "'lognormal' for numbers as large."
            )


def check_totals(x: Rows, families: Sequence[str], place: Place) -> None:
    """No count of x (N, D) is missing: the total of its row would not be known."""
    for where in slices(x):
        missing = x[where].isnan()
        for column, family in enumerate(families):
            if LIKELIHOODS[family].reading == "count" and missing[:, column].any():
                row = where.start + int(missing[:, column].nonzero()[0, 0])
                raise ValueError(
                    f"{place(row, column)} is missing, and exposure='total' needs all counts of a "
                    "row: without them its total is not known. Fill the cell, leave the row out, "
                    "or use exposure=None."
                )
