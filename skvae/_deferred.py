"""Deferred fits: those of a search are noted, trained together, and looked up.

A search runs its candidates twice. In the first pass every fit of a VAE puts a request into
the queue of its cache and gives up; then all that was asked for is trained at once; in the
second pass each fit finds its answer in the cache. What is not found is trained by itself,
as without one. A cache comes along when scikit-learn clones the estimator, and is given up
by the fit.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import joblib
from scipy.sparse import issparse

from skvae._fitting import Outcome
from skvae._preparing import Request
from skvae._sklearn import to_numpy

#: Hashes of a request's data and of its parameters.
Key = tuple[str, str]


class DeferredFit(Exception):
    """A fit is put off until all that a search asks for are trained together."""


class Deferrable:
    """An estimator whose fit a search can answer, from the cache that it is given."""

    _fit_cache: FitCache | TaskCaches

    def __sklearn_clone__(self) -> Any:
        """As scikit-learn clones, and with it the cache."""
        clone = super().__sklearn_clone__()  # type: ignore[misc]
        cache = self._fit_cache.for_clone() if "_fit_cache" in vars(self) else None
        if cache is not None:
            clone._fit_cache = cache
        return clone

    @property
    def _is_noted(self) -> bool:
        """Whether a fit would be put off now."""
        cache = vars(self).get("_fit_cache")
        return isinstance(cache, FitCache) and cache.is_open

    def _take_cache(self) -> FitCache | TaskCaches | None:
        """The cache, which is for one fit."""
        cache: FitCache | TaskCaches | None = vars(self).pop("_fit_cache", None)
        return cache


class FitQueue:
    """All requests of a search that wait for an answer; equal ones are there once."""

    def __init__(self) -> None:
        self.is_open = False
        self.requests: dict[Key, Request] = {}
        self._caches: dict[Key, list[FitCache]] = {}
        self._data: dict[str, Request] = {}  # the first with these data

    def add(self, key: Key, request: Request, cache: FitCache) -> None:
        first = self._data.setdefault(key[0], request)
        # Of equal data one copy is kept; where a condition was is told by the request itself.
        condition = first.condition
        if condition is not None and request.condition is not None:
            condition = condition._replace(source=request.condition.source)
        request = request._replace(X=first.X, condition=condition, data=key[0])
        self.requests.setdefault(key, request)
        self._caches.setdefault(key, []).append(cache)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """While open, fits that are not answered leave their requests."""
        self.is_open = True
        try:
            yield
        finally:
            self.is_open = False

    def deliver(self, outcomes: Iterable[Outcome]) -> None:
        """Give the outcomes, in the order of the requests, to the caches that wait for them."""
        for key, outcome in zip(self.requests, outcomes, strict=True):
            for cache in self._caches[key]:
                cache.answers[key] = outcome
        self.requests, self._caches, self._data = {}, {}, {}


class FitCache:
    """Answers to fits: of its own search, or else of one around that."""

    def __init__(self, queue: FitQueue | None = None, outer: FitCache | None = None) -> None:
        self.answers: dict[Key, Outcome] = {}
        self._queue = queue
        self._outer = outer

    @property
    def is_open(self) -> bool:
        """Whether a fit that is not answered leaves its request."""
        return self._queue is not None and self._queue.is_open

    def for_clone(self) -> FitCache:
        return self

    def lookup(self, request: Request) -> Outcome | None:
        """What came of an equal request; None where the fit has to train by itself."""
        if not self.is_open and not self._has_answers():
            return None
        try:
            key = _key(request)
        except Exception as error:  # parameters that cannot be pickled, a lambda for instance
            if self.is_open:
                raise DeferredFit("this fit is for the evaluation, and by itself") from error
            return None
        outcome = self._find(key)
        if outcome is None and self._queue is not None and self.is_open:
            self._queue.add(key, request, self)
            raise DeferredFit("this fit waits for others, to be trained with them")
        return None if outcome is None else self._for_one(outcome)

    def _for_one(self, outcome: Outcome) -> Outcome:
        """As one of the fits that share it tells of it."""
        if self.is_open:  # warnings are for the fit that is evaluated
            outcome = outcome._replace(warnings=())
        if outcome.error is not None:  # itself, it would gather the lines of all that raise it
            error = copy.copy(outcome.error).with_traceback(outcome.error.__traceback__)
            outcome = outcome._replace(error=error)
        return outcome

    def _has_answers(self) -> bool:
        return bool(self.answers) or (self._outer is not None and self._outer._has_answers())

    def _find(self, key: Key) -> Outcome | None:
        """The answer, which is its own from then on, and goes with it to another process."""
        if key not in self.answers and self._outer is not None:
            outcome = self._outer._find(key)
            if outcome is not None:
                self.answers[key] = outcome
        return self.answers.get(key)

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process there is nothing left to ask for."""
        return FitCache, (), {"answers": self.answers}


class TaskCaches:
    """In place of a cache the estimator that is searched has these, one for every task.

    So that a task which goes to another process takes its own answers there and no other's.
    """

    def __init__(self, queue: FitQueue, outer: FitCache | None = None) -> None:
        self._queue = queue
        self._outer = outer
        self._caches: dict[Hashable, FitCache] = {}
        self._tasks: Iterator[Hashable] | None = None

    def open(self, tasks: Iterable[Hashable]) -> None:
        """From now on the clones are for these tasks, one after the other, and then for none."""
        self._tasks = iter(tasks)

    def close(self) -> None:
        """From now on the clones are to be cloned again."""
        self._tasks = None

    def for_clone(self) -> FitCache | TaskCaches | None:
        if self._tasks is None:
            return self
        task = next(self._tasks, None)
        if task is None:
            return self._outer
        return self._caches.setdefault(task, FitCache(self._queue, self._outer))

    def lookup(self, request: Request) -> None:
        """What is to be cloned is not fitted."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Every task takes the search with it, and the answers of all others must stay."""
        return TaskCaches, (FitQueue(),)


def _key(request: Request) -> Key:
    """Equal for fits that would come out equal: of the data, and of the parameters."""
    estimator = request.estimator
    parameters = estimator.get_params(deep=False)
    del parameters["verbose"]
    parameters["device"] = str(parameters["device"])  # which it is in another process
    X = request.X
    rows = (X.shape, X.indptr, X.indices, X.data) if issparse(X) else to_numpy(X)
    values, kinds, source = request.condition or (None, None, "")
    data = (rows, values, kinds, request.schema)
    # Of equal values, one may have come as a keyword and the other as y: that is kept by the fit.
    return hashed(data), hashed((type(estimator), source, sorted(parameters.items())))


def hashed(value: Any) -> str:
    """By SHA-1, which takes processors half the time of joblib's MD5, or less."""
    found: str = joblib.hash(value, hash_name="sha1")
    return found
