"""What messages of several modules share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def listed(values: Sequence[Any], most: int = 10) -> str:
    """The first of them, and how many there are in all."""
    shown = ", ".join(repr(value) for value in values[:most])
    return shown + (f", ... ({len(values)} in all)" if len(values) > most else "")


def changed_error(changes: Sequence[str]) -> ValueError:
    return ValueError(
        f"warm_start and partial_fit go on with the model of the last fit, but "
        f"{', '.join(changes)}. Put the parameters back, or start anew: fit with warm_start=False."
    )
