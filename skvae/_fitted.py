"""What a fit leaves behind: as tensors, and as plain data that any machine can load."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from skvae._adam import AdamState
from skvae._codec import ColumnCodec
from skvae._conditions import ConditionCodec, Labels, Number
from skvae._families import OF_NUMBERS
from skvae._joint import named_columns
from skvae._likelihoods import LIKELIHOODS
from skvae._networks import ACTIVATIONS
from skvae._schema import Schema
from skvae._vae import VAE, Architecture, cast, from_state

_DTYPES = {"float64": torch.float64, "float32": torch.float32}

# Of `ColumnCodec`.
_TENSORS = ("shift", "scale", "varies", "totals")


@dataclass(frozen=True)
class Design:
    """The parameters that make the network, in plain types: a warm start may not change them."""

    n_components: int
    hidden_layer_sizes: tuple[int, ...]
    activation: str
    exposure: str | None
    likelihood: str | list[str]  # as it was given, or of each modelled column
    # "feature" where no likelihood has a variance.
    noise_variance: Literal["feature", "shared", "decoder"] | float

    def changed(self, other: Design) -> list[str]:
        """What the other has in place of this, in words."""
        return [
            f"{name} was {old!r} and is {getattr(other, name)!r}"
            for name, old in vars(self).items()
            if getattr(other, name) != old
        ]

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Design:
        """Raises ValueError where the names are not those that `to_plain` gives."""
        if set(plain) != {parameter.name for parameter in fields(cls)}:
            raise ValueError("its parameters are not those of its network")
        return cls(**plain)


@dataclass(frozen=True)
class Fitted:
    """All that a fit leaves behind, out of the sight of scikit-learn's array checks."""

    model: VAE  # lone, float32, on the device of the fit
    codec: ColumnCodec
    conditions: ConditionCodec
    optimizer: AdamState
    dtype: str  # of fit's X
    design: Design
    schema: Schema | None = None  # of X, where it is more than numbers of one kind
    n_vain: int = 0  # fits that went on from this model and came to no better one
    _casts: dict[torch.dtype, VAE] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def n_steps(self) -> int:
        """The steps of training that led to this model."""
        return int(self.optimizer["n_steps"]["n_steps"])

    @property
    def torch_dtype(self) -> torch.dtype:
        """That of fit's X."""
        return _DTYPES[self.dtype]

    def model_in(self, dtype: torch.dtype) -> VAE:
        """The model with its weights in the dtype of X: inference keeps X's precision.

        It is kept, as to make one takes longer than to answer for one row.
        """
        weight = self.model.encoder.linear.weight
        if weight.dtype == dtype:
            return self.model
        if dtype not in self._casts:
            self._casts[dtype] = cast(self.model, dtype)
        return self._casts[dtype]

    def to_plain(self) -> dict[str, Any]:
        """As numpy arrays, numbers, strings, lists and dicts of these."""
        return {
            "architecture": asdict(self.model.architecture),
            "weights": _to_plain(self.model.state_dict()),
            "optimizer": {name: _to_plain(part) for name, part in self.optimizer.items()},
            "columns": _codec_to_plain(self.codec),
            "table": None if self.schema is None else self.schema.to_plain(),
            "conditions": {
                "columns": [vars(column) for column in self.conditions.columns],
                "combinations": self.conditions.combinations,
                "log_prior": self.conditions.log_prior,
                "codes": self.conditions.codes,
                "is_named": self.conditions.is_named,
            },
            "dtype": self.dtype,
            "design": self.design.to_plain(),
            "n_vain": self.n_vain,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any], device: torch.device) -> Fitted:
        """Raises an exception of some kind where it is not what `to_plain` gives.

        Every part is held to the others, so that what passes can be used: names, shapes,
        dtypes, and ranges of numbers.
        """
        architecture = _architecture(plain["architecture"])
        codec = _codec_from_plain(plain["columns"])
        if (codec.likelihood, codec.n_features, codec.is_relative) != (
            architecture.likelihood,
            architecture.n_features,
            architecture.has_exposure,
        ):
            raise ValueError("its columns are not those of its network")
        schema = None if plain["table"] is None else Schema.from_plain(plain["table"])
        if schema is not None and (tuple(schema.families), tuple(schema.sizes)) != (
            codec.families,
            codec.sizes,
        ):
            raise ValueError("its table is not that of its columns")
        conditions = _conditions(plain["conditions"], architecture.n_conditions)
        if plain["dtype"] not in _DTYPES:
            raise ValueError(f"it has the dtype {plain['dtype']!r}")
        design = Design.from_plain(plain["design"])
        _check_design(design, architecture, codec.families)
        if (schema is None) != (str(design.likelihood) in OF_NUMBERS):
            raise ValueError("its table is not that of its likelihood")
        shapes = {
            name: tuple(t.shape)
            for name, t in VAE(architecture, device="meta").state_dict().items()
        }
        weights = _arrays(plain["weights"], shapes)
        if not all(np.isfinite(array).all() for array in weights.values()):
            raise ValueError("its weights are not finite")
        laid_out = {"first": shapes, "second": shapes, "n_steps": {"n_steps": (1, 1)}}
        if set(plain["optimizer"]) != set(laid_out):
            raise ValueError(f"its optimizer has the parts {sorted(plain['optimizer'])}")
        optimizer = {
            part: _arrays(arrays, laid_out[part]) for part, arrays in plain["optimizer"].items()
        }
        if not np.isfinite(optimizer["n_steps"]["n_steps"]).all():
            raise ValueError("its optimizer has taken no number of steps")
        if not _are_counts([plain["n_vain"]], 0):
            raise ValueError(f"it has gone on {plain['n_vain']!r} times")
        return cls(
            from_state(architecture, _to_tensors(weights, device)),
            codec,
            conditions,
            {name: _to_tensors(part, device) for name, part in optimizer.items()},
            plain["dtype"],
            design,
            schema,
            plain["n_vain"],
        )


def _architecture(plain: dict[str, Any]) -> Architecture:
    likelihood = plain["likelihood"]
    if not isinstance(likelihood, str):
        likelihood = tuple((name, tuple(sizes)) for name, sizes in likelihood)
    sizes = tuple(plain["hidden_layer_sizes"])
    found = Architecture(**{**plain, "hidden_layer_sizes": sizes, "likelihood": likelihood})
    names = [name for name, _ in named_columns(likelihood)]
    is_right = (
        _are_counts([found.n_features, found.n_conditions], 0)
        and _are_counts([found.n_components, *sizes], 1)
        and found.activation in ACTIVATIONS
        and all(name in LIKELIHOODS for name in names)
        and (found.noise in ("feature", "shared", "decoder") or 0 < float(found.noise) < math.inf)
        and isinstance(found.sees_mask, bool)
        and isinstance(found.has_exposure, bool)
    )
    if not is_right:
        raise ValueError(f"its architecture is invalid: {found}")
    return found


def _check_design(design: Design, architecture: Architecture, families: Sequence[str]) -> None:
    """It is of this network, and of columns of these families."""
    likelihood = design.likelihood
    if likelihood != "auto" and list(families) != (
        [likelihood] * len(families) if isinstance(likelihood, str) else likelihood
    ):
        raise ValueError("its likelihood is not that of its columns")
    expected = Design(
        n_components=architecture.n_components,
        hidden_layer_sizes=architecture.hidden_layer_sizes,
        activation=architecture.activation,
        exposure="total" if architecture.has_exposure else None,
        likelihood=likelihood,
        noise_variance=architecture.noise,
    )
    if design != expected:
        raise ValueError("its parameters are not those of its network")


def _are_counts(values: Sequence[Any], least: int) -> bool:
    return all(type(value) is int and value >= least for value in values)


def _conditions(plain: dict[str, Any], n_columns: int) -> ConditionCodec:
    columns = tuple(
        (Labels if "categories" in column else Number)(**column) for column in plain["columns"]
    )
    found = ConditionCodec(**{**plain, "columns": columns})
    labels = [column for column in columns if isinstance(column, Labels)]
    numbers = [column for column in columns if isinstance(column, Number)]
    is_right = (
        found.n_columns == n_columns
        and all(column.categories.ndim == 1 and len(column.categories) for column in labels)
        and all(math.isfinite(column.mean) and 0 < column.scale < math.inf for column in numbers)
    )
    if numbers:
        is_right = is_right and found.combinations is None
    else:
        n_combinations = len(found.codes)
        checked = {"codes": found.codes}
        _arrays(checked, {"codes": (n_combinations, len(labels))}, np.intp)
        given = {"combinations": found.combinations, "log_prior": found.log_prior}
        _arrays(
            given,
            {"combinations": (n_combinations, n_columns), "log_prior": (n_combinations,)},
            np.float64,
        )
        sizes = [len(column.categories) for column in labels]
        hot = [np.eye(size)[codes] for size, codes in zip(sizes, found.codes.T, strict=True)]
        expected = np.hstack([np.zeros((n_combinations, 0)), *hot])
        is_right = (
            is_right
            and bool((found.codes >= 0).all())
            and found.combinations is not None
            and np.array_equal(expected, found.combinations)
            and math.isclose(np.exp(found.log_prior).sum(), 1.0)
        )
    if not is_right:
        raise ValueError("its condition is inconsistent")
    return found


def _arrays(
    given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], dtype: Any = np.float32
) -> dict[str, np.ndarray]:
    """Arrays of these names, in this order, shapes and dtype."""
    if list(given) != list(shapes):
        raise ValueError(f"its arrays are {list(given)} in place of {list(shapes)}")
    for name, array in given.items():
        if not isinstance(array, np.ndarray) or (array.dtype, array.shape) != (
            np.dtype(dtype),
            shapes[name],
        ):
            raise ValueError(
                f"its array {name!r} is not one of shape {shapes[name]} in {np.dtype(dtype)}"
            )
    return dict(given)


def moved(state: AdamState, device: torch.device) -> AdamState:
    """Copies on the device, of tensors by part and by name."""
    return {
        part: {name: t.detach().to(device, copy=True) for name, t in tensors.items()}
        for part, tensors in state.items()
    }


def _codec_to_plain(codec: ColumnCodec) -> dict[str, Any]:
    plain = _to_plain({name: getattr(codec, name) for name in _TENSORS})
    return {**plain, "families": list(codec.families), "sizes": list(codec.sizes)}


def _codec_from_plain(plain: dict[str, Any]) -> ColumnCodec:
    families, sizes = tuple(plain["families"]), tuple(plain["sizes"])
    moments = {name: plain[name] for name in ("shift", "scale", "totals")}
    shape = (len(families),)
    shapes = {"shift": shape, "scale": shape, "totals": np.shape(moments["totals"])[:1]}
    _arrays(moments, shapes, np.float64)
    varies = _arrays({"varies": plain["varies"]}, {"varies": shape}, np.bool_)
    is_right = (
        all(name in LIKELIHOODS for name in families)
        and len(sizes) == len(families)
        and _are_counts(sizes, 1)
        and all(name == "categorical" or n == 1 for name, n in zip(families, sizes, strict=True))
        and all(np.isfinite(array).all() for array in moments.values())
        and (moments["scale"] > 0).all()
        and (moments["totals"] >= 0).all()
    )
    if not is_right:
        raise ValueError("its columns are inconsistent")
    tensors = _to_tensors(moments | varies, torch.device("cpu"))
    return ColumnCodec(**tensors, families=families, sizes=sizes)


def _to_plain(tensors: Any) -> dict[str, np.ndarray]:
    return {name: t.detach().cpu().numpy() for name, t in dict(tensors).items()}


def _to_tensors(arrays: Any, device: torch.device) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(a)).to(device) for name, a in arrays.items()}
