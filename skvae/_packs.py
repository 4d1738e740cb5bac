"""Packs: which runs share a batch, so that padding and memory stay within bounds.

Training together equals training alone, so any division gives the same models: what
differs is the time it takes.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from skvae._run import Run
from skvae._vae import VAE, Architecture, widest

# Parameters of a pack, all its models padded to the widest, over those asked for.
_MAX_PADDING = 1.5

# Copies of the weights: they, their gradients and moments, the best of these, what each run
# keeps of them between two packings, and the start.
_N_COPIES = 14

# Copies of a step's activations: forward, back, and what the elementwise parts leave.
_N_ACTIVATIONS = 4

_N_BYTES = 4


def packs(
    runs: Sequence[Run], n_models: Sequence[int], max_bytes: float, max_models: float = math.inf
) -> list[list[int]]:
    """Positions in ``runs`` of those that share a batch; each stands for some models."""
    groups: dict[Hashable, list[int]] = {}
    for i, run in enumerate(runs):
        groups.setdefault(run.group, []).append(i)
    found: list[list[int]] = []
    for members in groups.values():
        # Like beside like; the widest first, to which the others are padded.
        members.sort(key=lambda i: n_parameters(runs[i].model.architecture), reverse=True)
        counts = [n_models[i] for i in members]
        most = evenly(sum(counts), max(counts), max_models)
        found.extend(_divided(members, runs, n_models, max_bytes, most))
    return found


def evenly(n_models: int, unit: int, max_models: float) -> int:
    """Models a pack, where as few packs as need be are to be of about one size.

    ``unit`` models are not parted. Not more than ``max_models``, unless they are.
    """
    if max_models < math.inf:
        max_models = max(1, max_models // unit) * unit
    n_packs = math.ceil(n_models / max_models) or 1
    return math.ceil(n_models / n_packs / unit) * unit


def _divided(
    members: Sequence[int],
    runs: Sequence[Run],
    n_models: Sequence[int],
    max_bytes: float,
    max_models: float,
) -> Iterator[list[int]]:
    pack = _Pack()
    for i in members:
        longer = pack.joined_by(i, runs[i], n_models[i])
        if pack.members and not longer.is_within(runs[i], max_bytes, max_models):
            yield list(pack.members)
            longer = _Pack().joined_by(i, runs[i], n_models[i])
        pack = longer
    yield list(pack.members)


class _Pack(NamedTuple):
    """Runs, and what they come to in one batch."""

    members: tuple[int, ...] = ()
    n_models: int = 0
    n_asked: int = 0  # parameters of all models, unpadded
    padded: Architecture | None = None  # that all are padded to

    def joined_by(self, i: int, run: Run, n_models: int) -> _Pack:
        lone = run.model.architecture
        return _Pack(
            (*self.members, i),
            self.n_models + n_models,
            self.n_asked + n_models * n_parameters(lone),
            lone if self.padded is None else widest([self.padded, lone]),
        )

    def is_within(self, run: Run, max_bytes: float, max_models: float) -> bool:
        """The run is one of them, and in all but its architecture like the others."""
        assert self.padded is not None
        return (
            self.n_models <= max_models
            and self.n_models * n_bytes(run, self.padded) <= max_bytes
            and self.n_models * n_parameters(self.padded) <= _MAX_PADDING * self.n_asked
        )


@lru_cache(maxsize=1024)
def n_parameters(architecture: Architecture) -> int:
    """Numbers that one model learns."""
    return sum(p.numel() for p in VAE(architecture, device="meta").parameters())


def n_bytes(run: Run, architecture: Architecture) -> int:
    """Memory for a model of this architecture that is trained like the run, roughly."""
    a, n_rows = architecture, run.batch_size * run.n_importance_samples
    hidden = 2 * sum(a.hidden_layer_sizes)
    noise = n_rows * (a.n_components + hidden * (run.dropout > 0))
    block = run.n_block_steps * (noise + run.batch_size * (2 + run.n_bits))
    activations = n_rows * (hidden + a.n_decoded * a.n_features + 4 * a.n_components)
    # A block is there twice: as each run drew it, and joined.
    return _N_BYTES * (_N_COPIES * n_parameters(a) + 2 * block + _N_ACTIVATIONS * activations)
