"""What messages of several modules share."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import joblib
import numpy as np
import sklearn
import torch


def listed(values: Sequence[Any], most: int = 10) -> str:
    """The first of them, and how many there are in all."""
    shown = ", ".join(repr(value) for value in values[:most])
    return shown + (f", ... ({len(values)} in all)" if len(values) > most else "")


def changed_error(changes: Sequence[str]) -> ValueError:
    return ValueError(
        f"warm_start and partial_fit go on with the model of the last fit, but "
        f"{', '.join(changes)}. Put the parameters back, or start anew: fit with warm_start=False."
    )


def new_category_error(
    where: str, values: np.ndarray, codes: np.ndarray, categories: np.ndarray, remedy: str
) -> ValueError:
    """The first of the values whose code is below 0, and so not among the categories of fit."""
    row = int(np.argmax(codes < 0))
    return ValueError(
        f"{where} has the category {values.tolist()[row]!r} (row {row}), which was not there in "
        f"fit. The categories are {listed(categories.tolist())}. {remedy}"
    )


def warn_user(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the user's that led here, past this package and others that call it."""
    frame, level = sys._getframe(1), 2
    skipped = tuple(os.path.dirname(module.__file__ or "") for module in (sklearn, torch, joblib))
    skipped += (os.path.dirname(__file__), contextlib.__file__, copy.__file__, pickle.__file__)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(skipped):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
