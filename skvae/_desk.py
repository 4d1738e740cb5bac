"""Desks: where the fits of a search are noted, and answered once they are trained.

A search runs its candidates twice. In the first pass every fit of a VAE leaves a request
at its estimator's desk and gives up; then all that was asked for is trained at once; in
the second pass each fit finds its answer there. What is not found is trained by itself,
as without a desk. A desk comes along when scikit-learn clones the estimator, and is
given up by the fit.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import joblib
from scipy.sparse import issparse

from skvae._fitting import Outcome, Request
from skvae._sklearn import to_numpy


class Requested(Exception):
    """A fit is put off until all that a search asks for are trained together."""


class Collection:
    """All requests of a search that wait for an answer; equal ones are there once."""

    def __init__(self) -> None:
        self.is_open = False
        self.requests: dict[Hashable, Request] = {}
        self._desks: dict[Hashable, list[Desk]] = {}
        self._data: dict[Hashable, Request] = {}

    def add(self, key: Hashable, request: Request, desk: Desk) -> None:
        first = self._data.setdefault(key[0], request)
        # Of equal data one copy is kept.
        request = request._replace(
            X=first.X, values=first.values, kinds=first.kinds, like=first.like, data=key[0]
        )
        self.requests.setdefault(key, request)
        self._desks.setdefault(key, []).append(desk)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """While open, fits that are not answered leave their requests."""
        self.is_open = True
        try:
            yield
        finally:
            self.is_open = False

    def deliver(self, outcomes: Iterable[Outcome]) -> None:
        """Give the outcomes, in the order of the requests, to the desks that wait for them."""
        for key, outcome in zip(self.requests, outcomes, strict=True):
            for desk in self._desks[key]:
                desk.answers[key] = outcome
        self.requests, self._desks, self._data = {}, {}, {}


class Desk:
    """What a fit is answered from."""

    def __init__(self, collection: Collection | None) -> None:
        self.answers: dict[Hashable, Outcome] = {}
        self._collection = collection

    def of_clone(self) -> Desk:
        return self

    def answer(self, request: Request) -> Outcome | None:
        """What came of an equal request; None where the fit has to train by itself."""
        is_open = self._collection is not None and self._collection.is_open
        if not self.answers and not is_open:
            return None
        try:
            key = _key(request)
        except Exception:  # parameters that cannot be pickled, a lambda for instance
            return None
        if key in self.answers:
            return self.answers[key]
        if not is_open:
            return None
        self._collection.add(key, request, self)
        raise Requested("this fit waits for others, to be trained with them")

    def __getstate__(self) -> dict[str, Any]:
        """In another process there is nothing left to ask for."""
        return {"answers": self.answers, "_collection": None}


class Dispenser:
    """The desk of the estimator that is searched: its clones have a desk for every task.

    So that a task which goes to another process takes its own answers there and no other's.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._desks: dict[Hashable, Desk] = {}
        self._tasks: Iterator[Hashable] | None = None

    def open(self, tasks: Iterable[Hashable]) -> None:
        """From now on the clones are for these tasks, one after the other."""
        self._tasks = iter(tasks)

    def close(self) -> None:
        self._tasks = None

    def of_clone(self) -> Desk | Dispenser:
        if self._tasks is None:
            return self
        task = next(self._tasks, None)
        return self._desks.setdefault(task, Desk(self._collection))

    def answer(self, request: Request) -> None:
        """A fit that is no task, as that of the best candidate on all rows."""


def _key(request: Request) -> tuple[str, str]:
    """Equal for fits that would come out equal: of the data, and of the parameters."""
    estimator = request.estimator
    parameters = estimator.get_params(deep=False)
    del parameters["verbose"]
    X = request.X
    rows = (X.shape, X.indptr, X.indices, X.data) if issparse(X) else to_numpy(X)
    data = (rows, request.values, request.kinds, request.table)
    return joblib.hash(data), joblib.hash((type(estimator), sorted(parameters.items())))
