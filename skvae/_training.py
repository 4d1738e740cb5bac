"""Training: many runs climb their bounds together, each as if it were alone.

Axes: ``(S, K, B, D)`` = draws, models, rows, columns; ``Z`` components, ``C`` condition
columns, ``N`` rows of X, ``V`` rows for validation.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from skvae._adam import Adam, AdamState, at_rest
from skvae._bounds import ELBO, IMPORTANCE_WEIGHTED
from skvae._cuda_graph import capture
from skvae._gradient import Gradient
from skvae._memory import keep_freed_memory
from skvae._rows import Rows, Window
from skvae._run import Batch, Run, Stream, join_padded
from skvae._vae import VAE, from_state, pick, reorder_components, stack_states, widest

# Numbers in the widest tensor of a validation pass.
_MAX_CHUNK_NUMBERS = 2**22

# The learning rate of the adaptive schedule: the factor, and the part of the patience
# after which it applies.
_ADAPTIVE_FACTOR = 0.3
_ADAPTIVE_PATIENCE = 0.5

# Models that have finished go on computing for nothing until only this part is left. To pack anew
# takes a fraction of a round, and on a GPU, where idle models cost little, a capture too.
_REPACK_BELOW = {"cpu": 0.95, "cuda": 0.75}

# To record a step takes as long as some steps: fewer than these are launched one by one.
_LEAST_REPLAYS = 10


class Trained(NamedTuple):
    """What came of a run; bounds are in nats a row, in the units of the model's columns."""

    model: VAE  # lone, with the weights that were kept
    optimizer: AdamState  # as it was at those weights
    training_bounds: list[float]  # one for each round
    validation_bounds: list[float]  # likewise; empty without validation rows
    bound: float  # of the weights kept, by validation if there is one
    start_bound: float  # of the start, by validation; -inf without
    has_validation: bool
    is_finite: bool  # False: a NaN or an infinity cut the training short
    is_improving: bool  # at the last round

    def reorder(self, order: Tensor) -> Trained:
        """This result with the components in another order, Adam's moments included."""
        a = self.model.architecture
        moments = {
            name: reorder_components(self.optimizer[name], a, order) for name in ("first", "second")
        }
        return self._replace(
            model=from_state(a, reorder_components(self.model.state_dict(), a, order)),
            optimizer={**self.optimizer, **moments},
        )


class Training:
    """Runs being trained. ``rounds`` does the work, ``results`` may be asked at any time."""

    is_on_all_rows = False  # whether it goes on from another one, on the rows for validation too
    n_rounds_before = 0  # that one's

    def __init__(self, runs: Sequence[Run], x: Rows, c: Tensor) -> None:
        """``x`` (N, D) and ``c`` (N, C) are on the device of the runs' models."""
        self.watches = [Watch(run) for run in runs]
        self.is_stopped = False  # by who reads the watches
        self._x, self._c = x, c
        self._group: _Group | None = None

    def stop(self) -> None:
        """This round is the last."""
        self.is_stopped = True
        for watch in self.watches:
            watch.is_finished = True

    def rounds(self) -> Iterator[Sequence[Watch]]:
        """Train; after every round of a group, hand over what is known of all runs."""
        keep_freed_memory()
        groups: dict[Hashable, list[Watch]] = {}
        for watch in self.watches:
            groups.setdefault(watch.run.group, []).append(watch)
        for waiting in groups.values():
            while waiting:
                group = self._group = _Group(waiting, self._x, self._c)
                # Who reads the watches between two rounds may end some of them as well.
                least = _REPACK_BELOW[self._x.device.type] * len(waiting)
                while _n_running(waiting) > least:
                    group.round()
                    yield self.watches
                group.unload()
                del group  # its memory is for the next one
                self._group = None
                waiting = [watch for watch in waiting if not watch.is_finished]

    def results(self) -> list[Trained]:
        """What each run has come to so far."""
        if self._group is not None:
            self._group.unload()
        return [watch.trained() for watch in self.watches]


def _n_running(watches: Sequence[Watch]) -> int:
    return sum(not watch.is_finished for watch in watches)


def train(runs: Sequence[Run], x: Rows, c: Tensor) -> list[Trained]:
    """All runs to their end; ``x`` is (N, D), ``c`` (N, C)."""
    training = Training(runs, x, c)
    for _ in training.rounds():
        pass
    return training.results()


class Watch:
    """What the host knows of one run: its history, its pace, and when it ends."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.stream = Stream(run)
        self.validation_noise = self.stream.validation_noise()
        self.training_bounds: list[float] = []
        self.validation_bounds: list[float] = []
        self.bound = self.start_bound = -math.inf
        self.is_finite = True
        self.is_finished = False
        self.learning_rate = run.learning_rate
        self.block = self.stream.block()
        self.n_taken = 0  # steps of the block
        weights = run.model.state_dict()
        self.state: AdamState = {"weights": weights, **(run.optimizer or at_rest(weights))}
        self.best = self.state
        self._factor = 1.0
        self._reference = -math.inf  # what an improvement is measured from
        self._n_idle = 0  # rounds since the last one
        # Rounds until the weights that are kept, and the learning rate that led to them.
        self._kept_at = 0, run.learning_rate
        self._has_started = False
        self.has_validation = len(run.validation_rows) > 0

    def start(self, bound: float) -> None:
        """The validation bound before the first step: the start itself may be the best."""
        if not self._has_started and math.isfinite(bound):
            self.bound = self.start_bound = self._reference = bound
        self._has_started = True

    def update(self, during: float, after: float) -> bool:
        """Take note of a round; True when its weights are the ones to keep.

        ``during`` is the mean of the steps' bounds; ``after`` the bound of the weights
        they led to: on the validation rows, or else on some rows, to see that it is one.
        """
        if self.is_finished:
            return False
        if not (math.isfinite(during) and math.isfinite(after)):
            self.is_finite, self.is_finished = False, True
            return False
        self.training_bounds.append(during)
        if self.has_validation:
            self.validation_bounds.append(after)
        bound = after if self.has_validation else during
        keep = bound > self.bound if self.has_validation else True
        if keep:
            self.bound = bound
            self._kept_at = len(self.training_bounds), self.learning_rate
        if bound > self._reference + self.run.tol:
            self._reference, self._n_idle = bound, 0
        else:
            self._n_idle += 1
        self.is_finished = self._is_stuck or len(self.training_bounds) >= self.run.max_iter
        self.learning_rate = self._scheduled()
        return keep

    def _scheduled(self) -> float:
        if self.run.schedule == "adaptive":
            patience = math.ceil(_ADAPTIVE_PATIENCE * self.run.n_iter_no_change)
            if self._n_idle and self._n_idle % patience == 0:
                self._factor *= _ADAPTIVE_FACTOR
        elif self.run.schedule == "cosine":
            done = len(self.training_bounds) / self.run.max_iter
            self._factor = 0.5 * (1 + math.cos(math.pi * done))
        return self.run.learning_rate * self._factor

    @property
    def _is_stuck(self) -> bool:
        """Whether early stopping ends the training."""
        return self.has_validation and self._n_idle >= self.run.n_iter_no_change

    @property
    def n_rounds_left(self) -> int:
        """At most."""
        return self.run.max_iter - len(self.training_bounds)

    @property
    def is_improving(self) -> bool:
        """Whether the last rounds still gained more than their noise explains."""
        n = self.run.n_iter_no_change
        n_rounds = len(self.training_bounds)
        if self.has_validation:
            # Early stopping has no say in fewer rounds than its patience.
            return self._n_idle < max(1, min(n, n_rounds // 2))
        if n_rounds < 2 * n:
            return False
        last = torch.tensor(self.training_bounds[-2 * n :], dtype=torch.float64, device="cpu")
        before, after = last.view(2, n)
        noise = last.diff().std().item() / math.sqrt(n) if n > 1 else 0.0
        gain = (after.mean() - before.mean()).item()
        return bool(gain > max(n * self.run.tol, 2 * noise))

    def trained(self) -> Trained:
        return Trained(
            from_state(self.run.model.architecture, self.best["weights"]),
            {name: part for name, part in self.best.items() if name != "weights"},
            self.training_bounds,
            self.validation_bounds,
            self.bound,
            self.start_bound,
            self.has_validation,
            self.is_finite,
            self.is_improving,
        )

    def final_run(self) -> Run | None:
        """What goes on from the weights that are kept, with the rows for validation as well.

        At the rate that found them, and for as large a share of the rounds that this took as
        those rows are of the others: in many more rounds small tables would be learned by
        heart. None if it was not early stopping that ended the training, or if the start was
        never surpassed.

        The rows stay what weights are kept by, with the same noise. They are learned from now,
        so that the bound on them is no measure of anything, but it should not fall.
        """
        n_rounds, learning_rate = self._kept_at
        if not self._is_stuck or not n_rounds:
            return None
        run, best = self.run, self.trained()
        return replace(
            run,
            model=best.model,
            optimizer=best.optimizer,
            rows=torch.cat((run.rows, run.validation_rows)).sort()[0],
            learning_rate=learning_rate,
            schedule="constant",
            max_iter=math.ceil(n_rounds * len(run.validation_rows) / len(run.rows)),
        )


class _Group:
    """Runs stacked into one model of K, from one packing to the next."""

    def __init__(self, watches: Sequence[Watch], x: Rows, c: Tensor) -> None:
        runs = [watch.run for watch in watches]
        self._watches, self._runs, self._x, self._c = watches, runs, x, c
        self._widest = widest([run.model.architecture for run in runs])
        self._bound = ELBO if runs[0].n_importance_samples == 1 else IMPORTANCE_WEIGHTED
        self._model = VAE(self._widest, len(runs), x.device).to(x.dtype)
        alpha = c.new_tensor([run.alpha for run in runs])
        self._adam = Adam(self._model, alpha, runs[0].n_steps)
        self._load([watch.best for watch in watches])
        self._best = {name: t.clone() for name, t in self._adam.flat.items()}
        self._load([watch.state for watch in watches])

        self._beta = c.new_tensor([run.beta for run in runs])
        self._gradient = Gradient(self._model, self._bound, self._beta)
        self._learning_rate = c.new_tensor([watch.learning_rate for watch in watches])
        # Of the bounds of a round's steps, (K, B).
        self._total = self._beta.new_zeros(len(runs), runs[0].batch_size)
        # All runs of a group have taken the same number of steps of their blocks.
        self._n_taken = watches[0].n_taken
        self._step_of_block = torch.tensor([self._n_taken], device=x.device)
        self._block = Batch.join([watch.block for watch in watches])
        self._window = Window(x, self._block.rows)
        if self._n_taken == runs[0].n_block_steps:
            self._next_block()
        changing = [*self._adam.changing, self._total, self._step_of_block]
        n_rounds = max(watch.n_rounds_left for watch in watches)
        self._replay = None
        if n_rounds * runs[0].n_steps >= _LEAST_REPLAYS:
            self._replay = capture(self._step, changing, x.device)
        if watches[0].has_validation:
            self._prepare_validation()

    def round(self) -> None:
        """One pass over the rows, and what the watches make of it."""
        self._total.zero_()
        self._adam.plan(self._learning_rate)
        with torch.inference_mode():  # no autograd here, nor its bookkeeping
            for _ in range(self._runs[0].n_steps):
                if self._n_taken == self._runs[0].n_block_steps:
                    self._next_block()
                self._window.show(self._n_taken)
                (self._replay or self._step)()
                self._n_taken += 1
        after = self._validate() if self._watches[0].has_validation else self._probe()
        bounds = torch.stack((self._total.mean(1) / self._runs[0].n_steps, after))
        keep = [
            watch.update(*values)
            for watch, *values in zip(self._watches, *bounds.tolist(), strict=True)
        ]
        if any(keep):
            self._adam.keep(keep, self._best)
        self._learning_rate = self._c.new_tensor([watch.learning_rate for watch in self._watches])

    def _step(self) -> None:
        x, c, batch = self._batch(self._step_of_block)
        bound = self._gradient.fill(x, c, batch.noise, batch.encoder_masks, batch.decoder_masks)
        self._adam.step()
        self._total += bound
        self._step_of_block += 1

    def _batch(self, step: Tensor) -> tuple[Tensor, Tensor, Batch]:
        """x (K, B, D) and c (K, B, C) of one step of the block, and its noise."""
        batch = self._block.at(step)
        x = self._rows(self._window.table, self._window.places(step, batch.rows))
        c = self._rows(self._c, batch.rows)
        if self._runs[0].binarise:
            bits = x[..., self._widest.bits]
            bits.copy_(batch.uniforms < bits)
        return x, c, batch

    @torch.no_grad()
    def _probe(self) -> Tensor:
        """The bound on the last batch once more, after its step: is it still finite?"""
        x, c, batch = self._batch(self._step_of_block - 1)
        return self._bound.value(self._model.terms(x, c, batch.noise), self._beta).mean(1)

    def _rows(self, table: Rows, rows: Tensor) -> Tensor:
        """(N, D), (K, B) -> (K, B, D)."""
        if not table.shape[1]:
            return self._c.new_empty(*rows.shape, 0)
        return table.index_select(0, rows.flatten()).view(*rows.shape, table.shape[1])

    def _next_block(self) -> None:
        for watch in self._watches:
            watch.block = watch.stream.block()
        joined = Batch.join([watch.block for watch in self._watches])
        for target, part in zip(self._block.tensors(), joined.tensors(), strict=True):
            target.copy_(part)
        self._window.renew()
        self._step_of_block.zero_()
        self._n_taken = 0

    def _prepare_validation(self) -> None:
        runs, watches, x = self._runs, self._watches, self._x
        self._validation_rows = join_padded([run.validation_rows[None] for run in runs], 0)
        self._validation_noise = join_padded([watch.validation_noise for watch in watches], 1)
        counts = self._c.new_tensor([len(run.validation_rows) for run in runs])[:, None]
        position = torch.arange(self._validation_rows.shape[1], device=x.device)
        self._validation_weights = (position < counts) / counts  # (K, V), sums to one
        for watch, bound in zip(watches, self._validate().tolist(), strict=True):
            watch.start(bound)

    @torch.no_grad()
    def _validate(self) -> Tensor:
        """The bound on the validation rows, ``(K,)``, by the same noise every time."""
        n_draws, n_models = self._validation_noise.shape[:2]
        width = max(self._x.shape[1], *self._widest.hidden_layer_sizes, 1)
        size = max(1, _MAX_CHUNK_NUMBERS // (n_draws * n_models * width))
        total = torch.zeros_like(self._beta)
        for rows, noise, weights in zip(
            self._validation_rows.split(size, 1),
            self._validation_noise.split(size, 2),
            self._validation_weights.split(size, 1),
            strict=True,
        ):
            x, c = self._rows(self._x, rows), self._rows(self._c, rows)
            bound = self._bound.value(self._model.terms(x, c, noise), self._beta)
            total += (bound * weights).sum(1)
        return total

    def unload(self) -> None:
        """Give every watch its run's weights and moments, the kept ones and the latest."""
        best, latest = self._adam.state(self._best), self._adam.state(self._adam.flat)
        for k, watch in enumerate(self._watches):
            lone = watch.run.model.architecture
            watch.best = {name: pick(part, k, lone) for name, part in best.items()}
            watch.state = {name: pick(part, k, lone) for name, part in latest.items()}
            watch.n_taken = self._n_taken

    def _load(self, states: Sequence[AdamState]) -> None:
        self._adam.load(
            {
                name: stack_states([state[name] for state in states], self._widest)
                for name in self._adam.flat
            }
        )
