"""Reading X: checked as scikit-learn does, as numbers or column by column."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from scipy.sparse import issparse
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from skvae._families import OF_NUMBERS, resolve_likelihoods
from skvae._fitted import Fitted
from skvae._frames import (
    as_array,
    check_names_differ,
    check_no_dates,
    first_string,
    is_numeric,
    read_columns,
    received,
    without_na,
)
from skvae._messages import changed_error, listed
from skvae._schema import Schema
from skvae._sklearn import (
    check_feature_names,
    check_n_features,
    check_same_namespace,
    float_dtypes,
    from_tensor,
    is_dispatched,
    to_tensor,
)

# What fills missing cells has nothing to say of sparse rows, which have none.
_METHODS_OF_HOLES = ("impute", "sample_missing")

METHODS_OF_FIT = ("fit", "partial_fit")


class ReadsX:
    """The part of an estimator that takes X from the user."""

    likelihood: Any
    handle_unknown: str
    _fitted: Fitted

    def _floats(self, X: Any, *, reset: bool, method: str, is_part: bool = False) -> Any:
        """X as a float array with NaN where cells are missing; in fit, of two rows at least.

        Or as sparse rows, which have all their cells. ``is_part`` says that X has the modelled
        columns alone, of which names and number have been checked.
        """
        X = without_na(X)
        checks: dict[str, Any] = {
            "accept_sparse": False if is_part or method in _METHODS_OF_HOLES else "csr",
            "dtype": float_dtypes(X),
            "ensure_min_samples": 2 if reset else 1,
            "ensure_all_finite": True if issparse(X) else "allow-nan",
        }
        with self._explains(X):
            if is_part:
                X = check_array(X, estimator=self, input_name="X", **checks)
            else:
                X = validate_data(self, X, reset=reset, **checks)
        if not reset and not issparse(X):
            check_same_namespace(X, self, attribute="kl_per_component_", method=method)
        return X

    @contextlib.contextmanager
    def _explains(self, X: Any) -> Iterator[None]:
        """Say where a string stands that is no number and what takes it; and what takes NaN.

        X has the columns that are modelled.
        """
        try:
            yield
        except ValueError as error:
            if issparse(X) and "contains NaN" in str(error):
                raise ValueError(
                    "X is sparse and has missing cells (NaN), which need a dense X: X.toarray()."
                ) from None
            found = first_string(X) if str(error).startswith("could not convert string") else None
            if found is None:
                raise
            row, column, value = found
            names = getattr(self, "feature_names_in_", None)
            position = self._position_in_X(column)
            called = position if names is None else str(names[position])
            raise ValueError(
                f"could not convert string to float: {self._place(row, column)} is {value!r}, and "
                f"likelihood={self.likelihood!r} needs numbers. Columns of strings are categories: "
                "use likelihood='auto', or name the likelihood of each column, for instance "
                f"likelihood={{'categorical': [{called!r}], 'remainder': 'gaussian'}}."
            ) from error

    def _is_plain(self, reset: bool) -> bool:
        """Whether X is numbers of one likelihood, and is not read column by column."""
        if reset:
            return isinstance(self.likelihood, str) and self.likelihood in OF_NUMBERS
        return self._fitted.schema is None

    def _read(
        self, X: Any, *, reset: bool, method: str, modelled: Sequence[int] | None = None
    ) -> tuple[Any, Schema | None]:
        """X as a finite float array, and the schema that it was read by; None where it is plain.

        ``method`` is that of the user's call; ``modelled`` are the columns of X that are, if
        not all.
        """
        X = received(X)
        check_names_differ(X)
        is_fit = method in METHODS_OF_FIT
        if not reset and is_fit and self._is_plain(True) != self._is_plain(False):
            was = self._fitted.design.likelihood
            raise changed_error([f"likelihood was {was!r} and is {self.likelihood!r}"])
        if self._is_plain(reset):
            check_no_dates(X)
            return self._floats(X, reset=reset, method=method), None
        if issparse(X):
            raise TypeError(
                "X is sparse, and likelihood names columns or is 'auto'. Sparse X takes one of "
                f"{listed(sorted(OF_NUMBERS))} for all columns; or make X dense: X.toarray()."
            )
        if modelled is None and is_numeric(X):
            valid = self._floats(X, reset=reset, method=method)
            schema = self._schema_of(X, reset, method, modelled)
            if "categorical" in schema.families:
                valid = from_tensor(
                    torch.from_numpy(schema.encode(X, self.handle_unknown)).to(to_tensor(valid)),
                    valid,
                )
            return valid, schema
        if not hasattr(X, "columns") and not (is_dispatched(X) and is_numeric(X)):
            X = check_array(as_array(X), dtype=None, ensure_all_finite=False, input_name="X")
        check_feature_names(self, X, reset=reset)
        check_n_features(self, X, reset=reset)
        if not X.shape[1]:
            raise ValueError(f"Found array with 0 feature(s) (shape={tuple(X.shape)}) in X.")
        if not X.shape[0]:
            raise ValueError(f"Found array with 0 sample(s) (shape={tuple(X.shape)}) in X.")
        schema = self._schema_of(X, reset, method, modelled)
        encoded = schema.encode(X, self.handle_unknown)
        if is_dispatched(X):
            encoded = from_tensor(torch.from_numpy(encoded), X)
        return self._floats(encoded, reset=reset, method=method, is_part=True), schema

    def _schema_of(
        self, X: Any, reset: bool, method: str, modelled: Sequence[int] | None
    ) -> Schema:
        """The schema of X in a first fit; later that of the first fit."""
        if reset:
            return Schema.of(X, self.likelihood, modelled)
        schema = self._fitted.schema
        assert schema is not None  # where X is not plain
        if method in METHODS_OF_FIT and not isinstance(self.likelihood, str):
            known = [field.family for field in schema.fields]
            asked = resolve_likelihoods(self.likelihood, X, read_columns(X), modelled, known)
            asked = [name for name in asked if name]
            if asked != schema.families:
                raise changed_error([f"likelihood was {schema.families} and is {asked}"])
        return schema

    def _place(self, row: int | str, column: int) -> str:
        """What users call a cell of the columns that are modelled, or with ":" a column."""
        position = self._position_in_X(column)
        names = getattr(self, "feature_names_in_", None)
        name = "" if names is None else f" (column {str(names[position])!r})"
        return f"X[{row}, {position}]{name}"

    def _position_in_X(self, column: int) -> int:
        """Where a column that is modelled stands in the user's X."""
        return column
