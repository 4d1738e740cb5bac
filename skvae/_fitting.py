"""Fits: what estimators ask to have trained, and the training of any number of them at once.

A lone fit is a list of one. Axes: ``N`` rows of X, ``D`` columns, ``C`` condition columns.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from skvae._inference import without_autocast
from skvae._memory import SHARE_OF_MEMORY, free_bytes
from skvae._packs import evenly, n_parameters, packs
from skvae._preparing import Job, Request, prepare
from skvae._run import Run
from skvae._threads import ONE_THREAD_OPERATIONS, one_thread, side_by_side
from skvae._training import Trained, Training, Watch

if TYPE_CHECKING:
    from skvae._base import BaseVAE

# Without a GPU a batch of more models is no quicker: their activations leave the cache. Where it
# holds fewer, threads wait for each other at the interpreter's lock more often.
_MAX_MODELS_CPU = 64


class Outcome(NamedTuple):
    """What came of a request."""

    estimator: BaseVAE  # fitted, if there is no error
    warnings: Sequence[str] = ()
    error: Exception | None = None
    interrupt: KeyboardInterrupt | None = None


Report = Callable[[Sequence[Job], Training], None]
_T = TypeVar("_T")


# A caller's no_grad or inference_mode must not reach the training, and no autocast; a new thread
# knows of none of them.
@torch.inference_mode(mode=False)
@torch.enable_grad()
@without_autocast()
def fit_together(
    requests: Sequence[Request],
    *,
    max_bytes: float | None = None,
    n_callers: int = 1,
    report: Report | None = None,
    done: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """Fit the estimators of all requests, each as it would be fitted alone.

    ``max_bytes`` is what the models of a batch may take; of what is free, as many callers
    share a part.
    ``report`` is called with the jobs of a batch and their training, before its first round
    and after every one; ``done`` with the number of fits that a batch has done.
    An interrupted lone fit has an outcome; several are given up.
    """
    jobs: list[Job] = []
    outcomes: dict[int, Outcome] = {}
    encoded: dict[Hashable, Any] = {}
    for request in requests:
        try:
            jobs.append(prepare(request, encoded))
        except Exception as error:
            outcomes[id(request)] = Outcome(request.estimator, error=error)
    if done is not None:
        done(len(outcomes))
    encoded.clear()  # from here on the jobs alone have it
    batches = _packed(jobs, max_bytes, SHARE_OF_MEMORY / n_callers)
    how = _How(report, is_lone=len(jobs) == 1, is_side_by_side=len(batches) > 1)
    # The batches of a GPU have all of it, one after the other: no two threads may record graphs.
    is_on_cpu = all(job.x.device.type == "cpu" for job in jobs)
    n_threads = torch.get_num_threads() if is_on_cpu else 1
    tasks = [partial(_fit_pack, batch, how) for batch in batches]
    for batch in side_by_side(tasks, n_threads, how.stop):
        outcomes.update((id(job.request), outcome) for job, outcome in batch)
        if done is not None:
            done(len(batch))
    return [outcomes[id(request)] for request in requests]


def _packed(jobs: Sequence[Job], max_bytes: float | None, share: float) -> list[list[Job]]:
    places: dict[Hashable, list[Job]] = {}
    for job in jobs:
        # Rows that are there as a whole can be joined.
        apart = None if isinstance(job.x, Tensor) else (id(job.x), id(job.c))
        place = (job.x.device, job.x.shape[1], job.c.shape[1], apart)
        places.setdefault(place, []).append(job)
    found = []
    for members in (some for neighbours in places.values() for some in _joined(neighbours)):
        device = members[0].x.device
        limit = free_bytes(device) * share if max_bytes is None else max_bytes
        counts = [len(job.seeds) for job in members]
        max_models = math.inf
        if device.type == "cpu":
            # A batch for every thread, or as many for each of them, all of about one size.
            a_thread = math.ceil(sum(counts) / torch.get_num_threads())
            max_models = evenly(a_thread, max(counts), _MAX_MODELS_CPU)
        runs = [job.run for job in members]
        found += [[members[i] for i in pack] for pack in packs(runs, counts, limit, max_models)]
    return found


@dataclass(frozen=True)
class _How:
    """What all batches of a call have in common."""

    report: Report | None
    is_lone: bool  # one fit, which has an outcome where it is interrupted
    is_side_by_side: bool  # with others, each of which is to keep to a thread
    stop: threading.Event = field(default_factory=threading.Event)


def _fit_pack(jobs: list[Job], how: _How) -> list[tuple[Job, Outcome]]:
    """Train them in one batch; in two, if that goes wrong: the device may hold half of it."""
    trained = None
    try:
        trained = _train(jobs, how)
    except Exception as error:
        if len(jobs) == 1:
            return [(jobs[0], Outcome(jobs[0].request.estimator, error=error))]
    if trained is None:  # only here nothing holds the frames of the error, and their tensors
        half = len(jobs) // 2
        return [done for part in (jobs[:half], jobs[half:]) for done in _fit_pack(part, how)]
    results, interrupt = trained
    outcomes = []
    for job, of_job in zip(jobs, results, strict=True):
        estimator = job.request.estimator
        with _threads_for([job.run], how):
            try:
                messages = estimator._conclude(job, of_job, interrupt)
            except KeyboardInterrupt as caught:
                if not how.is_lone:
                    raise
                interrupt = caught  # the training is done, and is not to be lost
                messages = estimator._conclude(job, of_job, interrupt)
        outcomes.append((job, Outcome(estimator, messages, interrupt=interrupt)))
    return outcomes


def _train(jobs: Sequence[Job], how: _How) -> tuple[list[list[Trained]], KeyboardInterrupt | None]:
    """The results of every job's runs, also where the user has had enough of a lone fit."""
    assert jobs[0].pool is not None
    interrupt = None
    with _threads_for([job.run for job in jobs for _ in job.seeds], how):
        runs = [_moved(run, job.first) for job in jobs for run in job.runs()]
        training = Training(runs, *jobs[0].pool)
        try:
            _go_through(training, jobs, how)
            if not training.is_stopped:
                training = OnAllRows(training, jobs)
                _go_through(training, training.jobs, how)
        except KeyboardInterrupt as caught:
            if not how.is_lone:
                raise
            interrupt = caught
        results = _by_job(jobs, training.results())
    return results, interrupt


class OnAllRows(Training):
    """Where early stopping ended the training, its best goes on for some rounds with all rows.

    Rows that were held out to know when to stop are as good to learn from as any; but where
    the next fit is to go on from this one they stay apart, as it has to know when to stop too.
    Results are those of the training before, with the weights that this one leads to.
    """

    is_on_all_rows = True

    def __init__(self, before: Training, jobs: Sequence[Job]) -> None:
        self._before = before.results()
        self.n_rounds_before = max(len(result.training_bounds) for result in self._before)
        self.jobs: list[Job] = []  # those that go on
        self._places: list[int] = []  # of their runs among the results
        runs = []
        places = _by_job(jobs, range(len(self._before)))
        for job, own in zip(jobs, places, strict=True):
            results = [self._before[i] for i in own]
            best = job.starts.best(results)
            place = next(i for i in own if self._before[i] is best)
            run = None if job.request.estimator.warm_start else before.watches[place].final_run()
            # Callbacks are told of the rounds of all starts, and expect max_iter at most.
            n_left = job.run.max_iter - max(len(result.training_bounds) for result in results)
            if run is not None and n_left:
                runs.append(replace(run, max_iter=min(run.max_iter, n_left)))
                self._places.append(place)
                self.jobs.append(job)
        assert jobs[0].pool is not None
        super().__init__(runs, *jobs[0].pool)

    def results(self) -> list[Trained]:
        results = list(self._before)
        for place, last in zip(self._places, super().results(), strict=True):
            results[place] = results[place]._replace(model=last.model, optimizer=last.optimizer)
        return results


def _go_through(training: Training, jobs: Sequence[Job], how: _How) -> None:
    """Train to the end and report, unless there is nothing to train."""
    if how.report is not None and jobs:
        how.report(jobs, training)
    for watches in training.rounds():
        if how.stop.is_set():
            raise KeyboardInterrupt
        if not training.is_on_all_rows:
            _give_up(jobs, watches)
        if how.report is not None:
            how.report(jobs, training)


def _give_up(jobs: Sequence[Job], watches: Sequence[Watch]) -> None:
    """End the runs that cannot be chosen any more: most of those from factor analysis, soon."""
    for job, own in zip(jobs, _by_job(jobs, watches), strict=True):
        if job.previous is None and job.starts.is_settled(own, job.run.model.architecture):
            for watch in own[job.starts.n_init :]:
                watch.is_finished = True


def _by_job(jobs: Sequence[Job], of_runs: Iterable[_T]) -> list[list[_T]]:
    """What there is of every run, together for each job."""
    each = iter(of_runs)
    return [list(islice(each, len(job.seeds))) for job in jobs]


def _joined(jobs: list[Job]) -> list[list[Job]]:
    """All jobs, by one pool; or where there is no room for that, those that share their rows."""
    try:
        _join(jobs)
        return [jobs]
    except torch.OutOfMemoryError:
        shared: dict[Hashable, list[Job]] = {}
        for job in jobs:
            shared.setdefault((id(job.x), id(job.c)), []).append(job)
    for some in shared.values():
        _join(some)
    return list(shared.values())


def _join(jobs: Sequence[Job]) -> None:
    """All their rows in one pool, of which each job then has its part; equal ones are once there.

    Once for all batches: what each of them copied, as many as there are threads would hold.
    """
    firsts: dict[tuple[int, int], int] = {}
    parts: list[tuple[Any, Tensor]] = []
    n_rows = 0
    for job in jobs:
        own = (id(job.x), id(job.c))
        if own not in firsts:
            firsts[own] = n_rows
            parts.append((job.x, job.c))
            n_rows += len(job.x)
        job.first = firsts[own]
    x, c = (part[0] if len(part) == 1 else torch.cat(part) for part in zip(*parts, strict=True))
    for job in jobs:
        if len(parts) > 1:
            part = slice(job.first, job.first + len(job.x))
            job.x, job.c = x[part], c[part]
        job.pool = x, c


def _moved(run: Run, first: int) -> Run:
    """The run with its rows counted from the first one of the pool, where its own begin here."""
    if not first:
        return run
    return replace(run, rows=run.rows + first, validation_rows=run.validation_rows + first)


def _threads_for(runs: Sequence[Run], how: _How) -> contextlib.AbstractContextManager[None]:
    """One thread for small models and beside others, as many as there are for large ones."""
    operations = sum(
        run.batch_size * run.n_importance_samples * n_parameters(run.model.architecture)
        for run in runs
    )
    if how.is_side_by_side or operations <= ONE_THREAD_OPERATIONS:
        return one_thread()
    return contextlib.nullcontext()
