"""From a request to a job: parameters and validated rows to all that a training takes.

Axes: ``N`` rows of X, ``D`` columns, ``C`` condition columns.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor

from skvae._answers import Answers
from skvae._checks import check_counts, check_ranges, check_support, check_totals
from skvae._codec import ColumnCodec, Ranges
from skvae._conditions import Condition, ConditionCodec
from skvae._fitted import Design, Fitted, moved
from skvae._likelihoods import LIKELIHOODS
from skvae._memory import SHARE_OF_MEMORY, free_bytes
from skvae._messages import changed_error, warn_user
from skvae._rows import Chosen, Rows, SparseRows, chunks
from skvae._run import Run
from skvae._schema import Schema
from skvae._sklearn import is_mapped, to_rows
from skvae._starts import Starts
from skvae._vae import VAE, Architecture, from_state

if TYPE_CHECKING:
    from skvae._base import BaseVAE

# Seeds are below.
_N_SEEDS = int(np.iinfo(np.int32).max)

# Below this there is too little to spare for validation.
_MIN_ROWS_TO_SPLIT = 20

# Of batch_size="auto": the smallest power of two with no more steps an epoch than this, and so with
# more than half of them. With few steps an epoch leads so little further that early stopping, which
# counts epochs, ends the training before it is done; with few rows gradients are mostly noise.
_MAX_STEPS_AN_EPOCH = 32
_MIN_BATCH_SIZE, _MAX_BATCH_SIZE = 16, 128


class Request(NamedTuple):
    """A fit that an estimator asks for: its parameters, and validated data."""

    estimator: BaseVAE
    X: Any  # (N, D)
    condition: Condition | None = None
    is_partial: bool = False
    schema: Schema | None = None  # that X was read by
    data: Hashable = None  # requests of equal data have equal values here, or None


@dataclass
class Job:
    """A request prepared: all that its training takes, but for where it starts."""

    request: Request
    x: Rows  # (N, D'), on the device of the fit
    c: Tensor  # (N, C)
    codec: ColumnCodec
    conditions: ConditionCodec
    rows: Tensor  # to train on
    validation_rows: Tensor
    run: Run  # without weights, and without a seed
    starts: Starts
    seeds: list[tuple[int, int]]  # of each run: of its start, and of its training
    dtype: str  # of X
    design: Design
    previous: Fitted | None
    pool: tuple[Rows, Tensor] | None = None  # x and c of all jobs that it is joined with
    first: int = 0  # where its own begin there

    # What turns a mean of the model's densities into one of X's. It may go over all rows, and
    # callbacks and lines of progress ask for it again and again.

    @cached_property
    def training_log_jacobian(self) -> float:
        return self.codec.mean_log_jacobian(Chosen(self.x, self.rows))

    @cached_property
    def validation_log_jacobian(self) -> float:
        return self.codec.mean_log_jacobian(Chosen(self.x, self.validation_rows))

    @property
    def methods(self) -> tuple[str, ...]:
        """How its models start; () where one goes on."""
        return () if self.previous else self.starts.methods(self.run.model.architecture)

    def runs(self) -> Iterator[Run]:
        """One for each start, or one that goes on."""
        architecture = self.run.model.architecture
        run, previous = self.run, self.previous
        if previous is None:
            x, c = Chosen(self.x, self.rows), self.c[self.rows]
            seeds = [start for start, _ in self.seeds]
            models = self.starts.models(architecture, x, c, seeds)
        else:
            # A model that was loaded may live on another device than this fit.
            device = self.x.device
            run = replace(run, optimizer=moved(previous.optimizer, device))
            weights = moved({"weights": previous.model.state_dict()}, device)["weights"]
            models = iter([from_state(architecture, weights)])
        for model, (_, seed) in zip(models, self.seeds, strict=True):
            yield replace(run, model=model, seed=seed)


def prepare(request: Request, encoded: dict[Hashable, Any]) -> Job:
    """Check, split and encode; ``encoded`` keeps what requests of equal data share."""
    estimator, x, schema = request.estimator, to_rows(request.X), request.schema
    # Without a schema X is numbers, all of one likelihood.
    families = [str(estimator.likelihood)] * x.shape[1] if schema is None else schema.families
    check_support(x, families, estimator._place)
    random = check_random_state(estimator.random_state)
    design = _design(estimator, families)
    previous = _previous(request, design)
    device = _device(estimator.device, x)
    key = (request.data, tuple(families), estimator.exposure, device)
    if request.data is not None and previous is None and key in encoded:
        codec, conditions, rows_of_model, c = encoded[key]
    else:
        codec, conditions, rows_of_model, c = _encoded(request, x, families, device, previous)
        encoded[key] = codec, conditions, rows_of_model, c
    rows, validation_rows = _split(request, rows_of_model, random)
    if len(validation_rows) and rows_of_model.shape[1] > codec.width:  # there are holes
        rows, validation_rows = _with_all_columns(x, rows, validation_rows)
    if len(validation_rows) and c.shape[1]:
        rows, validation_rows = _with_all_labels(c, rows, validation_rows)
    architecture = _architecture(design, codec, rows_of_model, c, previous)
    starts = Starts(estimator.init, estimator.n_init)
    # What goes on has other noise than before: met again and again it would be learned.
    n_taken = previous.n_steps + previous.n_vain if previous else 0
    seeds = [
        (0 if previous else integer(random), (integer(random) + n_taken) % _N_SEEDS)
        for _ in range(1 if previous else starts.n_runs(architecture))
    ]
    return Job(
        request=request,
        x=rows_of_model,
        c=c,
        codec=codec,
        conditions=conditions,
        rows=rows,
        validation_rows=validation_rows,
        run=_run(request, architecture, rows_of_model, rows, validation_rows),
        starts=starts,
        seeds=seeds,
        dtype=str(x.dtype).removeprefix("torch."),
        design=design,
        previous=previous,
    )


def _design(estimator: BaseVAE, families: Sequence[str]) -> Design:
    """The design by the estimator's parameters, which are held to each other here."""
    given: Any = estimator.hidden_layer_sizes
    sizes: tuple[Any, ...] = (given,) if isinstance(given, Integral) else tuple(given)
    if not all(isinstance(size, Integral) and int(size) >= 1 for size in sizes):
        raise ValueError(
            f"hidden_layer_sizes={given!r} must hold integers of at least "
            "1, the units of each layer. No hidden layer at all is hidden_layer_sizes=()."
        )
    used = [LIKELIHOODS[name] for name in set(families)]
    exposure = estimator.exposure
    if exposure is not None and not any(family.reading == "count" for family in used):
        raise ValueError(
            f"exposure={exposure!r} needs counts, and no column of X is one. Use "
            "likelihood='poisson' or 'negative_binomial', or exposure=None."
        )
    noise = estimator.noise_variance
    if not any(family.parameters[1:] for family in used) or (
        not isinstance(noise, str) and not any(family.is_scaled for family in used)
    ):
        noise = "feature"  # there is no variance to speak of
    likelihood = estimator.likelihood
    return Design(
        n_components=int(estimator.n_components),
        hidden_layer_sizes=tuple(int(size) for size in sizes),
        activation=estimator.activation,
        exposure=exposure,
        likelihood=likelihood if isinstance(likelihood, str) else list(families),
        noise_variance=noise if isinstance(noise, str) else float(noise),
    )


def _previous(request: Request, design: Design) -> Fitted | None:
    """What to go on from, if anything; its design has to be the same."""
    estimator = request.estimator
    previous: Fitted | None = getattr(estimator, "_fitted", None)
    if previous is None or not (request.is_partial or estimator.warm_start):
        return None
    if changed := previous.design.changed(design):
        raise changed_error(changed)
    return previous


def _encoded(
    request: Request,
    x: Rows,
    families: Sequence[str],
    device: torch.device,
    previous: Fitted | None,
) -> tuple[ColumnCodec, ConditionCodec, Rows, Tensor]:
    """Scales and categories, those of before if there are any; by them x (N, D') and c (N, C)."""
    estimator, condition = request.estimator, request.condition
    if previous is None:
        sizes = None if request.schema is None else request.schema.sizes
        ranges = Ranges.of(x)
        check_ranges(ranges, families, estimator._place)
        with_mask = bool((ranges.n_known < len(x)).any())
        is_relative = estimator.exposure is not None
        if is_relative and with_mask:
            check_totals(x, families, estimator._place)
        codec = ColumnCodec.of(x, families, sizes, ranges, is_relative=is_relative)
        conditions = ConditionCodec.of(condition) if condition else ConditionCodec()
    else:
        codec, conditions = previous.codec, previous.conditions
        if codec.positions("count"):
            check_counts(Ranges.of(x), families, estimator._place)
        _warn_of_constant_columns(estimator, x, previous)
        with_mask = Answers(previous, estimator._place).needs_mask(x)
    rows = codec.encoded(x, torch.float32, device, with_mask=with_mask)
    values = condition.values if condition else []
    c = conditions.tensor(values, len(x), device, torch.float32)
    is_apart = isinstance(x, SparseRows) or is_mapped(request.X) or not fits(rows)
    return codec, conditions, rows if is_apart else rows.whole(), c


def _warn_of_constant_columns(estimator: BaseVAE, x: Rows, previous: Fitted) -> None:
    """Warn of columns that were constant, and so no part of the model, and vary now."""
    if found := previous.codec.no_longer_constant(x, previous.torch_dtype):
        names = ", ".join(estimator._place(":", column) for column in found)
        warn_user(
            f"{names} had one value in the first fit, which made it no part of the model, and "
            "varies now. Fit anew on rows in which it varies: of partial_fit the first call "
            "decides."
        )


def fits(rows: Rows) -> bool:
    """Whether there is room for all of them, encoded, on their device."""
    n_bytes = math.prod(rows.shape) * rows.dtype.itemsize
    return n_bytes <= SHARE_OF_MEMORY * free_bytes(rows.device)


def _split(request: Request, x: Rows, random: Any) -> tuple[Tensor, Tensor]:
    """Rows to train on and rows to validate by."""
    estimator, n_rows = request.estimator, len(x)
    order = torch.from_numpy(random.permutation(n_rows)).to(x.device)
    if request.is_partial or not estimator.early_stopping or n_rows < _MIN_ROWS_TO_SPLIT:
        return order.sort()[0], order[:0]
    n_validation = min(n_rows - 1, max(1, math.ceil(estimator.validation_fraction * n_rows)))
    return order[n_validation:].sort()[0], order[:n_validation].sort()[0]


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
    """Rows to train on and to validate by; labels that only the latter have give one of these.

    By c (N, C): a network knows nothing of labels that it was not trained on.
    """
    is_there = c[validation_rows] != 0
    n_rows, n_validation = (c != 0).sum(0), is_there.sum(0)
    is_unknown = (n_rows == n_validation) & (n_rows > 0)
    if not is_unknown.any():
        return rows, validation_rows
    moved = is_there[:, is_unknown].int().argmax(0).unique()
    # Where nearly every row has a label of its own, half of them stay to validate by.
    return _moved(moved[: len(validation_rows) // 2], rows, validation_rows)


def _moved(places: Tensor, rows: Tensor, validation_rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows to train on, with the validation rows at these places, and the validation rows left."""
    places = places.to(rows.device)
    is_kept = torch.ones_like(validation_rows, dtype=torch.bool)
    is_kept[places] = False
    return torch.cat((rows, validation_rows[places])).sort()[0], validation_rows[is_kept]


def _architecture(
    design: Design, codec: ColumnCodec, x: Rows, c: Tensor, previous: Fitted | None
) -> Architecture:
    is_masked = x.shape[1] > codec.width
    return Architecture(
        n_features=codec.n_features,
        n_components=design.n_components,
        n_conditions=c.shape[1],
        hidden_layer_sizes=design.hidden_layer_sizes,
        activation=design.activation,
        likelihood=codec.likelihood,
        noise=design.noise_variance,
        # A model that goes on keeps the encoder it has.
        sees_mask=previous.model.architecture.sees_mask if previous else is_masked,
        has_exposure=codec.is_relative,
    )


def _run(
    request: Request, architecture: Architecture, x: Rows, rows: Tensor, validation_rows: Tensor
) -> Run:
    """What the parameters ask for, but for the weights to start from and the seed."""
    estimator, is_partial = request.estimator, request.is_partial
    return Run(
        model=VAE(architecture, device="meta"),  # for its sizes; each start has its own
        rows=rows,
        validation_rows=validation_rows,
        seed=0,
        batch_size=rows_a_step(estimator.batch_size, len(rows), is_partial=is_partial),
        n_importance_samples=int(estimator.n_importance_samples),
        beta=float(estimator.beta),
        learning_rate=float(estimator.learning_rate_init),
        schedule=estimator.learning_rate,
        alpha=float(estimator.alpha),
        dropout=float(estimator.dropout),
        max_iter=1 if is_partial else int(estimator.max_iter),
        n_iter_no_change=int(estimator.n_iter_no_change),
        tol=float(estimator.tol),
        binarise=_has_uncertain_bits(x, architecture),
    )


def rows_a_step(batch_size: int | str, n_rows: int, *, is_partial: bool) -> int:
    """The size of a batch, of so many rows to train on."""
    if not isinstance(batch_size, str):
        size = int(batch_size)
    elif is_partial:  # a piece of the rows does not tell how many there are
        size = _MAX_BATCH_SIZE
    else:
        wanted = 2 ** math.ceil(math.log2(n_rows / _MAX_STEPS_AN_EPOCH))
        size = min(max(wanted, _MIN_BATCH_SIZE), _MAX_BATCH_SIZE)
    # Twice the rows there are at most: a batch of millions of copies serves nobody.
    return min(size, int(2 ** math.ceil(math.log2(n_rows))))


def _has_uncertain_bits(x: Rows, architecture: Architecture) -> bool:
    """Whether values between 0 and 1 are probabilities, of which bits are to be drawn."""
    columns = architecture.bits
    if not len(range(columns.start, columns.stop)):
        return False
    parts = (rows[:, columns] for rows in chunks(x))
    return any(bool(((bits > 0) & (bits < 1)).any()) for bits in parts)


def integer(random: np.random.RandomState) -> int:
    """A seed."""
    return int(random.randint(_N_SEEDS))


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
    if not is_there(found):
        raise ValueError(
            f"device={device!r}, but torch sees {torch.cuda.device_count()} CUDA devices. Use "
            "device='auto' to take one where there is one."
        )
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device={device!r} is not supported. Use 'auto', 'cpu' or 'cuda'.")
    return torch.device("cuda:0") if str(found) == "cuda" else found


def is_there(device: torch.device) -> bool:
    """Whether this machine has a GPU of that number, if the device is one."""
    return device.type != "cuda" or (device.index or 0) < torch.cuda.device_count()
