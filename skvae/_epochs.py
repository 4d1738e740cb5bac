"""Epochs of a lone fit: printed, and told to scikit-learn's callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skvae._preparing import Job
from skvae._training import Training


class Epochs:
    """What a fit reports to, round by round.

    ``context`` is scikit-learn's of the fit, X and y are what the user gave.
    """

    def __init__(self, estimator: Any, context: Any, X: Any, y: Any) -> None:
        self._estimator, self._context, self._data = estimator, context, {"X": X, "y": y}
        self._n_epochs = 0

    def __call__(self, jobs: Sequence[Job], training: Training) -> None:
        n_epochs = max(len(watch.training_bounds) for watch in training.watches)
        n_epochs += training.n_rounds_before
        if n_epochs == self._n_epochs:  # before the first, or another start went on alone
            return
        self._n_epochs = n_epochs
        if self._context is not None and self._is_enough(jobs[0], training):
            training.stop()
        if self._estimator.verbose:
            self._print(jobs[0], training)

    def _is_enough(self, job: Job, training: Training) -> bool:
        """Whether a callback that was told of the epoch wants no more of them."""
        task = self._context.subcontext(task_name="epoch")
        task.call_on_fit_task_begin(estimator=self._estimator, **self._data)
        stop = task.call_on_fit_task_end(
            estimator=self._estimator,
            reconstruction_attributes=lambda: self._estimator._attributes_by_now(job, training),
            **self._data,
        )
        return bool(stop)

    def _print(self, job: Job, training: Training) -> None:
        """A line every ten epochs, or with ``verbose`` of more than 1 more often."""
        name, verbose = type(self._estimator).__name__, self._estimator.verbose
        watches = training.watches
        every = max(1, 10 // int(verbose)) if verbose is not True else 10
        running = [watch for watch in watches if not watch.is_finished]
        if self._n_epochs % every and running:
            return
        line = f"[{name}] epoch {self._n_epochs}/{job.run.max_iter}"
        if training.is_on_all_rows:
            print(f"{line}: on all rows, those for validation included")
            return
        best = max(watches, key=lambda watch: watch.bound)
        if best.has_validation:
            kind, log_jacobian = "best validation", job.validation_log_jacobian
        else:
            kind, log_jacobian = "training", job.training_log_jacobian
        bound = best.bound + log_jacobian
        print(
            f"{line}: {kind} bound {bound:.3f} nats, "
            f"{len(running)} of {len(watches)} starts running"
        )
