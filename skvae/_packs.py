"""Packs: which runs share a batch, so that padding and memory stay within bounds.

Training together equals training alone, so any division gives the same models: what
differs is the time it takes.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache

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
        found.extend(_divided(members, runs, n_models, max_bytes, _evenly(counts, max_models)))
    return found


def _evenly(counts: Sequence[int], max_models: float) -> float:
    """Models a pack, where as few packs as need be are to be of about one size."""
    n_packs = math.ceil(sum(counts) / max_models) or 1
    unit = max(counts)
    return min(max_models, math.ceil(sum(counts) / n_packs / unit) * unit)


def _divided(
    members: Sequence[int],
    runs: Sequence[Run],
    n_models: Sequence[int],
    max_bytes: float,
    max_models: float,
) -> Iterator[list[int]]:
    pack: list[int] = []
    for i in members:
        lone = runs[i].model.architecture
        if not pack:
            padded, total, asked = lone, 0, 0
        joined = widest([padded, lone])
        total_with = total + n_models[i]
        asked_with = asked + n_models[i] * n_parameters(lone)
        fits = (
            total_with <= max_models
            and total_with * n_bytes(runs[i], joined) <= max_bytes
            and total_with * n_parameters(joined) <= _MAX_PADDING * asked_with
        )
        if pack and not fits:
            yield pack
            pack, joined = [], lone
            total_with, asked_with = n_models[i], n_models[i] * n_parameters(lone)
        pack.append(i)
        padded, total, asked = joined, total_with, asked_with
    yield pack


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
