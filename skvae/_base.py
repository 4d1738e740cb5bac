"""Where scikit-learn meets torch: arrays -> tensors -> ``Training`` -> fitted attributes.

Axes: ``N`` rows of X, ``D`` columns, ``C`` condition columns, ``M`` combinations of
labels, ``Z`` components, ``S`` draws.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import sys
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, NamedTuple, Self

import joblib
import numpy as np
import sklearn
import torch
from scipy.special import ndtri
from scipy.stats import qmc
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skvae import _inference as inference
from skvae._checks import check_counts, check_ranges, check_support, check_totals
from skvae._columns import Columns, Encoded, Ranges
from skvae._conditions import Conditions
from skvae._deferred import Deferrable
from skvae._docs import LinksToDocs
from skvae._epochs import Epochs
from skvae._fitted import Fitted, moved
from skvae._fitting import Job, Request, fit_together, fits
from skvae._frames import (
    with_index,
)
from skvae._likelihoods import LIKELIHOODS, Likelihood
from skvae._messages import changed_error, listed
from skvae._networks import ACTIVATIONS
from skvae._reading import ReadsX
from skvae._rows import Chosen, Rows, SparseRows, chunks, has_missing
from skvae._run import Run
from skvae._sklearn import (
    CallbackSupportMixin,
    Interval,
    StrOptions,
    check_same_namespace,
    float_dtypes,
    from_tensor,
    is_mapped,
    to_numpy,
    to_rows,
    to_tensor,
)
from skvae._starts import Starts
from skvae._state import damaged, opened, sealed
from skvae._tables import Table
from skvae._threads import one_thread
from skvae._training import Trained, Training
from skvae._vae import (
    VAE,
    Architecture,
    from_state,
)

#: A component whose KL is below this many nats a row tells nothing.
ACTIVE_NATS = 0.01

# What is known of the columns of X before a fit: what scikit-learn keeps, and where among them
# a condition is.
_OF_COLUMNS = ("n_features_in_", "feature_names_in_", "_condition_at")

# The fitted attributes that belong to the namespace of fit's X.
_ARRAYS = ("kl_per_component_", "noise_variance_", "condition_prior_")

# Seeds are below.
_N_SEEDS = np.iinfo(np.int32).max

# A given variance has to be well above the floor, which is added to what is learned.
_LEAST_VARIANCE = 1e-5

# Below this there is too little to spare for validation.
_MIN_ROWS_TO_SPLIT = 20

# Of batch_size="auto": the smallest power of two with no more steps an epoch than this, and so with
# more than half of them. With few steps an epoch leads so little further that early stopping, which
# counts epochs, ends the training before it is done; with few rows gradients are mostly noise.
_MAX_STEPS_AN_EPOCH = 32
_MIN_BATCH_SIZE, _MAX_BATCH_SIZE = 16, 128

#: Draws for p(c|x) where it only weights the labels of a mixture.
N_DRAWS_LABELS = 32

_DTYPES = {"float64": torch.float64, "float32": torch.float32}


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

    ``values`` are the columns of a condition, pairs of a name and an array, and ``c`` their
    encoding, (N, C): C is 0 without a condition, and ``c`` is None where labels are to be
    integrated out.
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

    # ------------------------------------------------------------------ fitting

    def _fit(
        self,
        X: Any,
        values: Any,
        kinds: Any,
        *,
        like: Any,
        is_partial: bool = False,
        table: Table | None = None,
        source: str = "",
        given: tuple[Any, Any] | None = None,
    ) -> None:
        """From validated X and the columns of its condition to the fitted attributes.

        ``like`` is an array of the namespace that the fitted attributes belong to, ``table``
        says how X was read, ``source`` where the condition was. Callbacks are told of X and y
        as they were given.
        """
        request = Request(self, X, values, kinds, like, is_partial, table, source)
        cache, context = self._take_cache(), None
        outcome = cache.lookup(request) if cache is not None and not is_partial else None
        if given is not None:
            context = self._init_callback_context(max_subtasks=self.max_iter)
            context.call_on_fit_task_begin(estimator=self, X=given[0], y=given[1])
        if outcome is None:
            [outcome] = fit_together([request], report=Epochs(self, context, *(given or (X, None))))
        else:
            self._adopt(outcome.estimator, like)
        if outcome.error is not None:
            raise outcome.error
        try:
            for message in outcome.warnings:
                _warn(message, ConvergenceWarning)
        finally:  # an interrupt gets out where warnings are errors, too
            if outcome.interrupt is not None:
                raise outcome.interrupt
        if context is not None:
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
        if isinstance(self.random_state, np.random.RandomState):
            self.random_state.set_state(other.random_state.get_state())

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
        return self._left_behind(job, self._starts.best(training.results()))

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

    @property
    def _starts(self) -> Starts:
        return Starts(self.init, self.n_init)

    def _prepare(self, request: Request, tables: dict[Hashable, Any]) -> Job:
        """Check, split and encode; ``tables`` keeps what requests of equal data share."""
        x, is_partial, table = to_rows(request.X), request.is_partial, request.table
        families = [self.likelihood] * x.shape[1] if table is None else table.families
        check_support(x, families, self._place)
        random = check_random_state(self.random_state)
        design = self._design(families)
        previous = self._previous(design, is_partial)
        dtype = str(x.dtype).removeprefix("torch.")
        device = _device(self.device, x)
        place = (request.data, tuple(families), self.exposure, device)
        if request.data is not None and previous is None and place in tables:
            columns, conditions, x, c = tables[place]
        else:
            columns, conditions, x, c = self._encode(request, x, families, device, previous)
            tables[place] = columns, conditions, x, c
        rows, validation_rows = self._split(len(x), random, x.device, is_partial)
        if len(validation_rows) and x.shape[1] > columns.width:  # there are holes
            rows, validation_rows = _with_all_columns(to_rows(request.X), rows, validation_rows)
        if len(validation_rows) and c.shape[1]:
            rows, validation_rows = _with_all_labels(c, rows, validation_rows)
        run = self._run_template(x, c, columns, design, rows, validation_rows, is_partial, previous)
        n_models = 1 if previous else self._starts.n_runs(run.model.architecture)
        # What goes on has other noise than before: met again and again it would be learned.
        n_taken = previous.n_steps + previous.n_vain if previous else 0
        seeds = [
            (0 if previous else _integer(random), (_integer(random) + n_taken) % _N_SEEDS)
            for _ in range(n_models)
        ]
        return Job(
            request=request,
            x=x,
            c=c,
            columns=columns,
            conditions=conditions,
            rows=rows,
            validation_rows=validation_rows,
            run=run,
            seeds=seeds,
            dtype=dtype,
            design=design,
            previous=previous,
        )

    def _encode(
        self,
        request: Request,
        x: Rows,
        families: Sequence[str],
        device: torch.device,
        previous: Fitted | None,
    ) -> tuple[Columns, Conditions, Rows, Tensor]:
        values, kinds = request.values, request.kinds
        if previous is None:
            sizes = None if request.table is None else request.table.sizes
            ranges = Ranges.of(x)
            check_ranges(ranges, families, self._place)
            with_mask = bool((ranges.n_known < len(x)).any())
            is_relative = self.exposure is not None
            if is_relative and with_mask:
                check_totals(x, families, self._place)
            columns = Columns.of(x, families, sizes, ranges, is_relative=is_relative)
            conditions = Conditions.of(values, kinds) if values else Conditions()
        else:
            columns, conditions = previous.columns, previous.conditions
            if columns.positions("count"):
                check_counts(Ranges.of(x), families, self._place)
            self._warn_of_constant_columns(x, previous)
            with_mask = self._has_holes(x, previous)
        rows = columns.encoded(x, torch.float32, device, with_mask=with_mask)
        c = self._encode_condition(conditions, values, len(x), device)
        is_apart = isinstance(x, SparseRows) or is_mapped(request.X) or not fits(rows)
        return columns, conditions, rows if is_apart else rows.whole(), c

    def _warn_of_constant_columns(self, x: Rows, previous: Fitted) -> None:
        """Of those that are no part of the model, as they were constant, and are so no more."""
        if found := previous.columns.no_longer_constant(x, _DTYPES[previous.dtype]):
            names = ", ".join(self._place(":", column) for column in found)
            _warn(
                f"{names} had one value in the first fit, which made it no part of the model, and "
                "varies now. Fit anew on rows in which it varies: of partial_fit the first call "
                "decides.",
                UserWarning,
            )

    def _started_runs(self, job: Job) -> Iterator[Run]:
        """The runs of a job: one for each start, or one that goes on."""
        run, previous = job.run, job.previous
        architecture = run.model.architecture
        if previous is None:
            x, c = Chosen(job.x, job.rows), job.c[job.rows]
            models = self._starts.models(architecture, x, c, [start for start, _ in job.seeds])
        else:
            # A model that was loaded may live on another device than this fit.
            device = job.x.device
            run = replace(run, optimizer=moved(previous.optimizer, device))
            weights = moved({"weights": previous.model.state_dict()}, device)["weights"]
            models = iter([from_state(architecture, weights)])
        for model, (_, seed) in zip(models, job.seeds, strict=True):
            yield replace(run, model=model, seed=seed)

    def _conclude(
        self, job: Job, results: Sequence[Trained], interrupt: KeyboardInterrupt | None
    ) -> list[str]:
        """Set the fitted attributes by the best result; give the warnings it deserves."""
        best = self._starts.best(results)
        self._take_on(self._left_behind(job, best))
        # A linear start is a model already; random networks are none.
        architecture = best.model.architecture
        is_random = job.previous is None and self._starts.methods(architecture) == ("random",)
        is_random = is_random and architecture.n_features > 0
        is_untrained = is_random and best.has_validation and best.bound <= best.start_bound
        is_interrupted = interrupt is not None
        return list(
            self._warnings(best, job, is_untrained=is_untrained, is_interrupted=is_interrupted)
        )

    def _left_behind(self, job: Job, best: Trained) -> dict[str, Any]:
        """The fitted attributes by this result, all but those of the columns of X."""
        kl, variance = inference.averages(best.model, job.x, job.c, job.columns.variance)
        if job.previous is None:
            order = kl.argsort(descending=True, stable=True)
            best, kl = best.reorder(order), kl[order]
        fitted = Fitted(
            best.model,
            job.columns,
            job.conditions,
            best.optimizer,
            job.dtype,
            job.design,
            job.request.table,
        )
        previous = job.previous
        if previous is not None and fitted.n_steps == previous.n_steps:
            fitted = replace(fitted, n_vain=previous.n_vain + 1)
        like, dtype = job.request.like, _DTYPES[fitted.dtype]
        found = {
            "_fitted": fitted,
            "_n_features_out": fitted.model.architecture.n_components,
            "kl_per_component_": from_tensor(kl.to(dtype), like),
            "likelihoods_": list(fitted.columns.families),
            "n_active_components_": int((kl > ACTIVE_NATS).sum()),
            "device_": str(job.x.device),
            **_history(best, job),
            **self._left_behind_of_condition(fitted, job.request),
        }
        if fitted.model.architecture.likelihood != "bernoulli":
            # Of p(x|z), the mean over all rows at the means of q(z|x).
            variance = fitted.columns.decode_variance(variance)
            found["noise_variance_"] = from_tensor(variance.to(dtype), like)
        return found

    def _run_template(
        self,
        x: Rows,
        c: Tensor,
        columns: Columns,
        design: dict[str, Any],
        rows: Tensor,
        validation_rows: Tensor,
        is_partial: bool,
        previous: Fitted | None,
    ) -> Run:
        """What the parameters ask for, but for the weights to start from and the seed."""
        architecture = Architecture(
            n_features=columns.n_features,
            n_components=design["n_components"],
            n_conditions=c.shape[1],
            hidden_layer_sizes=design["hidden_layer_sizes"],
            activation=design["activation"],
            likelihood=columns.likelihood,
            noise=design["noise_variance"],
            # A model that goes on keeps the encoder it has.
            sees_mask=previous.model.architecture.sees_mask
            if previous
            else x.shape[1] > columns.width,
            has_exposure=columns.is_relative,
        )
        is_uncertain = _has_uncertain_bits(x, architecture)
        return Run(
            model=VAE(architecture, device="meta"),  # for its sizes; each start has its own
            rows=rows,
            validation_rows=validation_rows,
            seed=0,
            batch_size=self._rows_a_step(len(rows), is_partial),
            n_importance_samples=int(self.n_importance_samples),
            beta=float(self.beta),
            learning_rate=float(self.learning_rate_init),
            schedule=self.learning_rate,
            alpha=float(self.alpha),
            dropout=float(self.dropout),
            max_iter=1 if is_partial else int(self.max_iter),
            n_iter_no_change=int(self.n_iter_no_change),
            tol=float(self.tol),
            binarise=is_uncertain,
        )

    def _rows_a_step(self, n_rows: int, is_partial: bool) -> int:
        """The size of a batch, of so many rows to train on."""
        if self.batch_size != "auto":
            size = int(self.batch_size)
        elif is_partial:  # a piece of the rows does not tell how many there are
            size = _MAX_BATCH_SIZE
        else:
            wanted = 2 ** math.ceil(math.log2(n_rows / _MAX_STEPS_AN_EPOCH))
            size = min(max(wanted, _MIN_BATCH_SIZE), _MAX_BATCH_SIZE)
        # Twice the rows there are at most: a batch of millions of copies serves nobody.
        return min(size, 2 ** math.ceil(math.log2(n_rows)))

    def _warnings(
        self, best: Trained, job: Job, *, is_untrained: bool, is_interrupted: bool
    ) -> Iterator[str]:
        is_over = not job.request.is_partial  # which is not the end of anything
        if is_interrupted:
            yield (
                f"Training was interrupted after {self.n_iter_} epochs; the estimator holds the "
                "best weights so far."
            )
            return
        if not best.is_finite:
            yield (
                "The training bound stopped being finite in epoch "
                f"{len(best.training_bounds) + 1}; the estimator holds the best weights before it. "
                f"Lower learning_rate_init (now {self.learning_rate_init:g}), or check X for "
                "extreme values."
            )
        elif is_untrained:
            yield (
                "Training never improved on its random start (validation bound "
                f"{self.best_validation_score_:.4g} nats per row, finally "
                f"{self.validation_scores_[-1]:.4g}), so the features carry no information. Lower "
                f"learning_rate_init (now {self.learning_rate_init:g}), check X for columns with "
                "extreme values in a few rows, or use more rows."
            )
        elif best.is_improving and is_over and len(best.training_bounds) >= job.run.max_iter:
            yield (
                f"Stopped after max_iter={self.max_iter} epochs while the bound was still "
                "improving. Increase max_iter or learning_rate_init."
            )
        if is_over and self.n_active_components_ == 0 and best.model.architecture.n_features:
            remedy = "increase max_iter"
            a = best.model.architecture
            other = []  # what is not so already
            if self.init in ("pca", "random") and a.likelihood != "bernoulli":
                other.append("init='factor_analysis'")
            if a.noise != "feature":
                other.append("noise_variance='feature'")
            if other:
                remedy += f", use {' or '.join(other)}"
            yield (
                f"All {self.n_components} components collapsed: none carries more than "
                f"{ACTIVE_NATS:g} nats about a row, so the features carry no information. Lower "
                f"beta (now {self.beta:g}), {remedy}; or the columns of X are independent, and "
                "there is nothing to find."
            )

    def _previous(self, design: dict[str, Any], is_partial: bool) -> Fitted | None:
        """What to go on from, if anything; its design has to be the same."""
        previous: Fitted | None = getattr(self, "_fitted", None)
        if previous is None or not (is_partial or self.warm_start):
            return None
        changed = [
            f"{name} was {old!r} and is {design[name]!r}"
            for name, old in previous.design.items()
            if design[name] != old
        ]
        if changed:
            raise changed_error(changed)
        return previous

    def _design(self, families: Sequence[str]) -> dict[str, Any]:
        """The parameters that make the shape of the model."""
        sizes = self.hidden_layer_sizes
        sizes = (sizes,) if isinstance(sizes, Integral) else tuple(sizes)
        if not all(isinstance(size, Integral) and size >= 1 for size in sizes):
            raise ValueError(
                f"hidden_layer_sizes={self.hidden_layer_sizes!r} must hold integers of at least 1, "
                "the units of each layer. No hidden layer at all is hidden_layer_sizes=()."
            )
        used = [LIKELIHOODS[name] for name in set(families)]
        if self.exposure is not None and not any(family.reading == "count" for family in used):
            raise ValueError(
                f"exposure={self.exposure!r} needs counts, and no column of X is one. Use "
                "likelihood='poisson' or 'negative_binomial', or exposure=None."
            )
        noise = self.noise_variance
        if not any(family.parameters[1:] for family in used) or (
            not isinstance(noise, str) and not any(family.is_scaled for family in used)
        ):
            noise = "feature"  # there is no variance to speak of
        return {
            "n_components": int(self.n_components),
            "hidden_layer_sizes": tuple(int(size) for size in sizes),
            "activation": self.activation,
            "exposure": self.exposure,
            "likelihood": self.likelihood if isinstance(self.likelihood, str) else list(families),
            "noise_variance": noise if isinstance(noise, str) else float(noise),
        }

    def _split(
        self, n_rows: int, random: Any, device: torch.device, is_partial: bool
    ) -> tuple[Tensor, Tensor]:
        """Rows to train on and rows to validate by."""
        order = torch.from_numpy(random.permutation(n_rows)).to(device)
        if is_partial or not self.early_stopping or n_rows < _MIN_ROWS_TO_SPLIT:
            return order.sort()[0], order[:0]
        n_validation = min(n_rows - 1, max(1, math.ceil(self.validation_fraction * n_rows)))
        return order[n_validation:].sort()[0], order[:n_validation].sort()[0]

    # ---------------------------------------------------------------- inference

    def _encode_condition(
        self,
        conditions: Conditions,
        values: Any,
        n_rows: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Columns of a condition -> c (N, C)."""
        if not conditions.columns:
            return torch.zeros(n_rows, 0, dtype=dtype, device=device)
        return torch.from_numpy(conditions.encode(values)).to(device, dtype)

    @one_thread()  # others would be in the way of those that are to share the rows
    def _encoded(self, X: Any, values: Any) -> tuple[VAE, Encoded, Tensor | None]:
        """The model, x (N, D') and c, or None for c where it is to be integrated out."""
        fitted = self._fitted
        x = to_rows(X)
        check_support(x, fitted.columns.families, self._place)
        model = fitted.model_in(x.dtype)
        weight = model.encoder.linear.weight
        with_mask = self._has_holes(x, fitted)
        encoded = fitted.columns.encoded(x, weight.dtype, weight.device, with_mask=with_mask)
        return model, encoded, self._condition_of_rows(values, len(x), weight)

    def _has_holes(self, x: Rows, fitted: Fitted) -> bool:
        """Whether rows need a mask."""
        is_missing = has_missing(x)
        if is_missing and fitted.columns.is_relative:
            check_totals(x, fitted.columns.families, self._place)
        return is_missing or fitted.model.architecture.sees_mask

    def _condition_of_rows(self, values: Any, n_rows: int, like: Tensor) -> Tensor | None:
        conditions = self._fitted.conditions
        if values is None and conditions.combinations is None:
            raise ValueError(
                f"condition= is required: the numeric condition {listed(conditions.numbers)} "
                "cannot be integrated out as labels can. Pass condition= to this method."
            )
        if values is None and len(conditions.log_prior) > 1:
            return None
        if values is None:
            return self._combination(0, n_rows, like)
        return self._encode_condition(conditions, values, n_rows, like.device, like.dtype)

    def _combinations(self, numbers: np.ndarray, like: Tensor) -> Tensor:
        """c of the combinations of labels with these numbers, a row for each."""
        combinations = self._fitted.conditions.combinations
        assert combinations is not None
        return torch.from_numpy(combinations[numbers]).to(like)

    def _combination(self, m: int, n_rows: int, like: Tensor) -> Tensor:
        """c of one combination, for all rows."""
        return self._combinations(np.array([m]), like).expand(n_rows, -1)

    def _joint(self, model: VAE, x: Encoded, n_draws: int, *, only_holes: bool = False) -> Tensor:
        """log p(x, c) of every combination of labels, ``(N, M)``."""
        noise = _noise(model, n_draws)
        return torch.stack(
            [
                inference.scores(
                    model, x, self._combination(m, len(x), noise), noise, only_holes=only_holes
                ).log_likelihood
                + log_prior
                for m, log_prior in enumerate(self._fitted.conditions.log_prior.tolist())
            ],
            1,
        )

    def _means(self, X: Any, values: Any) -> Tensor:
        """Of q(z|x), or of the mixture where labels are unknown."""
        model, x, c = self._encoded(X, values)
        if c is None:
            return self._mixture(model, x, N_DRAWS_LABELS)[0]
        return inference.means(model, x, c)

    def _posterior(self, X: Any, values: Any, n_draws: int) -> tuple[Tensor, Tensor]:
        """Means and standard deviations of q(z|x), a mixture where labels are unknown."""
        model, x, c = self._encoded(X, values)
        if c is None:
            return self._mixture(model, x, n_draws)
        return inference.posterior(model, x, c)

    def _mixture(self, model: VAE, x: Encoded, n_draws: int) -> tuple[Tensor, Tensor]:
        """Those of q(z|x, c) averaged over p(c|x)."""
        # Of complete rows by the encoder alone, as in a graph of ONNX.
        joint = self._joint(model, x, n_draws, only_holes=True)
        shares = inference.normalised(joint, 1).T[:, :, None]  # (M, N, 1)
        weight = torch.full_like(shares[0], torch.finfo(shares.dtype).tiny)
        mean = square = shares.new_zeros(())
        # One label at a time: West, Updating mean and variance estimates, 1979.
        for m, share in enumerate(shares):
            loc, scale = inference.posterior(model, x, self._combination(m, len(x), shares))
            weight = weight + share
            step = loc - mean
            mean = mean + step * share / weight
            square = square + share * (scale.square() + step * (loc - mean))
        return mean, square.sqrt()

    def _log_likelihood(self, X: Any, values: Any, n_draws: int) -> Tensor:
        """log p(x), or log p(x|c), in the units of X."""
        model, x, c = self._encoded(X, values)
        if c is None:
            log_likelihood = torch.logsumexp(self._joint(model, x, n_draws), 1)
        else:
            noise = _noise(model, n_draws)
            log_likelihood = inference.scores(model, x, c, noise).log_likelihood
        return log_likelihood + self._fitted.columns.log_jacobian(x).to(log_likelihood)

    def _n_effective(self, X: Any, values: Any, n_draws: int) -> Tensor:
        """Of the draws for every row; labels that are unknown take their likeliest values."""
        model, x, c = self._encoded_with_likeliest(X, values, n_draws)
        return inference.scores(model, x, c, _noise(model, n_draws)).effective_sample_size

    def _encoded_with_likeliest(
        self, X: Any, values: Any, n_draws: int
    ) -> tuple[VAE, Encoded, Tensor]:
        """The model, x and c, of which labels that are unknown take their likeliest values."""
        model, x, c = self._encoded(X, values)
        if c is None:
            likeliest = self._joint(model, x, n_draws).argmax(1).cpu().numpy()
            c = self._combinations(likeliest, model.encoder.linear.weight)
        return model, x, c

    def _decode(self, z: Tensor, values: Any) -> Tensor:
        """E[x|z] in the units of X, averaged over the labels where they are unknown."""
        model = self._fitted.model_in(z.dtype)
        z = z.to(model.encoder.linear.weight.device)
        columns, c = self._fitted.columns, self._condition_of_rows(values, len(z), z)
        if c is not None:
            mean = inference.decode(model, z, c, columns.mean)
        else:
            prior = np.exp(self._fitted.conditions.log_prior).tolist()
            mean = sum(
                share * inference.decode(model, z, self._combination(m, len(z), z), columns.mean)
                for m, share in enumerate(prior)
            )
        return columns.decode(mean, z.dtype, is_mean=True)

    def _sample(
        self, n_samples: int, values: Any, mean: bool, random_state: Any
    ) -> tuple[Tensor, np.ndarray | None]:
        """x ~ p(x|z), z ~ p(z), and the number of the labels that were drawn for it."""
        generator = self._generator(random_state)
        dtype = _DTYPES[self._fitted.dtype]
        shape = (n_samples, self._fitted.model.architecture.n_components)
        z = torch.randn(shape, generator=generator, dtype=dtype, device="cpu")
        return self._draw(z, values, mean, generator)

    def _draw(
        self, z: Tensor, values: Any, mean: bool, generator: torch.Generator
    ) -> tuple[Tensor, np.ndarray | None]:
        """x ~ p(x|z) or its mean, and the number of the labels that were drawn for it."""
        fitted, n_rows = self._fitted, len(z)
        model = fitted.model_in(z.dtype)
        z = z.to(model.encoder.linear.weight.device)
        c = self._condition_of_rows(values, n_rows, z)
        drawn = None
        if c is None:
            share = torch.from_numpy(np.exp(fitted.conditions.log_prior))
            drawn = torch.multinomial(share, n_rows, True, generator=generator).numpy()
            c = self._combinations(drawn, z)

        def draw(p: Likelihood) -> Tensor:
            return p.sample(generator)

        exposure = None if mean else fitted.columns.log_exposure(n_rows, generator)
        exposure = None if exposure is None else exposure.to(z)
        cell = fitted.columns.mean if mean else draw
        x = inference.decode(model, z, c, cell, exposure, is_random=not mean)
        return fitted.columns.decode(x, z.dtype, is_mean=mean), drawn

    def _generator(self, random_state: Any) -> torch.Generator:
        """By this seed, or where there is none by the estimator's own."""
        random = check_random_state(self.random_state if random_state is None else random_state)
        return torch.Generator("cpu").manual_seed(_integer(random))

    def _imputed(self, X: Any, values: Any, n_draws: int) -> Tensor:
        """X (N, D) with E[x|what is observed] where cells are missing."""
        model, x, c = self._encoded(X, values)
        noise, columns = _noise(model, self._check_count(n_draws)), self._fitted.columns
        if c is not None:
            means = inference.expected(model, x, c, noise, columns.mean)
        else:
            shares = inference.normalised(self._joint(model, x, n_draws), 1)
            means = sum(
                share[:, None]
                * inference.expected(
                    model, x, self._combination(m, len(x), noise), noise, columns.mean
                )
                for m, share in enumerate(shares.T)
            )
        return _completed(x.x, columns.decode(means, noise.dtype, is_mean=True))

    def _resampled(
        self, X: Any, values: Any, n_imputations: int, n_draws: int, random_state: Any
    ) -> list[Tensor]:
        """Copies of X (N, D) whose missing cells are drawn from p(x|what is observed)."""
        generator = self._generator(random_state)
        model, x, c = self._encoded(X, values)
        noise, columns = _noise(model, self._check_count(n_draws)), self._fitted.columns
        n_imputations = self._check_count(n_imputations, "n_imputations")
        if c is not None:
            draws = inference.resampled(model, x, c, noise, n_imputations, generator)
        else:
            shares = inference.normalised(self._joint(model, x, n_draws), 1).cpu()
            labels = torch.multinomial(shares, n_imputations, True, generator=generator).T.numpy()
            draws = torch.cat(
                [
                    inference.resampled(
                        model, x, self._combinations(drawn, noise), noise, 1, generator
                    )
                    for drawn in labels
                ]
            )
        return [_completed(x.x, columns.decode(draw, noise.dtype)) for draw in draws]

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
        mean, std = self._posterior(X, values, N_DRAWS_LABELS)
        return PosteriorMoments(self._output(mean, X), self._output(std, X))

    def _elbo_of(self, X: Any, values: Any, n_draws: int) -> BoundTerms:
        model, x, c = self._encoded_with_likeliest(X, values, self._check_count(n_draws))
        reconstruction, kl = inference.elbo_terms(model, x, c, _noise(model, n_draws))
        reconstruction += self._fitted.columns.log_jacobian(x).to(reconstruction)
        parts = (reconstruction - kl, reconstruction, kl)
        return BoundTerms(*(self._output(part, X) for part in parts))

    def _marginal_kl_of(self, X: Any, values: Any, n_draws: int) -> float:
        loc, scale = self._posterior(X, values, N_DRAWS_LABELS)
        n_draws = self._check_count(n_draws)
        generator = torch.Generator("cpu").manual_seed(0)
        rows = torch.randint(len(loc), (n_draws,), generator=generator, device="cpu")
        noise = fixed_normals(n_draws, loc.shape[1]).to(loc)
        return inference.marginal_kl(loc, scale, noise, rows.to(loc.device))

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
        table = self._fitted.table
        if table is None:
            return self._output(x, like)
        rows = table.decode(to_numpy(x), beside or {}, is_mean=is_mean, completed=completed)
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
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            warnings.warn(
                f"{type(self).__name__} was fitted on {self.device_}, and there is no such device "
                "here: it is loaded on the CPU.",
                stacklevel=3,
            )
            device, self.device_ = torch.device("cpu"), "cpu"
        return device

    def _check_loaded(self) -> None:
        """What stands beside `_fitted` fits it."""
        columns, conditions = self._fitted.columns, self._fitted.conditions
        n_components = self._fitted.model.architecture.n_components
        beside = getattr(self, "_condition_at", [])
        is_in_columns = getattr(self, "_source", "") == "columns"
        shapes = {"kl_per_component_": (n_components,)}
        if hasattr(self, "condition_prior_"):
            shapes["condition_prior_"] = (len(conditions.log_prior),)
        if hasattr(self, "noise_variance_"):
            shapes["noise_variance_"] = (len(columns.families),)
        if (
            self.n_features_in_ != len(columns.families) + len(beside)
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


def _has_uncertain_bits(x: Rows, architecture: Architecture) -> bool:
    """Whether values between 0 and 1 are probabilities, of which bits are to be drawn."""
    columns = architecture.bits
    if not len(range(columns.start, columns.stop)):
        return False
    parts = (rows[:, columns] for rows in chunks(x))
    return any(bool(((bits > 0) & (bits < 1)).any()) for bits in parts)


def _completed(x: Tensor, other: Tensor) -> Tensor:
    """x, and the other's cells where those of x are missing."""
    return torch.where(x.isnan(), other.to(x), x)


def _is_of_fit(name: str) -> bool:
    """Whether an attribute of this name is one that fits leave behind."""
    private = ("_fitted", "_n_features_out", "_source", "_condition_at")
    return name in private or (name.endswith("_") and not name.startswith("_"))


def _with_all_columns(x: Rows, rows: Tensor, validation_rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows to train on and to validate by; columns that only the latter know give one of these."""
    is_known = torch.zeros(x.shape[1], dtype=torch.bool, device=x.device)
    for some in chunks(Chosen(x, rows.to(x.device))):
        is_known |= ~some.isnan().all(0)
        if is_known.all():
            return rows, validation_rows
    known = ~x.index_select(0, validation_rows.to(x.device))[:, ~is_known].isnan()
    # For every column the first row that knows it.
    return _moved(known.int().argmax(0).unique(), rows, validation_rows)


def _with_all_labels(c: Tensor, rows: Tensor, validation_rows: Tensor) -> tuple[Tensor, Tensor]:
    """The same of labels, in c (N, C): a network knows nothing of those it was not trained on."""
    is_there = c[validation_rows] != 0
    n_rows, n_validation = (c != 0).sum(0), is_there.sum(0)
    is_unknown = (n_rows == n_validation) & (n_rows > 0)
    if not is_unknown.any():
        return rows, validation_rows
    moved = is_there[:, is_unknown].int().argmax(0).unique()
    # Where nearly every row has a label of its own, half of them stay to validate by.
    return _moved(moved[: len(validation_rows) // 2], rows, validation_rows)


def _moved(moved: Tensor, rows: Tensor, validation_rows: Tensor) -> tuple[Tensor, Tensor]:
    """The validation rows at these places are rows to train on."""
    moved = moved.to(rows.device)
    is_kept = torch.ones_like(validation_rows, dtype=torch.bool)
    is_kept[moved] = False
    return torch.cat((rows, validation_rows[moved])).sort()[0], validation_rows[is_kept]


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


def _integer(random: np.random.RandomState) -> int:
    return int(random.randint(_N_SEEDS))


def fixed_normals(n_draws: int, n_components: int) -> Tensor:
    """(S, Z) standard normals, the same in every call: scrambled Sobol points.

    Owen, Randomly permuted (t,m,s)-nets, 1995. They fill the space more evenly than
    random ones, so that fewer serve.
    """
    return torch.from_numpy(_sobol_normals(n_draws, n_components).copy())


def _noise(model: VAE, n_draws: int) -> Tensor:
    """The same in the dtype and on the device of a model."""
    return fixed_normals(n_draws, model.architecture.n_components).to(model.encoder.linear.weight)


@lru_cache(maxsize=8)
def _sobol_normals(n_draws: int, n_components: int) -> np.ndarray:
    sobol = qmc.Sobol(n_components, scramble=True, rng=np.random.default_rng(0))
    points = sobol.random_base2(max(0, math.ceil(math.log2(n_draws))))[:n_draws]
    half = 2.0**-33  # points lie on a grid of 2^-32 that has 0
    return ndtri(points.clip(half, 1 - half))


def _device(device: str | torch.device, x: Rows) -> torch.device:
    device = str(device)
    if device == "auto":
        if x.device.type == "cuda":
            return x.device
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"device={device!r} is not a device that torch knows. Use 'auto', 'cpu', 'cuda' or "
            "'cuda:1'."
        ) from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device!r}, but torch sees {torch.cuda.device_count()} CUDA devices. Use "
            "device='auto' to take one where there is one."
        )
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device={device!r} is not supported. Use 'auto', 'cpu' or 'cuda'.")
    return torch.device("cuda:0") if str(found) == "cuda" else found


def _warn(message: str, category: type[Warning]) -> None:
    """Warn at the line of the user's that led here, past this package and scikit-learn's."""
    frame, level = sys._getframe(1), 2
    skipped = tuple(os.path.dirname(module.__file__ or "") for module in (sklearn, torch, joblib))
    skipped += (os.path.dirname(__file__), contextlib.__file__)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(skipped):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
