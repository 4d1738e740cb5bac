"""A fitted model as its user sees it: alone or in a Pipeline, in the units of the user's X."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skvae._base import ACTIVE_NATS
from skvae._conditional import ConditionalVAE
from skvae._sklearn import from_tensor, to_numpy, to_tensor
from skvae._transformer import VAETransformer
from skvae.plotting._axes import names_or_numbers


class Moments(NamedTuple):
    """Means and standard deviations of q(z|x), both ``(n_samples, n_components)``."""

    mean: np.ndarray
    std: np.ndarray


@dataclass(frozen=True)
class Model:
    """Asks nothing of the estimator but its public methods.

    Steps before it are applied to X, and undone where all of them can be
    (``inverse_transform``); else rows are shown as the VAE sees them. Shown are columns of
    numbers: neither a condition nor categories.
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
    def component_names(self) -> list[str]:
        """With the nats that each tells."""
        return [f"component {j} ({nats:.2f} nats)" for j, nats in enumerate(self.kl)]

    @property
    def active(self) -> list[int]:
        """Positions of the components in use; of all where none is."""
        return np.flatnonzero(self.kl > ACTIVE_NATS).tolist() or list(range(len(self.kl)))

    def positions(self, components: Sequence[int | str]) -> list[int]:
        """Of components given by position or by the name that transform gives them."""
        names = self.vae.get_feature_names_out().tolist()
        return [position_of(component, names, "component") for component in components]

    # ------------------------------------------------------------------------- rows

    def posterior(self, X: Any, condition: Any = None) -> Moments:
        """Of q(z|x) for rows in the user's units."""
        found = self.vae.posterior(self._enter(X), **self._given(condition))
        return Moments(to_numpy(found.mean), to_numpy(found.std))

    def encode(self, X: Any, condition: Any = None) -> tuple[Moments, Any]:
        """The same, and the condition of each row: labels that are unknown are the likeliest."""
        if condition is None and isinstance(self.vae, ConditionalVAE):
            entered = self._enter(X)
            if self.vae.condition_columns is not None:
                columns = _columns(entered, self.vae.condition_columns)
                return self.posterior(X), columns
            likeliest = to_numpy(self.vae.condition_proba(entered)).argmax(axis=1)
            condition = [self.vae.combinations_[m] for m in likeliest]
        return self.posterior(X, condition), condition

    def decode(
        self, Z: np.ndarray, condition: Any = None, *, mean: bool = True, random_state: Any = None
    ) -> np.ndarray:
        """E[x|z], or a draw from p(x|z), ``(n_rows, n_shown)``."""
        given = self._given(condition)
        # As an array of the kind that the model was fitted with.
        Z = from_tensor(to_tensor(np.asarray(Z, dtype=np.float64)), self.vae.kl_per_component_)
        x = self.vae.inverse_transform(Z, mean=mean, random_state=random_state, **given)
        return self._leave(x)

    def sample(
        self, n_samples: int, condition: Any = None, *, mean: bool = False, random_state: Any = None
    ) -> np.ndarray:
        """x ~ p(x), or the mean at the same z, ``(n_samples, n_shown)``."""
        given = self._given(condition)
        x = self.vae.sample(n_samples, mean=mean, random_state=random_state, **given)
        return self._leave(x)

    def shown(self, X: Any) -> np.ndarray:
        """Rows of X in the columns and units of `decode`, ``(n_samples, n_shown)``."""
        return self._modelled(X if self._is_undone else self._enter(X))

    def feature_names(self, n_shown: int) -> np.ndarray:
        """Names of the columns of `decode`; x0, x1, ... where there are none."""
        owner = self.before if self.before is not None and self._is_undone else self.vae
        names = getattr(owner, "feature_names_in_", None)
        shown = self._shown
        n_columns = n_shown if shown is None else self.vae.n_features_in_
        names = np.array(names_or_numbers(names, n_columns), dtype=object)
        return names if shown is None else names[shown]

    # ------------------------------------------------------------- in and out of it

    @property
    def _is_undone(self) -> bool:
        """Whether what is decoded can be given in the units of the first step's X."""
        if self.before is None:
            return True
        return hasattr(self.before, "inverse_transform") and self._shown is None

    @property
    def _shown(self) -> list[int] | None:
        """Positions of the columns that are shown; None where all are."""
        n_columns, columns = self.vae.n_features_in_, getattr(self.vae, "condition_columns", None)
        names = list(getattr(self.vae, "feature_names_in_", ()))
        taken = {names.index(c) if isinstance(c, str) else c % n_columns for c in columns or ()}
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

    def _enter(self, X: Any) -> Any:
        return X if self.before is None else self.before.transform(X)

    def _leave(self, x: Any) -> np.ndarray:
        if self.before is not None and self._is_undone:
            x = self.before.inverse_transform(as_array(x))
        return self._modelled(x)

    def _modelled(self, x: Any) -> np.ndarray:
        """The columns that are shown, as numbers."""
        x = as_array(x)
        return (x if self._shown is None else x[:, self._shown]).astype(np.float64)

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
            f"got a {type(estimator).__name__}. Of a search, pass best_estimator_."
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
            f"none of the steps {names} of the Pipeline is a VAETransformer or ConditionalVAE."
        )
    place = ours[-1] if step is None else names.index(step)
    return Model(estimator.steps[place][1], estimator[:place] if place else None)


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
    return values.iloc[:n_rows] if hasattr(values, "iloc") else values[:n_rows]


def position_of(wanted: int | str, names: Sequence[str], noun: str) -> int:
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
        rows = [0] * n_rows
        return condition.iloc[rows] if hasattr(condition, "iloc") else condition[rows]
    return [condition] * n_rows


def _columns(X: Any, columns: Sequence[int | str]) -> Any:
    """The columns of a condition, as a table."""
    if hasattr(X, "columns"):
        return X[[c if isinstance(c, str) else X.columns[c] for c in columns]]
    rows = np.asarray(X, dtype=object) if isinstance(X, (list, tuple)) else to_numpy(X)
    return rows[:, list(columns)]
