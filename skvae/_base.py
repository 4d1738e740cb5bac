"""What both estimators have in common: a fit from its request to its attributes, and their state.

Axes: ``N`` rows of X, ``D`` columns.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skvae import _inference as inference
from skvae._answers import Answers
from skvae._conditions import Condition
from skvae._deferred import Deferrable
from skvae._docs import LinksToDocs
from skvae._epochs import Epochs
from skvae._fitted import Fitted
from skvae._fitting import fit_together
from skvae._frames import with_index
from skvae._likelihoods import LIKELIHOODS
from skvae._messages import warn_user
from skvae._networks import ACTIVATIONS
from skvae._preparing import Job, Request, integer, is_there
from skvae._reading import ReadsX
from skvae._schema import Schema
from skvae._sklearn import (
    CallbackSupportMixin,
    Interval,
    StrOptions,
    check_same_namespace,
    float_dtypes,
    from_tensor,
    to_numpy,
    to_tensor,
)
from skvae._state import damaged, opened, sealed
from skvae._training import Trained, Training
from skvae._vae import VAE
from skvae._verdict import ACTIVE_NATS, doubts

# What is known of the columns of X before a fit: what scikit-learn keeps, and where among them
# a condition is.
_OF_COLUMNS = ("n_features_in_", "feature_names_in_", "_condition_at")

# The fitted attributes that belong to the namespace of fit's X.
_ARRAYS = ("kl_per_component_", "noise_variance_", "condition_prior_")

# A given variance has to be well above the floor, which is added to what is learned.
_LEAST_VARIANCE = 1e-5


class PosteriorMoments(NamedTuple):
    """Means and standard deviations of q(z|x), both ``(n_rows, n_components)``."""

    mean: Any
    std: Any


class BoundTerms(NamedTuple):
    """The ELBO of each row in nats, ``(n_rows,)``, and what it is made of."""

    elbo: Any
    reconstruction: Any
    kl: Any


class BaseVAE(
    ReadsX,
    LinksToDocs,
    Deferrable,
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Common base of the two estimators.

    ``values`` are the columns of a condition, pairs of a name and an array; None without one, or
    where labels are to be integrated out.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "likelihood": [StrOptions({*LIKELIHOODS, "auto"}), Mapping, list, tuple],
        "handle_unknown": [StrOptions({"error", "missing"})],
        "exposure": [StrOptions({"total"}), None],
        "noise_variance": [
            StrOptions({"feature", "shared", "decoder"}),
            Interval(Real, _LEAST_VARIANCE, None, closed="left"),
        ],
        "beta": [Interval(Real, 0, None, closed="left")],
        "n_importance_samples": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "learning_rate": [StrOptions({"adaptive", "cosine", "constant"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init": [StrOptions({"both", "pca", "factor_analysis", "random"})],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "device": [str, torch.device],
        "verbose": ["verbose"],
    }

    # The parameters, of which each estimator has its own constructor.
    n_components: int
    likelihood: str | Mapping[str, Any] | Sequence[tuple[str, Any]]
    handle_unknown: Literal["error", "missing"]
    exposure: Literal["total"] | None
    noise_variance: Literal["feature", "shared", "decoder"] | float
    beta: float
    n_importance_samples: int
    hidden_layer_sizes: int | Sequence[int]
    activation: Literal["silu", "relu", "tanh", "gelu", "elu"]
    dropout: float
    alpha: float
    learning_rate: Literal["adaptive", "cosine", "constant"]
    learning_rate_init: float
    batch_size: Literal["auto"] | int
    max_iter: int
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    tol: float
    n_init: int
    init: Literal["both", "pca", "factor_analysis", "random"]
    warm_start: bool
    random_state: int | np.random.RandomState | None
    device: str | torch.device
    verbose: bool | int

    # What a fit leaves behind; `Any` are arrays of the namespace of its X.
    kl_per_component_: Any
    n_active_components_: int
    likelihoods_: list[str]
    noise_variance_: Any
    n_iter_: int
    loss_curve_: list[float]
    validation_scores_: list[float]
    best_validation_score_: float | None
    device_: str
    _n_features_out: int

    # ------------------------------------------------------------------ fitting

    def _fit(
        self,
        X: Any,
        condition: Condition | None,
        schema: Schema | None,
        *,
        is_partial: bool = False,
        given: tuple[Any, Any] | None = None,
    ) -> None:
        """From validated X and its condition to the fitted attributes.

        ``schema`` is what X was read by. Callbacks are told of X and y as they were ``given``.
        """
        request = Request(self, X, condition, is_partial, schema)
        cache = self._take_cache()
        context: Any = None
        outcome = cache.lookup(request) if cache is not None and not is_partial else None
        if given is not None:
            context = self._init_callback_context(max_subtasks=self.max_iter)
            context.call_on_fit_task_begin(estimator=self, X=given[0], y=given[1])
        if outcome is None:
            [outcome] = fit_together([request], report=Epochs(self, context, *(given or (X, None))))
        else:
            self._adopt(outcome.estimator, X)
        if outcome.error is not None:
            raise outcome.error
        try:
            for message in outcome.warnings:
                warn_user(message, ConvergenceWarning)
        finally:  # an interrupt gets out where warnings are errors, too
            if outcome.interrupt is not None:
                raise outcome.interrupt
        if given is not None:
            context.call_on_fit_task_end(
                estimator=self, X=given[0], y=given[1], reconstruction_attributes=dict
            )

    def _adopt(self, other: BaseVAE, like: Any) -> None:
        """What an equal fit has left behind, as if it had been this one."""
        found = {
            name: value
            for name, value in vars(other).items()
            # Equal columns may have other names here: those of this X are there already.
            if _is_of_fit(name) and name not in _OF_COLUMNS
        }
        # Another thread or process may not have known of this namespace.
        for name in _ARRAYS:
            if name in found:
                found[name] = from_tensor(to_tensor(found[name]), like)
        self._take_on(found)
        ours, theirs = self.random_state, other.random_state
        if isinstance(ours, np.random.RandomState) and isinstance(theirs, np.random.RandomState):
            ours.set_state(theirs.get_state())

    @contextlib.contextmanager
    def _kept_if_it_fails(self) -> Iterator[None]:
        """A fit that fails leaves the model before it, and the columns that this knows."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            if "_fitted" in before and vars(self).get("_fitted") is before["_fitted"]:
                for name in _OF_COLUMNS:
                    vars(self).pop(name, None)
                vars(self).update({name: before[name] for name in _OF_COLUMNS if name in before})
            raise

    def _attributes_by_now(self, job: Job, training: Training) -> dict[str, Any]:
        """What a fit would leave behind if it ended here."""
        return self._left_behind(job, job.starts.best(training.results()))

    def _left_behind_of_condition(self, fitted: Fitted, request: Request) -> dict[str, Any]:
        """What a fit leaves behind of its condition and where this came from, if it had one."""
        return {}

    def _take_on(self, found: dict[str, Any]) -> None:
        """Have these fitted attributes and no others but for those of the columns of X.

        In one step: an interrupt would leave a network with the labels of another.
        """
        own = {
            name: value
            for name, value in vars(self).items()
            if name in _OF_COLUMNS or not _is_of_fit(name)
        }
        self.__dict__ = own | found

    def __copy__(self) -> Self:
        """Of callbacks, in every epoch: without a state that is sealed, opened and checked.

        Halfway through a fit the columns of X are already those of the next model.
        """
        other = type(self).__new__(type(self))
        vars(other).update(vars(self))
        return other

    def _conclude(
        self, job: Job, results: Sequence[Trained], interrupt: KeyboardInterrupt | None
    ) -> list[str]:
        """Set the fitted attributes by the best result; give the warnings it deserves."""
        best = job.starts.best(results)
        self._take_on(self._left_behind(job, best))
        return list(doubts(self, job, best, is_interrupted=interrupt is not None))

    def _left_behind(self, job: Job, best: Trained) -> dict[str, Any]:
        """The fitted attributes by this result, all but those of the columns of X."""
        kl, variance = inference.averages(best.model, job.x, job.c, job.codec.variance)
        if job.previous is None:
            order = kl.argsort(descending=True, stable=True)
            best, kl = best.reorder(order), kl[order]
        fitted = Fitted(
            best.model,
            job.codec,
            job.conditions,
            best.optimizer,
            job.dtype,
            job.design,
            job.request.schema,
        )
        previous = job.previous
        if previous is not None and fitted.n_steps == previous.n_steps:
            fitted = replace(fitted, n_vain=previous.n_vain + 1)
        like, dtype = job.request.X, fitted.torch_dtype
        found = {
            "_fitted": fitted,
            "_n_features_out": fitted.model.architecture.n_components,
            "kl_per_component_": from_tensor(kl.to(dtype), like),
            "likelihoods_": list(fitted.codec.families),
            "n_active_components_": int((kl > ACTIVE_NATS).sum()),
            "device_": str(job.x.device),
            **_history(best, job),
            **self._left_behind_of_condition(fitted, job.request),
        }
        if fitted.model.architecture.likelihood != "bernoulli":
            # Of p(x|z), the mean over all rows at the means of q(z|x).
            variance = fitted.codec.decode_variance(variance)
            found["noise_variance_"] = from_tensor(variance.to(dtype), like)
        return found

    # ------------------------------------------------------------------ answers

    @property
    def _answers(self) -> Answers:
        """What the fitted model says; arrays of the user's come from it by ``_output``."""
        return Answers(self._fitted, self._place)

    def _generator(self, random_state: Any) -> torch.Generator:
        """By this seed, or where there is none by the estimator's own."""
        random = check_random_state(self.random_state if random_state is None else random_state)
        return torch.Generator("cpu").manual_seed(integer(random))

    def _sample(
        self, n_samples: int, values: Any, mean: bool, random_state: Any
    ) -> tuple[Tensor, np.ndarray | None]:
        """x ~ p(x|z), z ~ p(z), and the number of the labels that were drawn for it."""
        generator = self._generator(random_state)
        z = self._answers.prior_draws(n_samples, generator)
        return self._answers.drawn(z, values, generator, is_mean=mean)

    def _resampled(
        self, X: Any, values: Any, n_imputations: int, n_draws: int, random_state: Any
    ) -> list[Tensor]:
        n_imputations = self._check_count(n_imputations, "n_imputations")
        n_draws, generator = self._check_count(n_draws), self._generator(random_state)
        return self._answers.resampled(X, values, n_imputations, n_draws, generator)

    def _check_components(self, Z: Any) -> Tensor:
        n = self._n_features_out
        Z = check_array(Z, dtype=float_dtypes(Z), input_name="Z")
        if Z.shape[1] != n:
            raise ValueError(
                f"Z has {Z.shape[1]} columns; {type(self).__name__} was fitted with "
                f"n_components={n}, so Z needs {n}."
            )
        check_same_namespace(Z, self, attribute="kl_per_component_", method="inverse_transform")
        return to_tensor(Z)

    def _posterior_of(self, X: Any, values: Any) -> PosteriorMoments:
        mean, std = self._answers.posterior(X, values)
        return PosteriorMoments(self._output(mean, X), self._output(std, X))

    def _elbo_of(self, X: Any, values: Any, n_draws: int) -> BoundTerms:
        reconstruction, kl = self._answers.elbo_terms(X, values, self._check_count(n_draws))
        parts = (reconstruction - kl, reconstruction, kl)
        return BoundTerms(*(self._output(part, X) for part in parts))

    def _check_count(self, n: int, name: str = "n_draws") -> int:
        if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
            raise ValueError(f"{name} must be an integer of at least 1; got {n!r}.")
        return int(n)

    def _like(self, like: Any) -> Any:
        """An array of the namespace to answer in: that of ``like``, else that of fit's X."""
        return self.kl_per_component_ if like is None else like

    def _output(self, tensor: Tensor, like: Any) -> Any:
        return from_tensor(tensor, self._like(like))

    def _rows(
        self,
        x: Tensor,
        like: Any,
        *,
        is_mean: bool,
        beside: Mapping[int, np.ndarray] | None = None,
        completed: Any = None,
    ) -> Any:
        """Rows like those of fit's X; ``beside`` are its columns that are not modelled.

        ``completed`` is the user's X, if the rows are those of X and it is the missing cells that
        are decoded.
        """
        schema = self._fitted.schema
        if schema is None:
            return self._output(x, like)
        rows = schema.decode(to_numpy(x), beside or {}, is_mean=is_mean, completed=completed)
        rows = with_index(rows, like if completed is None else completed)
        if not isinstance(rows, np.ndarray) or rows.dtype == object:
            return rows
        return self._output(torch.from_numpy(rows), like)

    # ------------------------------------------------------------- keep and carry

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if isinstance(self.device, torch.device):  # a state has nothing of torch in it
            state["device"] = str(self.device)
        if "_fitted" in state:
            state["_fitted"] = state["_fitted"].to_plain()
            for name in _ARRAYS:
                if name in state:
                    state[name] = to_numpy(state[name])
        return sealed(self, state)

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = opened(self, state)
        is_fitted = "_fitted" in state
        plain = state.pop("_fitted", None)
        super().__setstate__(state)
        if not is_fitted:
            return
        try:
            self._fitted = Fitted.from_plain(plain, self._device_here())
            self._check_loaded()
        except UserWarning:  # that of the device, where warnings are errors
            raise
        except Exception as error:  # whatever a state that lies leads to
            raise damaged(self, f"{type(error).__name__}: {error}") from error

    def _device_here(self) -> torch.device:
        """That of the fit, or where there is none such the CPU."""
        device = torch.device(self.device_)
        if not is_there(device):
            warn_user(
                f"{type(self).__name__} was fitted on {self.device_}, and there is no such device "
                "here: it is loaded on the CPU."
            )
            device, self.device_ = torch.device("cpu"), "cpu"
        return device

    def _check_loaded(self) -> None:
        """What stands beside `_fitted` fits it."""
        codec, conditions = self._fitted.codec, self._fitted.conditions
        n_components = self._fitted.model.architecture.n_components
        beside = getattr(self, "_condition_at", [])
        is_in_columns = getattr(self, "_source", "") == "columns"
        shapes = {"kl_per_component_": (n_components,)}
        if hasattr(self, "condition_prior_"):
            shapes["condition_prior_"] = (len(conditions.log_prior),)
        if hasattr(self, "noise_variance_"):
            shapes["noise_variance_"] = (len(codec.families),)
        if (
            self.n_features_in_ != len(codec.families) + len(beside)
            or len(beside) != (len(conditions.columns) if is_in_columns else 0)
            or len(set(beside) & set(range(self.n_features_in_))) != len(beside)
            or len(getattr(self, "feature_names_in_", ())) not in (0, self.n_features_in_)
            or self._n_features_out != n_components
            or any(np.shape(getattr(self, name)) != shape for name, shape in shapes.items())
        ):
            raise ValueError("its attributes are not those of its network")

    # scikit-learn takes every argument that is not called X for metadata.
    __metadata_request__inverse_transform: ClassVar = {
        "Z": UNUSED,
        "mean": UNUSED,
        "random_state": UNUSED,
    }

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = self._is_plain(reset=True)
        # Not `categorical`, which says of X that it has nothing but whole numbers.
        tags.input_tags.string = not self._is_plain(reset=True)
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_fitted")

    def to_torch(self) -> VAE:
        """The fitted network, a copy: a ``torch.nn.Module`` with a model axis of length 1.

        ``encode(x, c)`` takes x ``(1, n_rows, n_columns)`` and c ``(1, n_rows,
        n_condition_columns)``, which has no columns without a condition; ``decode(z, c)``
        takes z ``(n_draws, 1, n_rows, n_components)``. The columns of x are standardised
        for a gaussian likelihood; those that were constant in fit are left out. With several
        likelihoods counts stand first, categories last, a column for each, and then the
        logarithms of the counts once more.

        Returns
        -------
        model : torch.nn.Module
            In float32, on the device of the fit.
        """
        check_is_fitted(self)
        return copy.deepcopy(self._fitted.model)


def _is_of_fit(name: str) -> bool:
    """Whether an attribute of this name is one that fits leave behind."""
    private = ("_fitted", "_n_features_out", "_source", "_condition_at")
    return name in private or (name.endswith("_") and not name.startswith("_"))


def _history(best: Trained, job: Job) -> dict[str, Any]:
    """The bounds of all epochs, in the units of X."""
    log_jacobian = job.training_log_jacobian
    loss_curve = [-(bound + log_jacobian) for bound in best.training_bounds]
    if best.has_validation:
        log_jacobian = job.validation_log_jacobian
    has_validation = best.has_validation and math.isfinite(best.bound)
    return {
        "n_iter_": len(best.training_bounds),
        "loss_curve_": loss_curve,
        "validation_scores_": [bound + log_jacobian for bound in best.validation_bounds],
        "best_validation_score_": best.bound + log_jacobian if has_validation else None,
    }
