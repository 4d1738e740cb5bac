"""A fitted model as its user sees it: alone or in a Pipeline, in the units of the user's X."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.feature_selection import SelectorMixin
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
)
from sklearn.utils.validation import check_is_fitted

from skvae._conditional import ConditionalVAE
from skvae._conditions import columns_named
from skvae._messages import listed
from skvae._sklearn import check_feature_names, check_n_features, from_tensor, to_numpy, to_tensor
from skvae._transformer import VAETransformer
from skvae._verdict import ACTIVE_NATS
from skvae.plotting._axes import Names, column_names

# What these undo are whole codes: of a mean between two they make one of both, or fail.
_CODES = (KBinsDiscretizer, OneHotEncoder, OrdinalEncoder)

_ELSEWHERE = (
    "Of a search, pass best_estimator_; of a VAEImputer, estimator_; of a ColumnTransformer, the "
    "VAE in its named_transformers_, with the columns that go there."
)


class Moments(NamedTuple):
    """Means and standard deviations of q(z|x), both ``(n_samples, n_components)``."""

    mean: np.ndarray
    std: np.ndarray


class Shown(NamedTuple):
    """Rows X and decoded ones alike, as numbers in the same columns and units."""

    X: np.ndarray | None
    decoded: list[np.ndarray]
    names: np.ndarray


@dataclass(frozen=True)
class Function:
    """Any function from z to x as a decoder, asked for the same as a `Model`."""

    function: Callable[[np.ndarray], Any]
    n_components: int

    @property
    def component_names(self) -> list[str]:
        return [f"component {j}" for j in range(self.n_components)]

    @property
    def active(self) -> list[int]:
        return list(range(self.n_components))

    def positions(self, components: Sequence[int | str] | int | str) -> list[int]:
        return positions_of(components, self.component_names, "component")

    def decode(self, Z: np.ndarray, condition: None = None) -> np.ndarray:
        return as_array(self.function(Z))

    def draws(self, n_samples: int, condition: None = None) -> list[Any]:
        return []

    def shown(self, X: None, *decoded: np.ndarray) -> Shown:
        return Shown(X, list(decoded), column_names(None, decoded[0].shape[1]))


@dataclass(frozen=True)
class Model:
    """Asks nothing of the estimator but its public methods.

    Steps before it are applied to X. What is decoded goes back through them, from the
    last to the first, as far as they can undo it (`shown`). Shown are columns of numbers:
    neither a condition nor categories.
    """

    vae: VAETransformer | ConditionalVAE
    before: Pipeline | None

    @classmethod
    def of(cls, estimator: Any, step: str | None = None) -> Model:
        """The VAE itself, or the step of a Pipeline: the named one, else the last that is one."""
        model = _found(estimator, step)
        check_is_fitted(model.vae)
        return model

    # ------------------------------------------------------------------- components

    @property
    def kl(self) -> np.ndarray:
        """KL of each component in nats, ``(n_components,)``."""
        return to_numpy(self.vae.kl_per_component_)

    @property
    def n_components(self) -> int:
        return len(self.kl)

    @property
    def component_names(self) -> list[str]:
        """With the nats that each tells."""
        return [f"component {j} ({nats:.2f} nats)" for j, nats in enumerate(self.kl)]

    @property
    def active(self) -> list[int]:
        """Positions of the components in use; of all where none is."""
        return np.flatnonzero(self.kl > ACTIVE_NATS).tolist() or list(range(len(self.kl)))

    def positions(self, components: Sequence[int | str] | int | str) -> list[int]:
        """Positions of components given by position or by the name that transform gives them."""
        return positions_of(components, self.vae.get_feature_names_out().tolist(), "component")

    # ------------------------------------------------------------------------- rows

    def posterior(self, X: Any, condition: Any = None) -> Moments:
        """Moments of q(z|x) for rows in the user's units."""
        return self._moments(self._enter(X), condition)

    def encode(self, X: Any, condition: Any = None) -> tuple[Moments, Any]:
        """Moments of q(z|x), and the condition of each row: if unknown, its likeliest labels."""
        entered = self._enter(X)
        if condition is None and isinstance(self.vae, ConditionalVAE):
            if self.vae.condition_columns is not None:
                named = columns_named(self.vae.condition_columns)
                return self._moments(entered), _columns(entered, named)
            if hasattr(self.vae, "combinations_"):  # else numbers, without which it says so itself
                likeliest = to_numpy(self.vae.condition_proba(entered)).argmax(axis=1)
                condition = [self.vae.combinations_[m] for m in likeliest]
        return self._moments(entered, condition), condition

    def decode(
        self, Z: np.ndarray, condition: Any = None, *, mean: bool = True, random_state: Any = None
    ) -> Any:
        """E[x|z], or a draw from p(x|z), as the VAE gives it: a table for `shown`."""
        given = self._given(condition)
        # As an array of the kind that the model was fitted with.
        Z = from_tensor(to_tensor(np.asarray(Z, dtype=np.float64)), self.vae.kl_per_component_)
        return self.vae.inverse_transform(Z, mean=mean, random_state=random_state, **given)

    def sample(
        self, n_samples: int, condition: Any = None, *, mean: bool = False, random_state: Any = None
    ) -> Any:
        """x ~ p(x), or the mean at the same z, as the VAE gives it: a table for `shown`."""
        given = self._given(condition)
        return self.vae.sample(n_samples, mean=mean, random_state=random_state, **given)

    def draws(self, n_samples: int, condition: Any = None) -> list[Any]:
        """One table of draws, always the same."""
        return [self.sample(n_samples, condition, random_state=0)]

    def shown(self, X: Any, *decoded: Any) -> Shown:
        """Rows of X (or None) and decoded ones in the same columns and units.

        Steps before the VAE are undone one by one, from the last, and X only goes through
        those that are left: none where all can be undone, which gives the user's own units.
        A step is left with those before it if it has no inverse, or if that fails for any
        of these very rows.
        """
        levels = [[self._modelled(x) for x in decoded]]
        for step in reversed(self._steps if self._picked is None else []):
            undone = _undone(step, levels[-1])
            if undone is None:
                break
            levels.append(undone)
        while True:
            n_left = len(self._steps) + 1 - len(levels)
            rows = None if X is None else self._rows(X, n_left)
            n_columns = levels[-1][0].shape[1]
            is_alike = X is None or (rows is not None and rows.shape[1] == n_columns)
            if is_alike or len(levels) == 1:
                return Shown(rows, levels[-1], self._names(n_left, n_columns))
            levels.pop()  # X is no table of the same columns there: text, for instance

    # ------------------------------------------------------------- in and out of it

    @property
    def _steps(self) -> list[Any]:
        return [] if self.before is None else [step for _, step in self.before.steps]

    @property
    def _first(self) -> Any:
        """What has been fitted to the user's own X."""
        return next(step for step in [*self._steps, self.vae] if not _is_nothing(step))

    @property
    def _picked(self) -> list[int] | None:
        """Positions of the columns that are shown; None where all are."""
        n_columns = self.vae.n_features_in_
        columns = columns_named(getattr(self.vae, "condition_columns", None))
        names = list(getattr(self.vae, "feature_names_in_", ()))
        taken = {names.index(c) if isinstance(c, str) else c % n_columns for c in columns}
        modelled = np.array([i for i in range(n_columns) if i not in taken])
        variance = getattr(self.vae, "noise_variance_", None)
        if variance is not None:
            modelled = modelled[~np.isnan(to_numpy(variance))]  # of categories there is none
        if not len(modelled):
            raise ValueError(
                "all columns of X are categories: there are no numbers to show. LatentSpaceDisplay "
                "and ComponentDisplay need none."
            )
        return None if len(modelled) == n_columns else modelled.tolist()

    def _first_steps(self, n_left: int) -> Any:
        assert self.before is not None
        return self.before[:n_left]

    def _enter(self, X: Any) -> Any:
        return X if self.before is None else self.before.transform(X)

    def _moments(self, entered: Any, condition: Any = None) -> Moments:
        found = self.vae.posterior(entered, **self._given(condition))
        return Moments(to_numpy(found.mean), to_numpy(found.std))

    def _modelled(self, x: Any) -> np.ndarray:
        """The columns that are shown, as numbers."""
        x = as_array(x)
        return (x if self._picked is None else x[:, self._picked]).astype(np.float64)

    def _rows(self, X: Any, n_left: int) -> np.ndarray | None:
        """X through the first n_left steps; None where that is no table of numbers."""
        if n_left == 0:
            check_feature_names(self._first, X, reset=False)
            check_n_features(self._first, X, reset=False)
        entered = self._first_steps(n_left).transform(X) if n_left else X
        return self._modelled(entered) if n_left == len(self._steps) else _numbers(entered)

    def _names(self, n_left: int, n_columns: int) -> np.ndarray:
        """Of the columns behind the first n_left steps that are shown."""
        is_seen, names = n_left == len(self._steps), None  # by the VAE itself
        if is_seen or n_left == 0:
            names = getattr(self.vae if is_seen else self._first, "feature_names_in_", None)
        if names is None and n_left:
            with suppress(AttributeError, ValueError):  # not all steps know
                names = self._first_steps(n_left).get_feature_names_out()
        picked = self._picked
        if picked is None or not is_seen:
            return column_names(names, n_columns)
        return column_names(names, self.vae.n_features_in_)[picked]

    def _given(self, condition: Any) -> dict[str, Any]:
        if condition is None:
            return {}
        if not isinstance(self.vae, ConditionalVAE):
            raise ValueError(
                "condition= was given, but a VAETransformer has none. Leave it out, or fit a "
                "ConditionalVAE."
            )
        return {"condition": condition}


def _found(estimator: Any, step: str | None) -> Model:
    kinds = (VAETransformer, ConditionalVAE)
    if isinstance(estimator, kinds):
        if step is not None:
            raise ValueError(
                f"step={step!r} names a step of a Pipeline, but the estimator is a "
                f"{type(estimator).__name__}. Leave it out."
            )
        return Model(estimator, None)
    if not isinstance(estimator, Pipeline):
        raise TypeError(
            "a Display needs a fitted VAETransformer or ConditionalVAE, or a Pipeline with one; "
            f"got a {type(estimator).__name__}. {_ELSEWHERE}"
        )
    names = [name for name, _ in estimator.steps]
    ours = [i for i, (_, each) in enumerate(estimator.steps) if isinstance(each, kinds)]
    if step is not None and step not in names:
        raise ValueError(f"step={step!r} is no step of the Pipeline; its steps are {names}.")
    if step is not None and names.index(step) not in ours:
        raise ValueError(
            f"step={step!r} is a {type(estimator.named_steps[step]).__name__}, and no "
            f"VAETransformer or ConditionalVAE; those are {[names[i] for i in ours]}."
        )
    if not ours:
        raise ValueError(
            f"none of the steps {names} of the Pipeline is a VAETransformer or ConditionalVAE. "
            f"{_ELSEWHERE}"
        )
    place = ours[-1] if step is None else names.index(step)
    return Model(estimator.steps[place][1], estimator[:place] if place else None)


def _is_nothing(step: Any) -> bool:
    """A step of a Pipeline that leaves X as it is."""
    return step is None or isinstance(step, str)


def _can_undo(step: Any) -> bool:
    if isinstance(step, Pipeline):
        return all(_is_nothing(each) or _can_undo(each) for _, each in step.steps)
    if isinstance(step, FunctionTransformer):  # without the inverse it gives back what it gets
        return step.func is None or step.inverse_func is not None
    if isinstance(step, SelectorMixin):  # the columns that it dropped would be zeros
        return bool(step.get_support().all())
    return hasattr(step, "inverse_transform") and not isinstance(step, _CODES)


def _undone(step: Any, tables: Sequence[np.ndarray]) -> list[np.ndarray] | None:
    """The tables before a step; None where it cannot take all of them back."""
    if _is_nothing(step):
        return list(tables)
    if not _can_undo(step):
        return None
    undone = []
    for table in tables:
        try:
            x = _numbers(step.inverse_transform(table))
        except Exception:  # of any kind: the inverse is for rows that the step has made
            return None
        if x is None or len(x) != len(table):
            return None
        undone.append(x)
    return undone


def _numbers(x: Any) -> np.ndarray | None:
    """A table ``(n_rows, n_columns)`` of numbers; None where it is none."""
    x = as_array(x)
    try:
        return x.astype(np.float64) if x.ndim == 2 else None
    except (TypeError, ValueError):
        return None


def as_array(values: Any) -> np.ndarray:
    """Any table or column as numpy."""
    if issparse(values):
        return np.asarray(values.toarray())
    if hasattr(values, "to_numpy"):
        return np.asarray(values.to_numpy())
    return np.asarray(values) if isinstance(values, (list, tuple)) else to_numpy(values)


def first_rows(values: Any, n_rows: int) -> Any:
    """Of a table or column of any kind, which may be None."""
    if values is None:
        return None
    values = values.tocsr() if issparse(values) else values
    return values.iloc[:n_rows] if hasattr(values, "iloc") else values[:n_rows]


def aligned(tables: Mapping[str, Any]) -> tuple[list[Any], Sequence[Any] | None]:
    """Tables (or None) as arrays whose columns have one order, by name, and these names."""
    columns = {name: list(getattr(table, "columns", ())) for name, table in tables.items()}
    first = next((name for name in columns if columns[name]), "")
    arrays = []
    for name, table in tables.items():
        given, names = columns[name], columns.get(first, [])
        if given and given != names and all(isinstance(each, str) for each in given + names):
            if sorted(given) != sorted(names) or len(set(given)) < len(given):
                raise ValueError(
                    f"{name} has the columns {listed(given)}, but {first} has {listed(names)}. "
                    "Rename them, or pass an array to go by their order."
                )
            table = table[names]
        arrays.append(None if table is None else as_array(table))
    return arrays, columns.get(first)


def positions_of(wanted: Any, names: Names, noun: str) -> list[int]:
    """Of several, or of a single one by itself."""
    wanted = [wanted] if isinstance(wanted, str) or not np.iterable(wanted) else wanted
    return [position_of(each, names, noun) for each in wanted]


def position_of(wanted: int | str, names: Names, noun: str) -> int:
    """Of a component or feature that is given by position or by name."""
    names = list(names)
    if isinstance(wanted, str) and wanted in names:
        return names.index(wanted)
    if isinstance(wanted, Integral) and -len(names) <= wanted < len(names):
        return int(wanted) % len(names)
    shown = ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
    raise ValueError(
        f"there is no {noun} {wanted!r}: the model has {len(names)}, by position 0 to "
        f"{len(names) - 1}, by name {shown}."
    )


def repeated(condition: Any, n_rows: int) -> Any:
    """One condition, a label, a number or a row of several, for so many rows."""
    if condition is None:
        return None
    if hasattr(condition, "columns") or hasattr(condition, "iloc"):  # of a data frame
        if len(condition) != 1:
            raise ValueError(
                f"condition has {len(condition)} rows; here it is one condition for all of the "
                "picture, so a single row."
            )
        return rows_of(condition, [0] * n_rows)
    return [condition] * n_rows


def rows_of(frame: Any, positions: Sequence[int]) -> Any:
    """Of a data frame or column, with its names and dtypes."""
    return frame.iloc[positions] if hasattr(frame, "iloc") else frame[positions]


def of_each_row(condition: Any, X: Any) -> Any:
    """A condition of the rows of X: a single value is that of all."""
    is_single = isinstance(condition, (str, bytes)) or not np.iterable(condition)
    if condition is None or not is_single:
        return condition
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    return repeated(np.asarray(condition)[()], n_rows)


def _columns(X: Any, columns: list[Any]) -> Any:
    """The columns of a condition, as a table."""
    if hasattr(X, "columns"):
        return X[[c if isinstance(c, str) else X.columns[c] for c in columns]]
    rows = np.asarray(X, dtype=object) if isinstance(X, (list, tuple)) else to_numpy(X)
    return rows[:, columns]
