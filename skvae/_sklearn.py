"""The one place that touches what scikit-learn does not call public.

Arrays of any namespace to tensors and back, and the names its own estimators use.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import _fit_context as fit_context
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.model_selection._search import BaseSearchCV
from sklearn.model_selection._validation import _fit_and_score as fit_and_score
from sklearn.utils._array_api import (
    _convert_to_numpy,
    check_same_namespace,
    get_namespace,
    get_namespace_and_device,
    move_to,
)
from sklearn.utils._indexing import _get_column_indices as column_indices
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _check_feature_names as check_feature_names
from sklearn.utils.validation import _check_feature_names_in as feature_names_in
from sklearn.utils.validation import _check_n_features as check_n_features
from torch import Tensor

from skvae._rows import SparseRows

__all__ = [
    "BaseSearchCV",
    "CallbackSupportMixin",
    "HasMethods",
    "Interval",
    "StrOptions",
    "check_feature_names",
    "check_n_features",
    "check_same_namespace",
    "checked_cv",
    "column_indices",
    "columns_at",
    "feature_names_in",
    "fit_and_score",
    "fit_context",
    "float_dtypes",
    "from_tensor",
    "is_dispatched",
    "is_mapped",
    "to_numpy",
    "to_rows",
    "to_tensor",
    "with_callbacks",
]


def float_dtypes(X: Any) -> list[Any]:
    """The dtypes that ``validate_data`` keeps; all others become the first."""
    xp, _ = get_namespace(X)
    return [xp.float64, xp.float32]


def is_dispatched(X: Any) -> bool:
    """Whether X is an array whose own functions are used: ``array_api_dispatch``."""
    return not hasattr(X, "columns") and bool(get_namespace(X)[1])


def columns_at(X: Any, positions: Sequence[int]) -> Any:
    """Columns of an array of any namespace, where it is."""
    xp, is_array_api, device = get_namespace_and_device(X)
    if not is_array_api:
        return X[:, list(positions)]
    return xp.take(X, xp.asarray(list(positions), device=device), axis=1)


def to_tensor(X: Any) -> Tensor:
    """A validated array as a tensor that shares its memory where torch allows that.

    Nobody may write to it: the array may be one that must not be written to.
    """
    if isinstance(X, Tensor):
        return X.detach()
    X = to_numpy(X)
    X = X.astype(X.dtype.newbyteorder("="), copy=False)  # pandas keeps that of a file
    # torch takes no strides that are negative, or no multiple of an item (a field of records).
    if any(stride < 0 or stride % X.itemsize for stride in X.strides):
        X = X.copy()
    return torch.from_numpy(X if X.flags.writeable else np.asarray(_Writeable(X)))


class _Writeable:
    """The memory of an array, said to be writeable: torch takes no other without a warning."""

    def __init__(self, X: np.ndarray) -> None:
        self._X = X
        address, _ = X.__array_interface__["data"]
        self.__array_interface__ = {**X.__array_interface__, "data": (address, False)}


def to_rows(X: Any) -> Tensor | SparseRows:
    """A validated X as a tensor, or as sparse rows if it is a CSR matrix or array.

    The memory is shared, as by `to_tensor`.
    """
    if not issparse(X):
        x = to_tensor(X)
        if x.device.type not in ("cpu", "cuda"):
            raise ValueError(
                f"X is on the device {str(x.device)!r}, where this package does not compute. Give "
                "it on the CPU or a CUDA device: X.cpu()."
            )
        return x
    return SparseRows(to_tensor(X.indptr), to_tensor(X.indices), to_tensor(X.data), X.shape[1])


def is_mapped(X: Any) -> bool:
    """Whether an array, or what it is a view of, is a file that is mapped into memory."""
    while isinstance(X, np.ndarray | memoryview):
        X = X.base if isinstance(X, np.ndarray) else X.obj
    return isinstance(X, mmap.mmap)


def to_numpy(X: Any) -> np.ndarray:
    if isinstance(X, Tensor):
        return X.detach().cpu().numpy()
    xp, _ = get_namespace(X)
    return np.asarray(_convert_to_numpy(X, xp))


def from_tensor(tensor: Tensor, like: Any) -> Any:
    """The tensor as an array of the namespace and on the device of ``like``."""
    tensor = tensor.detach()
    xp, is_array_api, device = get_namespace_and_device(like)
    if not is_array_api or xp.__name__.endswith("numpy"):
        return tensor.cpu().numpy()
    if xp.__name__.endswith("torch"):
        return tensor.to(device)
    return move_to(tensor.cpu().numpy(), xp=xp, device=device)


def checked_cv(search: BaseSearchCV) -> Any:
    """The splitter of a search that is being fitted."""
    return search._checked_cv_orig
