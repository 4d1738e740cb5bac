"""What a fit leaves behind, and the same as plain data that any machine can load."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skvae._adam import AdamState
from skvae._columns import Columns
from skvae._conditions import Conditions, Labels, Number
from skvae._tables import Table
from skvae._vae import VAE, Architecture, from_state

# Of `Columns`.
_TENSORS = ("shift", "scale", "varies", "totals")


@dataclass(frozen=True)
class Fitted:
    """All that a fit leaves behind, out of the sight of scikit-learn's array checks."""

    model: VAE  # lone, float32, on the device of the fit
    columns: Columns
    conditions: Conditions
    optimizer: AdamState
    dtype: str  # of fit's X
    design: dict[str, Any]  # the parameters that a warm start may not change
    table: Table | None = None  # how X is read, where it is more than numbers of one kind

    def to_plain(self) -> dict[str, Any]:
        """As numpy arrays, numbers, strings, lists and dicts of these."""
        return {
            "architecture": asdict(self.model.architecture),
            "weights": _to_plain(self.model.state_dict()),
            "optimizer": {name: _to_plain(part) for name, part in self.optimizer.items()},
            "columns": _columns_to_plain(self.columns),
            "table": None if self.table is None else self.table.to_plain(),
            "conditions": {
                "columns": [vars(column) for column in self.conditions.columns],
                "combinations": self.conditions.combinations,
                "log_prior": self.conditions.log_prior,
                "codes": self.conditions.codes,
                "is_named": self.conditions.is_named,
            },
            "dtype": self.dtype,
            "design": self.design,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any], device: torch.device) -> Fitted:
        architecture = dict(plain["architecture"])
        architecture["hidden_layer_sizes"] = tuple(architecture["hidden_layer_sizes"])
        if not isinstance(architecture["likelihood"], str):
            architecture["likelihood"] = tuple(
                (name, tuple(sizes)) for name, sizes in architecture["likelihood"]
            )
        # Copies: what is read from a memory map must not hang on its file.
        conditions = unmapped(plain["conditions"])
        conditions["columns"] = tuple(
            (Labels if "categories" in column else Number)(**unmapped(column))
            for column in conditions["columns"]
        )
        return cls(
            from_state(Architecture(**architecture), _to_tensors(plain["weights"], device)),
            _columns_from_plain(plain["columns"]),
            Conditions(**conditions),
            {name: _to_tensors(part, device) for name, part in plain["optimizer"].items()},
            plain["dtype"],
            plain["design"],
            None if plain["table"] is None else Table.from_plain(plain["table"]),
        )


def moved(state: AdamState, device: torch.device) -> AdamState:
    """Copies on the device, of tensors by part and by name."""
    return {
        part: {name: t.detach().to(device, copy=True) for name, t in tensors.items()}
        for part, tensors in state.items()
    }


def unmapped(values: Any) -> dict[str, Any]:
    """The same dict, its memory maps read into memory."""
    return {
        name: np.array(value) if isinstance(value, np.memmap) else value
        for name, value in values.items()
    }


def _columns_to_plain(columns: Columns) -> dict[str, Any]:
    plain = _to_plain({name: getattr(columns, name) for name in _TENSORS})
    return {**plain, "families": list(columns.families), "sizes": list(columns.sizes)}


def _columns_from_plain(plain: dict[str, Any]) -> Columns:
    tensors = {name: plain[name] for name in _TENSORS}
    families, sizes = tuple(plain["families"]), tuple(plain["sizes"])
    return Columns(**_to_tensors(tensors, torch.device("cpu")), families=families, sizes=sizes)


def _to_plain(tensors: Any) -> dict[str, np.ndarray]:
    return {name: t.detach().cpu().numpy() for name, t in dict(tensors).items()}


def _to_tensors(arrays: Any, device: torch.device) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(a)).to(device) for name, a in arrays.items()}
