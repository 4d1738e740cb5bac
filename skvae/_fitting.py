"""Fits: what estimators ask to have trained, and the training of any number of them at once.

A lone fit is a list of one. Axes: ``N`` rows of X, ``D`` columns, ``C`` condition columns.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from skvae._columns import Columns
from skvae._conditions import Conditions
from skvae._fitted import Fitted
from skvae._packs import packs
from skvae._run import Run
from skvae._training import Trained, Training, Watch

# Multiply-adds of a training step, of all models together, up to which one thread is quicker
# than several: the work of each would be over before they have met.
_ONE_THREAD_OPERATIONS = 2e7

# Of the memory that is free, what the trainings of a search may take.
_SHARE_OF_MEMORY = 0.5

# Without a GPU a batch of more models is no quicker: their activations leave the cache.
_MAX_MODELS_CPU = 32


class Request(NamedTuple):
    """A fit that an estimator asks for: its parameters, and validated data."""

    estimator: Any
    X: Any  # (N, D)
    values: Any  # columns of the condition, or None
    kinds: Any  # of these columns
    like: Any  # an array of the namespace that the fitted attributes belong to
    is_partial: bool = False
    table: Any = None  # how X was read, or None
    data: Hashable = None  # requests of equal data have equal values here, or None


@dataclass
class Job:
    """A request prepared: all that its training takes, but for where it starts."""

    request: Request
    x: Tensor  # (N, D'), on the device of the fit
    c: Tensor  # (N, C)
    columns: Columns
    conditions: Conditions
    rows: Tensor  # to train on
    validation_rows: Tensor
    run: Run  # without weights, and without a seed
    seeds: list[tuple[int, int]]  # of each run: of its start, and of its training
    dtype: str  # of X
    design: dict[str, Any]
    previous: Fitted | None


class Outcome(NamedTuple):
    """What came of a request."""

    estimator: Any  # fitted, if there is no error
    warnings: Sequence[str] = ()
    error: Exception | None = None
    interrupt: KeyboardInterrupt | None = None


Report = Callable[[Sequence[Job], Sequence[Watch]], None]


# A caller's no_grad or inference_mode must not reach the training.
@torch.inference_mode(mode=False)
@torch.enable_grad()
def fit_together(
    requests: Sequence[Request],
    *,
    max_bytes: float | None = None,
    report: Report | None = None,
) -> list[Outcome]:
    """Fit the estimators of all requests, each as it would be fitted alone.

    ``report`` is called with the jobs of a batch and the watches of their runs, before
    its first round and after every one. An interrupted lone fit has an outcome; several
    are given up.
    """
    jobs: list[Job] = []
    outcomes: dict[int, Outcome] = {}
    tables: dict[Hashable, Any] = {}
    for request in requests:
        try:
            jobs.append(request.estimator._prepare(request, tables))
        except Exception as error:
            outcomes[id(request)] = Outcome(request.estimator, error=error)
    for pack in _packed(jobs, max_bytes):
        for job, outcome in _fit_pack(pack, report):
            outcomes[id(job.request)] = outcome
    return [outcomes[id(request)] for request in requests]


def _packed(jobs: Sequence[Job], max_bytes: float | None) -> Iterator[list[Job]]:
    places: dict[tuple[torch.device, int], list[Job]] = {}
    for job in jobs:
        places.setdefault((job.x.device, job.c.shape[1]), []).append(job)
    for (device, _), members in places.items():
        limit = _free_bytes(device) * _SHARE_OF_MEMORY if max_bytes is None else max_bytes
        max_models = _MAX_MODELS_CPU if device.type == "cpu" else math.inf
        for pack in packs(
            [job.run for job in members], [len(job.seeds) for job in members], limit, max_models
        ):
            yield [members[i] for i in pack]


def _fit_pack(jobs: list[Job], report: Report | None) -> Iterator[tuple[Job, Outcome]]:
    """Train them in one batch; in two, if that goes wrong: the device may hold half of it."""
    try:
        results, interrupt = _train(jobs, report)
    except Exception as error:
        if len(jobs) == 1:
            yield jobs[0], Outcome(jobs[0].request.estimator, error=error)
        else:
            error.__traceback__ = None  # its frames hold the tensors of the batch
            half = len(jobs) // 2
            for part in (jobs[:half], jobs[half:]):
                yield from _fit_pack(part, report)
        return
    for job, trained in zip(jobs, results, strict=True):
        estimator = job.request.estimator
        with threads([job.run]):
            messages = estimator._conclude(job, trained, interrupt)
        yield job, Outcome(estimator, messages, interrupt=interrupt)


def _train(
    jobs: Sequence[Job], report: Report | None
) -> tuple[list[list[Trained]], KeyboardInterrupt | None]:
    """The results of every job's runs, also where the user has had enough of a lone fit."""
    tables, firsts = _joined(jobs)
    runs = [
        _moved(run, first)
        for job, first in zip(jobs, firsts, strict=True)
        for run in job.request.estimator._runs(job)
    ]
    interrupt = None
    with threads(runs):
        training = Training(runs, *tables)
        try:
            if report is not None:
                report(jobs, training.watches)
            for watches in training.rounds():
                _give_up(jobs, watches)
                if report is not None:
                    report(jobs, watches)
        except KeyboardInterrupt as caught:
            if len(jobs) > 1:
                raise
            interrupt = caught
        results = iter(training.results())
    return [[next(results) for _ in job.seeds] for job in jobs], interrupt


def _give_up(jobs: Sequence[Job], watches: Sequence[Watch]) -> None:
    """End the runs that cannot be chosen any more: most of those from factor analysis, soon."""
    first = 0
    for job in jobs:
        own = watches[first : first + len(job.seeds)]
        first += len(job.seeds)
        if job.previous is None and job.request.estimator._is_settled(own):
            for watch in own[job.request.estimator.n_init :]:
                watch.is_finished = True


def _joined(jobs: Sequence[Job]) -> tuple[tuple[Tensor, Tensor], list[int]]:
    """All their rows in one table, and where each job's begin; equal tables are there once."""
    firsts: dict[tuple[int, int], int] = {}
    parts, n_rows = [], 0
    for job in jobs:
        table = (id(job.x), id(job.c))
        if table not in firsts:
            firsts[table] = n_rows
            parts.append((job.x, job.c))
            n_rows += len(job.x)
    x, c = (part[0] if len(part) == 1 else torch.cat(part) for part in zip(*parts, strict=True))
    return (x, c), [firsts[id(job.x), id(job.c)] for job in jobs]


def _moved(run: Run, first: int) -> Run:
    """The run where its table begins at this row."""
    if not first:
        return run
    return replace(run, rows=run.rows + first, validation_rows=run.validation_rows + first)


def _free_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return _free_host_bytes()


def _free_host_bytes() -> float:
    """What the machine has left, and no more than half of all where it does not say."""
    with contextlib.suppress(OSError, ValueError, StopIteration), open("/proc/meminfo") as lines:
        line = next(line for line in lines if line.startswith("MemAvailable"))
        return 1024.0 * float(line.split()[1])
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 2.0**30


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextlib.contextmanager
def threads(runs: Sequence[Run]) -> Iterator[None]:
    """One thread for small models, as many as there are for others; then as before."""
    operations = sum(
        run.batch_size * run.n_importance_samples * sum(p.numel() for p in run.model.parameters())
        for run in runs
    )
    if operations > _ONE_THREAD_OPERATIONS:
        yield
    else:
        with _controller().limit(limits=1):
            yield
