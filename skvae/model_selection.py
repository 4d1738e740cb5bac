"""Searches over parameters that train all candidates and folds at once.

They are scikit-learn's own classes: it splits, scores, ranks and refits. Only the
training of VAEs, wherever they stand in the estimator, is taken out of the single fits
and done for all of them together.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from numbers import Real
from typing import Any, ClassVar, Self, TypeVar
from weakref import WeakKeyDictionary

import joblib
import numpy as np
import torch
from sklearn import model_selection
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid, ParameterSampler
from sklearn.pipeline import Pipeline
from sklearn.utils import indexable
from sklearn.utils.parallel import Parallel, delayed

from skvae._deferred import Deferrable, FitCache, FitQueue, TaskCaches, hashed
from skvae._docs import LinksToDocs
from skvae._fitting import Outcome, fit_together
from skvae._preparing import Job, Request
from skvae._sklearn import BaseSearchCV, Interval, checked_cv, fit_and_score
from skvae._training import Training

__all__ = ["GridSearchCV", "RandomizedSearchCV"]

_T = TypeVar("_T")

_ABOUT = """
    Give it the arguments of scikit-learn's class: all its attributes and methods are here,
    and the same seeds give the same results, up to the rounding of float32. The fit of a
    VAE, wherever it stands in the estimator and in the candidates, is taken out of the
    search and trained in a batch with the others; everything else is left to scikit-learn.
    Where clones of a VAE are fitted, as by ensembles, only the first of them joins the
    batch, and the others are trained one by one.

    Fits that differ in ``n_components``, ``beta``, ``learning_rate_init``,
    ``learning_rate``, ``alpha``, ``random_state``, ``max_iter``, ``n_iter_no_change``,
    ``tol``, the widths of the hidden layers or their rows share a batch; those that differ
    in more are trained one batch after the other. Equal fits, of candidates that differ in
    what comes after the VAE, are trained once: with ``random_state=None`` too.
"""

_COMMON_PARAMETERS = """\
    scoring : str, callable, list, tuple or dict, default=None
        What to score candidates by; None is the estimator's own ``score``, which for a
        VAE is the held-out log-likelihood in nats a row.
    n_jobs : int, default=None
        Jobs of joblib, each of which trains its share of the fits and scores its share of
        the candidates. One job already trains on as many threads as torch has.
    refit : bool, str or callable, default=True
        Whether, and by which score, to fit the best candidate on all rows.
    cv : int, cross-validation generator or iterable, default=None
        How to split the rows; None is 5 folds.
    verbose : int, default=0
        From 1 on it tells of every batch: fits, models, device, epochs and seconds.
    pre_dispatch : int or str, default="2*n_jobs"
        Jobs that are dispatched ahead while candidates are scored.\
"""

_LAST_PARAMETERS = """\
    error_score : "raise" or number, default=np.nan
        The score of a candidate whose fit fails.
    return_train_score : bool, default=False
        Whether to score the training rows too.
    memory_limit : float, default=None
        Bytes that the models of one batch may take while they train, the data aside; None
        is half of what the device has free when the batch is formed. A batch that a GPU
        cannot hold is divided and tried again in any case. What is trained is held until
        the search is over, for every candidate and fold three times its weights.

    Attributes
    ----------
    cv_results_, best_estimator_, best_score_, best_params_, best_index_, ...
        As in scikit-learn. The times of ``cv_results_`` are without the common training.
    training_time_ : float
        Seconds that the common training took.
"""

_CONSTRAINTS: dict[str, list[Any]] = {
    "memory_limit": [None, Interval(Real, 0, None, closed="neither")],
}


class _TrainsTogether(LinksToDocs):
    """The fit of both searches: what `_Running` has from scikit-learn's, and that has from it."""

    _running: _Running

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Search: train, score and rank all candidates, and fit the best on all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,), default=None
            What the estimator is given as y, and scores are computed with.
        **params : dict of str to object
            For the ``fit`` of the estimator, the splitter and the scorers, as
            scikit-learn routes them; a ``condition`` is sliced for each fold.

        Returns
        -------
        self : object
            The search, with the results of all candidates.
        """
        with _Running(self, X, y) as self._running:
            return super().fit(X, y, **params)  # type: ignore[misc]

    def _get_routed_params_for_fit(self, params: Any) -> Any:
        self._running.params = super()._get_routed_params_for_fit(params)  # type: ignore[misc]
        return self._running.params

    def _format_results(self, candidate_params: Any, *args: Any, **kwargs: Any) -> Any:
        """With the candidates that were given: those that were evaluated are copies with caches."""
        return super()._format_results(  # type: ignore[misc]
            self._running.candidates, *args, **kwargs
        )


class GridSearchCV(_TrainsTogether, model_selection.GridSearchCV):
    __doc__ = f"""Search over a grid of parameters, all candidates and folds trained at once.
    {_ABOUT}
    Parameters
    ----------
    estimator : estimator
        A VAE, or a Pipeline or other composition that holds some.
    param_grid : dict or list of dicts
        Lists of values by the name of their parameter; every combination is a candidate.
{_COMMON_PARAMETERS}
{_LAST_PARAMETERS}
    See Also
    --------
    sklearn.model_selection.GridSearchCV : The search that makes one fit after the other.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skvae import VAETransformer
    >>> from skvae.model_selection import GridSearchCV
    >>> X, y = load_wine(return_X_y=True)
    >>> pipe = make_pipeline(VAETransformer(random_state=0), LogisticRegression())
    >>> search = GridSearchCV(pipe, {{"vaetransformer__n_components": [2, 4]}}, cv=3)
    >>> bool(search.fit(X, y).best_score_ > 0.9)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **model_selection.GridSearchCV._parameter_constraints,
        **_CONSTRAINTS,
    }

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: Any = "2*n_jobs",
        error_score: Any = np.nan,
        return_train_score: bool = False,
        memory_limit: float | None = None,
    ) -> None:
        super().__init__(
            estimator,
            param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.memory_limit = memory_limit

    def _run_search(self, evaluate_candidates: Any, *, callback_ctx: Any = None) -> None:
        self._running.run(ParameterGrid(self.param_grid), evaluate_candidates, callback_ctx)


class RandomizedSearchCV(_TrainsTogether, model_selection.RandomizedSearchCV):
    __doc__ = f"""Search over parameters that are drawn, all candidates and folds trained at once.
    {_ABOUT}
    Parameters
    ----------
    estimator : estimator
        A VAE, or a Pipeline or other composition that holds some.
    param_distributions : dict or list of dicts
        Lists, or distributions with ``rvs``, by the name of their parameter.
    n_iter : int, default=10
        Candidates to draw.
{_COMMON_PARAMETERS}
    random_state : int, RandomState instance or None, default=None
        Of the drawing of the candidates.
{_LAST_PARAMETERS}
    See Also
    --------
    sklearn.model_selection.RandomizedSearchCV : The search that makes one fit after the other.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import load_wine
    >>> from skvae import VAETransformer
    >>> from skvae.model_selection import RandomizedSearchCV
    >>> X = load_wine().data
    >>> vae = VAETransformer(n_components=2, random_state=0)
    >>> search = RandomizedSearchCV(
    ...     vae, {{"beta": loguniform(0.1, 2)}}, n_iter=3, cv=3, random_state=0
    ... )
    >>> search.fit(X).n_splits_
    3
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **model_selection.RandomizedSearchCV._parameter_constraints,
        **_CONSTRAINTS,
    }

    def __init__(
        self,
        estimator: Any,
        param_distributions: Any,
        *,
        n_iter: int = 10,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: Any = "2*n_jobs",
        random_state: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        memory_limit: float | None = None,
    ) -> None:
        super().__init__(
            estimator,
            param_distributions,
            n_iter=n_iter,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            random_state=random_state,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.memory_limit = memory_limit

    def _run_search(self, evaluate_candidates: Any, *, callback_ctx: Any = None) -> None:
        candidates = ParameterSampler(
            self.param_distributions, self.n_iter, random_state=self.random_state
        )
        self._running.run(candidates, evaluate_candidates, callback_ctx)


def _use_one_thread() -> None:
    """In a process that was forked off while searches train.

    Of OpenMP's threads none came along, and an operation of several would wait for them for good.
    """
    if _Running.n_running:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_one_thread)


class _Running:
    """One fit of a search: what it asks for collected, trained, and handed out.

    While it lasts, the search has a copy of its estimator, in which every VAE has a cache.
    """

    n_running: ClassVar[int] = 0

    params: Any  # of fit, as scikit-learn routes them
    candidates: list[dict[str, Any]]

    def __init__(self, search: Any, X: Any, y: Any) -> None:
        self._search, self._X, self._y = search, X, y
        self._given = search.estimator
        self._queue = FitQueue()
        self._attached: list[Deferrable] = []
        self._task_caches: list[TaskCaches] = []
        # One inside of another search that collects leaves its fits to that.
        caches = [vars(vae).get("_fit_cache") for vae in _vaes(search)]
        self._is_inner = any(isinstance(cache, FitCache) and cache.is_open for cache in caches)

    def __enter__(self) -> _Running:
        self._search.estimator = self._copied(self._given, TaskCaches)
        self._task_caches = [vars(vae)["_fit_cache"] for vae in self._attached]
        _Running.n_running += 1
        return self

    def __exit__(self, *exception: Any) -> None:
        _Running.n_running -= 1
        self._search.estimator = self._given
        for vae in self._attached:  # a scorer may keep them
            vars(vae).pop("_fit_cache", None)
        del self._search._running

    def __reduce__(self) -> tuple[Any, ...]:
        """Every task takes the search with it, and has no use for this."""
        return object, ()

    def _copied(self, value: _T, kind: Callable[[FitQueue, FitCache | None], Any]) -> _T:
        """A clone in which the VAEs have caches of this kind.

        Not those that are none of the clone's own, in what is frozen, nor those with
        callbacks, which are told of every epoch.
        """
        given = {id(vae) for vae in _vaes(value)}
        copied: _T = clone(value, safe=False)
        for vae in [] if self._is_inner else _vaes(copied):
            if id(vae) not in given and not hasattr(vae, "_skl_callbacks"):
                outer = vars(vae).get("_fit_cache")
                vae._fit_cache = kind(self._queue, outer if isinstance(outer, FitCache) else None)
                self._attached.append(vae)
        return copied

    def run(self, candidates: Any, evaluate_candidates: Any, callback_ctx: Any) -> None:
        """Evaluate these candidates: what scikit-learn calls ``_run_search`` for."""
        search, self.candidates = self._search, list(candidates)
        search.training_time_ = 0.0
        copies = [
            self._copied(params, FitCache) if _vaes(params) else params
            for params in self.candidates
        ]
        n_vaes = [0 if self._is_inner else self._count(params) for params in copies]
        # What comes after a VAE can ask for its own training once that one is trained.
        n_rounds = max(n_vaes, default=0)
        splits = _SameSplits(checked_cv(search))
        search_ctx = callback_ctx.subcontext(task_name="search", max_subtasks=n_rounds + 1)
        search_ctx.call_on_fit_task_begin(estimator=search)
        for n in range(n_rounds):
            self._collect([(i, copies[i]) for i, n_of in enumerate(n_vaes) if n_of > n], splits)
            self._train(search_ctx)
        evaluation_ctx = search_ctx.subcontext(
            task_name="evaluation",
            max_subtasks=len(copies) * search.n_splits_,
            sequential_subtasks=False,
        ).call_on_fit_task_begin(estimator=search)
        self._open([(i, n) for i in range(len(copies)) for n in range(search.n_splits_)])
        evaluate_candidates(copies, cv=splits, callback_ctx=evaluation_ctx)
        evaluation_ctx.call_on_fit_task_end(estimator=search)
        search_ctx.call_on_fit_task_end(estimator=search)

    def _count(self, params: Mapping[str, Any]) -> int:
        """Fits that are asked for in the estimator with these parameters, one after the other.

        None where they cannot be set. A search in there fits its VAEs once more, when it has
        found the best.
        """
        with suppress(Exception):  # scikit-learn will say what is wrong, when it fits
            estimator = clone(self._search.estimator)
            estimator.set_params(**clone(params, safe=False))
            # An imputer that is given a VAE has no other.
            n_vaes = sum(
                "_fit_cache" in vars(vae) and _vaes(vae) == [vae] for vae in _vaes(estimator)
            )
            return n_vaes and n_vaes + len(_found(estimator, BaseSearchCV))
        return 0

    def _collect(self, chosen: Sequence[tuple[int, Mapping[str, Any]]], splits: Any) -> None:
        """Let the chosen candidates ask, on every split, for the trainings that they need.

        Their fits get no further. What else is wrong with them will be said when they are
        evaluated.
        """
        X, y = indexable(self._X, self._y)
        estimator = clone(self._search.estimator)
        if isinstance(estimator, Pipeline) and estimator.memory is None:
            estimator.set_params(memory=_Once())
        with (
            self._queue.opened(),
            joblib.parallel_config(backend="sequential"),  # what is noted elsewhere is lost
        ):
            for i, candidate in chosen:
                for n, (train, test) in enumerate(splits.split(X, y, **self.params.splitter.split)):
                    self._open([(i, n)])
                    fit_and_score(
                        clone(estimator),
                        X,
                        y,
                        scorer=_no_score,
                        train=train,
                        test=test,
                        verbose=0,
                        parameters=candidate,
                        fit_params=self.params.estimator.fit,
                        score_params=None,
                    )
        for caches in self._task_caches:
            caches.close()

    def _open(self, tasks: Sequence[tuple[int, int]]) -> None:
        """The next clones of the estimator are for these candidates and splits."""
        for caches in self._task_caches:
            caches.open(tasks)

    def _train(self, search_ctx: Any) -> None:
        """All that was asked for, divided among the jobs of joblib."""
        search, begun = self._search, time.perf_counter()
        requests = list(self._queue.requests.values())
        context = search_ctx.subcontext(task_name="training", max_subtasks=len(requests))
        context.call_on_fit_task_begin(estimator=search)

        def done(n_fits: int) -> None:
            for _ in range(n_fits):
                fit_ctx = context.subcontext(task_name="fit")
                fit_ctx.call_on_fit_task_begin(estimator=search)
                fit_ctx.call_on_fit_task_end(estimator=search)

        n_units = min(joblib.effective_n_jobs(search.n_jobs), len(requests))
        common = (search.memory_limit, max(n_units, 1), search.verbose and type(search).__name__)
        if n_units < 2:
            outcomes = _fit_unit(requests, *common, done)
        else:
            # Like requests are neighbours here, so that every unit has its share of each.
            order = sorted(range(len(requests)), key=lambda i: _likeness(requests[i]))
            units = [order[first::n_units] for first in range(n_units)]
            # A copy, as a backend that is used again would close the pool of scikit-learn's
            # own Parallel, inside of which this is.
            backend = copy.copy(joblib.parallel.get_active_backend()[0])
            with joblib.parallel_config(backend=backend):
                found = Parallel(n_jobs=n_units)(
                    delayed(_fit_unit)([requests[i] for i in unit], *common) for unit in units
                )
            by_request: dict[int, Outcome] = {}
            for unit, part in zip(units, found, strict=True):
                by_request.update(zip(unit, part, strict=True))
            outcomes = [by_request[i] for i in range(len(requests))]
            done(len(requests))
        for outcome in outcomes:
            if outcome.interrupt is not None:
                raise outcome.interrupt
        self._queue.deliver(outcomes)
        context.call_on_fit_task_end(estimator=search)
        search.training_time_ += time.perf_counter() - begun


def _no_score(*args: Any) -> float:
    return 0.0


class _Once:
    """A Pipeline's memory, by which equal steps are fitted once on equal data."""

    location = "memory"  # a Pipeline clones the steps that it gives to a memory with a location

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def cache(self, function: Callable[..., Any], ignore: Sequence[str] = ()) -> Callable[..., Any]:
        def cached(*args: Any, **kwargs: Any) -> Any:
            if _vaes(args[:1]):  # they have caches of their own
                return function(*args, **kwargs)
            telling = {name: value for name, value in kwargs.items() if name not in ignore}
            try:
                key = hashed((args, telling))
            except Exception:  # what cannot be pickled, a lambda for instance
                return function(*args, **kwargs)
            if key not in self._known:
                self._known[key] = function(*args, **kwargs)
            # A copy: the next step may work in place.
            return copy.deepcopy(self._known[key])

        return cached

    def __sklearn_clone__(self) -> _Once:
        return self


class _SameSplits:
    """A splitter that splits once, and gives these splits again whenever it is asked."""

    def __init__(self, cv: Any) -> None:
        self._cv = cv
        self._splits: list[Any] = []

    def split(self, *args: Any, **params: Any) -> list[Any]:
        if not self._splits:
            self._splits = list(self._cv.split(*args, **params))
        return self._splits

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._cv, name)


def _vaes(value: Any) -> list[Deferrable]:
    """Those that an estimator's parameters lead to, or the parts of a list or mapping.

    And what has a VAE of its own making, an imputer.
    """
    return _found(value, Deferrable)


def _found(value: Any, kind: type[_T]) -> list[_T]:
    """What is of this kind there, the value itself included, and each but once."""
    seen: dict[int, Any] = {}
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        if isinstance(one, Mapping):
            waiting += one.values()
        elif isinstance(one, (list, tuple, set, frozenset)):
            waiting += one
        elif hasattr(one, "get_params") and not isinstance(one, type):
            waiting += one.get_params(deep=False).values()
    return [one for one in seen.values() if isinstance(one, kind)]


def _likeness(request: Request) -> tuple[str, ...]:
    """What sorts requests by how alike their trainings are."""
    params = request.estimator.get_params(deep=False)
    first = ("likelihood", "noise_variance", "activation", "hidden_layer_sizes", "batch_size")
    # As text, which sorts whatever it is that only the fit will refuse.
    return (*(str(params[name]) for name in first), str(params["n_components"]).zfill(9))


def _fit_unit(
    requests: Sequence[Request],
    memory_limit: float | None,
    n_units: int,
    name: str,
    done: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """What one job of joblib trains; ``name`` is who tells of it, if anyone."""
    return fit_together(
        requests,
        max_bytes=memory_limit,
        n_callers=n_units,
        report=_Teller(name) if name else None,
        done=done,
    )


class _Teller:
    """Tells of a batch when it starts and when it is done."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._begun: WeakKeyDictionary[Training, float] = WeakKeyDictionary()

    def __call__(self, jobs: Sequence[Job], training: Training) -> None:
        watches = training.watches
        if training not in self._begun:
            self._begun[training] = time.perf_counter()
            rows = ", validation rows included" if training.is_on_all_rows else ""
            print(
                f"[{self._name}] training {len(jobs)} fits{rows}, {len(watches)} models, at once "
                f"on {jobs[0].x.device}"
            )
        elif all(watch.is_finished for watch in watches):
            n_epochs = max(len(watch.training_bounds) for watch in watches)
            seconds = time.perf_counter() - self._begun[training]
            print(
                f"[{self._name}] ... {len(jobs)} fits ended after {n_epochs} epochs at most, "
                f"{seconds:.1f} s"
            )
