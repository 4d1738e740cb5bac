"""ONNX: `transform` as a graph that runs without Python, by way of skl2onnx.

`register` tells skl2onnx of the estimators; then ``skl2onnx.to_onnx`` converts them, alone or
in a Pipeline or ColumnTransformer.

Axes: ``N`` rows; ``I`` columns that the encoder sees, ``D`` that the likelihood explains;
``C`` condition columns, ``Z`` components, ``P`` outputs of a network, ``O`` columns of each;
``S`` draws, ``M`` combinations of labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby, pairwise
from typing import Any, NamedTuple

import numpy as np

try:
    from onnx import numpy_helper
    from skl2onnx import update_registered_converter
    from skl2onnx.common.data_types import (
        BooleanTensorType,
        DoubleTensorType,
        FloatTensorType,
        Int8TensorType,
        Int32TensorType,
        Int64TensorType,
        StringTensorType,
        UInt8TensorType,
    )
except ImportError as error:
    raise ImportError(
        "skvae.onnx needs skl2onnx, which is not installed: pip install skl2onnx onnxruntime."
    ) from error

from sklearn.utils.validation import check_is_fitted

from skvae._base import N_DRAWS_LABELS, BaseVAE, fixed_normals
from skvae._conditional import ConditionalVAE
from skvae._conditions import Labels, Number, listed
from skvae._inference import N_ADAPTATIONS
from skvae._joint import Part, named_columns
from skvae._likelihoods import (
    DEGREES_RANGE,
    LIKELIHOODS,
    LOG_CEILING,
    OVERDISPERSION_FLOOR,
    VARIANCE_FLOOR,
)
from skvae._networks import Linear, Perceptron
from skvae._transformer import VAETransformer
from skvae._vae import LOG_SCALE_RANGE, VAE
from skvae.impute import VAEImputer

__all__ = ["register"]

# From here on operators take what this module gives them: axes as an input, any float type.
_LEAST_OPSET = 13

_DTYPES = {
    FloatTensorType: np.float32,
    DoubleTensorType: np.float64,
    Int64TensorType: np.int64,
    Int32TensorType: np.int32,
    Int8TensorType: np.int8,
    UInt8TensorType: np.uint8,
    BooleanTensorType: np.bool_,
    StringTensorType: np.str_,
}


def register() -> None:
    """Let skl2onnx convert `VAETransformer` and `ConditionalVAE`.

    Call it once before ``skl2onnx.to_onnx``; calling it again changes nothing. What is
    converted is `transform`. A graph answers as `transform` does, to rounding, in the
    precision of its input (whole numbers: double), but it can raise no errors: a row that
    `transform` would refuse, for a value outside of the likelihood's support or an unknown
    category, gets features that are NaN; with an infinite value, NaN or infinite.

    For what no graph can do ``to_onnx`` raises NotImplementedError, and says what to do in its
    place: a condition of numbers that is not in columns of X, `VAEImputer`, and labels to be
    integrated out of a student_t or negative_binomial whose dispersion the decoder gives.

    Notes
    -----
    Missing cells are NaN, of a text column the empty string (unless that is a category).
    A ConditionalVAE finds its condition in its `condition_columns`; without these, labels are
    integrated out as `transform` does. Then missing cells take their own part of the graph,
    which is there if cells were missing in `fit`; without it their rows are NaN.

    Examples
    --------
    >>> import numpy as np
    >>> import onnxruntime
    >>> from skl2onnx import to_onnx
    >>> from sklearn.datasets import load_iris
    >>> import skvae.onnx
    >>> from skvae import VAETransformer
    >>> skvae.onnx.register()
    >>> X = load_iris().data.astype(np.float32)
    >>> vae = VAETransformer(n_components=2, random_state=0).fit(X)
    >>> graph = to_onnx(vae, X[:1]).SerializeToString()
    >>> session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    >>> (Z,) = session.run(None, {"X": X})
    >>> bool(np.allclose(Z, vae.transform(X), atol=1e-5))
    True
    """
    for estimator in (VAETransformer, ConditionalVAE):
        _register(estimator, _set_shape, _convert)
    _register(VAEImputer, _refuse_imputer, lambda scope, operator, container: None)


def _register(estimator: type, shape: Callable[..., None], convert: Callable[..., None]) -> None:
    update_registered_converter(estimator, f"Skvae{estimator.__name__}", shape, convert)


def _refuse_imputer(operator: Any) -> None:
    """A shape calculator, which comes before any converter."""
    raise NotImplementedError(
        "VAEImputer has no ONNX converter: its answer is an importance sample of every row. "
        "Leave it out of the Pipeline where a VAETransformer follows, which takes missing cells "
        "as they are; or impute before the graph is run."
    )


def _set_shape(operator: Any) -> None:
    """skl2onnx's shape calculator: type and shape of what `transform` gives."""
    model = operator.raw_operator
    check_is_fitted(model)
    inputs = _Inputs(model, operator)
    kind = FloatTensorType if inputs.dtype == np.float32 else DoubleTensorType
    n_rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = kind([n_rows, model._n_features_out])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """skl2onnx's converter: the graph of `transform`."""
    if container.target_opset < _LEAST_OPSET:
        raise NotImplementedError(
            f"target_opset={container.target_opset}, but the graph of a "
            f"{type(operator.raw_operator).__name__} needs {_LEAST_OPSET} at least."
        )
    graph = _Graph(scope, container)
    model = operator.raw_operator
    variables = [_Node(graph, each.full_name, _dtype_of(each)) for each in operator.inputs]
    rows = _Rows(model, _Inputs(model, operator), variables)
    features = _features(model, rows)
    container.add_node("Identity", [features.name], operator.outputs[0].full_name)


def _features(model: BaseVAE, rows: _Rows) -> _Node:
    """Means of q(z|x), (N, Z), or of the mixture where labels are unknown."""
    fitted = model._fitted
    conditions = fitted.conditions
    if not fitted.columns.n_features:
        raise NotImplementedError(
            "every column of X was constant in fit: all rows have the same features, and there is "
            "nothing to convert."
        )
    if fitted.columns.is_relative:
        raise NotImplementedError(
            "exposure='total' has no ONNX converter: the encoder sees counts in units of the "
            "total of their row. Fit with exposure=None, or run `transform` itself."
        )
    encoder, _ = _networks(fitted.model)
    if getattr(model, "_source", "") == "columns":
        return encoder(rows.condition.beside(rows.seen), 1)[0]
    if conditions.combinations is None:
        names = [column.name for column in conditions.columns if isinstance(column, Number)]
        raise NotImplementedError(
            f"{type(model).__name__} needs the condition {listed(names)} for every row, and an "
            "ONNX graph has X alone. Make the condition columns of X, name them in "
            "condition_columns, and fit again."
        )
    if len(conditions.log_prior) == 1:
        return encoder(rows.seen, 1, conditions.combinations[0])[0]
    return _Mixture(model, rows).features


# --------------------------------------------------------------- a graph and its nodes


class _Graph:
    """Nodes and constants of the graph that skl2onnx is making."""

    def __init__(self, scope: Any, container: Any) -> None:
        self.scope, self.container = scope, container
        self._constants: dict[tuple[Any, ...], _Node] = {}

    def constant(self, values: Any, dtype: Any) -> _Node:
        """The same values are kept once."""
        array = np.ascontiguousarray(values, dtype=dtype).reshape(np.shape(values))
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._constants:
            name = self.scope.get_unique_variable_name("constant")
            tensor = numpy_helper.from_array(array, name)
            self.container.add_initializer(name, tensor.data_type, None, tensor)
            self._constants[key] = _Node(self, name, array.dtype)
        return self._constants[key]

    def node(
        self, op: str, inputs: Sequence[_Node], dtype: Any, *, domain: str = "", **attributes: Any
    ) -> _Node:
        name = self.scope.get_unique_variable_name(op.lower())
        self.container.add_node(
            op,
            [each.name for each in inputs],
            name,
            op_domain=domain,
            name=self.scope.get_unique_operator_name(op),
            **attributes,
        )
        return _Node(self, name, np.dtype(dtype))


@dataclass(frozen=True)
class _Node:
    """A tensor in the graph. What is done to it is done when the graph runs."""

    graph: _Graph
    name: str
    dtype: Any

    __array_ufunc__ = None  # numpy + node is a node

    def apply(self, op: str, *others: Any, dtype: Any = None, **attributes: Any) -> _Node:
        """Of this node and others, or constants of its dtype."""
        inputs = [self, *(self._lifted(other) for other in others)]
        return self.graph.node(op, inputs, self.dtype if dtype is None else dtype, **attributes)

    def _lifted(self, other: Any) -> _Node:
        return other if isinstance(other, _Node) else self.graph.constant(other, self.dtype)

    def __add__(self, other: Any) -> _Node:
        return self.apply("Add", other)

    def __mul__(self, other: Any) -> _Node:
        return self.apply("Mul", other)

    def __sub__(self, other: Any) -> _Node:
        return self.apply("Sub", other)

    def __rsub__(self, other: Any) -> _Node:
        return self._lifted(other).apply("Sub", self)

    def __truediv__(self, other: Any) -> _Node:
        return self.apply("Div", other)

    def __rtruediv__(self, other: Any) -> _Node:
        return self._lifted(other).apply("Div", self)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> _Node:
        return self.apply("Neg")

    def compare(self, op: str, other: Any) -> _Node:
        return self.apply(op, other, dtype=np.bool_)

    def logical(self, op: str, *others: _Node) -> _Node:
        return self.apply(op, *others, dtype=np.bool_)

    def is_nan(self) -> _Node:
        return self.apply("IsNaN", dtype=np.bool_)

    def choose(self, yes: Any, no: _Node) -> _Node:
        """``yes`` where this node is true."""
        return self.graph.node("Where", [self, no._lifted(yes), no], no.dtype)

    def cast(self, dtype: Any) -> _Node:
        if self.dtype == dtype:
            return self
        kind = numpy_helper.from_array(np.empty(0, dtype)).data_type
        return self.apply("Cast", dtype=dtype, to=kind)

    def take(self, positions: Sequence[int], axis: int = -1) -> _Node:
        return self.graph.node(
            "Gather",
            [self, self.graph.constant(list(positions), np.int64)],
            self.dtype,
            axis=axis,
        )

    def reshape(self, *shape: int) -> _Node:
        target = self.graph.constant(shape, np.int64)
        return self.graph.node("Reshape", [self, target], self.dtype)

    def unsqueeze(self, axis: int) -> _Node:
        axes = self.graph.constant([axis], np.int64)
        return self.graph.node("Unsqueeze", [self, axes], self.dtype)

    def reduce(self, op: str, axis: int, *, keepdims: bool = False) -> _Node:
        """ "ReduceSum" or "ReduceLogSumExp" over one axis."""
        since = {"ReduceSum": 13, "ReduceLogSumExp": 18}[op]  # where axes became an input
        if self.graph.container.target_opset < since:
            return self.apply(op, axes=[axis], keepdims=int(keepdims))
        axes = self.graph.constant([axis], np.int64)
        return self.graph.node(op, [self, axes], self.dtype, keepdims=int(keepdims))

    def sum(self, axis: int, *, keepdims: bool = False) -> _Node:
        return self.reduce("ReduceSum", axis, keepdims=keepdims)

    def beside(self, other: _Node) -> _Node:
        return _joined([self, other])


def _joined(nodes: Sequence[_Node], axis: int = -1) -> _Node:
    """Side by side along an axis; one alone is itself."""
    first, *others = nodes
    return first.apply("Concat", *others, axis=axis) if others else first


# ------------------------------------------------------------------ what comes in


def _dtype_of(variable: Any) -> Any:
    """Of one of skl2onnx's variables that of its numbers, or str."""
    for kind, dtype in _DTYPES.items():
        if type(variable.type) is kind:
            return np.dtype(dtype)
    raise NotImplementedError(
        f"the input {variable.raw_name!r} is a {type(variable.type).__name__}. Cast it to one of "
        f"{', '.join(kind.__name__ for kind in _DTYPES)} before."
    )


class _Place(NamedTuple):
    """Where a column of X stands."""

    input: int
    column: int
    n_columns: int  # of that input
    dtype: Any


class _Inputs:
    """The columns of X among the inputs: one of all columns, or one for each, or between."""

    def __init__(self, model: BaseVAE, operator: Any) -> None:
        n_in = model.n_features_in_
        self.places: list[_Place] = []
        for i, variable in enumerate(operator.inputs):
            n_columns = variable.get_second_dimension()
            if not n_columns and len(operator.inputs) == 1:
                n_columns = n_in  # a dimension that was left open
            dtype = _dtype_of(variable)
            self.places += [_Place(i, j, n_columns, dtype) for j in range(n_columns or 1)]
        if len(self.places) != n_in:
            raise ValueError(
                f"the inputs of the graph have {len(self.places)} columns, but "
                f"{type(model).__name__} was fitted with {n_in}."
            )
        self.modelled = _modelled(model)
        self.dtype = self._dtype(model)

    def _dtype(self, model: BaseVAE) -> Any:
        """That which `transform` works in, given such an X."""
        table = model._fitted.table
        dtypes = {self.places[i].dtype for i in self.modelled}
        if table is None or len(dtypes) == 1:
            found = np.result_type(*dtypes) if dtypes else np.dtype(np.float64)
            return found if found == np.float32 else np.dtype(np.float64)
        numbers = {
            self.places[i].dtype
            for i, column in zip(self.modelled, table.modelled, strict=True)
            if not column.is_categorical
        }
        is_single = numbers - {np.dtype(np.bool_)} == {np.dtype(np.float32)}
        return np.dtype(np.float32 if is_single else np.float64)


def _modelled(model: BaseVAE) -> list[int]:
    """The columns of X that are, those of a condition left out."""
    if getattr(model, "_source", "") != "columns":
        return list(range(model.n_features_in_))
    given = model._condition_positions()
    return [i for i in range(model.n_features_in_) if i not in given]


class _Cells(NamedTuple):
    """Columns as the model has them, 0 where they are missing, and where that is."""

    values: _Node  # (N, columns)
    missing: _Node  # (N, columns) of bool


class _Rows:
    """X as the model sees it: the ONNX twin of ``Columns.encoded``."""

    def __init__(self, model: BaseVAE, inputs_of: _Inputs, inputs: Sequence[_Node]) -> None:
        self._model, self._inputs_of, self._inputs = model, inputs_of, inputs
        self._fitted = model._fitted
        self._columns = self._fitted.columns
        self.dtype = inputs_of.dtype

    @cached_property
    def seen(self) -> _Node:
        """What the encoder sees, (N, I): numbers, categories, logarithms of counts; the mask."""
        parts = [*self._numbers, *self._categories]
        if self._counts is not None:
            parts.append(self._logarithms_of_counts)
        values = _joined([part.values for part in parts])
        return values.beside(self.mask) if self._fitted.model.architecture.sees_mask else values

    @cached_property
    def explained(self) -> _Node:
        """What the likelihood explains, (N, D): counts, numbers, categories."""
        return _joined([part.values for part in self._explained])

    @cached_property
    def mask(self) -> _Node:
        """1 where the columns that the likelihood explains are observed, (N, D)."""
        return self.missing.logical("Not").cast(self.dtype)

    @cached_property
    def missing(self) -> _Node:
        """Where these columns are not observed, (N, D) of bool."""
        return _joined([part.missing for part in self._explained])

    @cached_property
    def condition(self) -> _Node:
        """c (N, C), from columns of X."""
        positions = self._model._condition_positions()
        pairs = zip(self._fitted.conditions.columns, positions, strict=True)
        return _joined([self._given(column, position) for column, position in pairs])

    @cached_property
    def _explained(self) -> list[_Cells]:
        counts = [] if self._counts is None else [self._counts]
        return [*counts, *self._numbers, *self._categories]

    @cached_property
    def _numbers(self) -> list[_Cells]:
        found = []
        for reading in ("standardised", "log", "plain"):
            if positions := self._columns.positions(reading):
                raw, missing = self._raw(positions)
                values = self._standardised(raw, positions, reading)
                found.append(_Cells(missing.choose(0.0, values), missing))
        return found

    @cached_property
    def _counts(self) -> _Cells | None:
        positions = self._columns.positions("count")
        if not positions:
            return None
        raw, missing = self._raw(positions)
        return _Cells(missing.choose(0.0, raw), missing)

    @cached_property
    def _logarithms_of_counts(self) -> _Cells:
        assert self._counts is not None
        counts, missing = self._counts
        values = self._standardised(counts, self._columns.positions("count"), "count")
        return _Cells(missing.choose(0.0, values), missing)

    @cached_property
    def _categories(self) -> list[_Cells]:
        if not (positions := self._columns.positions("category")):
            return []
        table = self._fitted.table
        assert table is not None
        columns = ((i, table.modelled[i]) for i in positions)
        return [
            self._one_hot(self._in_X(i), column.categories, column.name, self._model.handle_unknown)
            for i, column in columns
        ]

    def _raw(self, positions: Sequence[int]) -> tuple[_Node, _Node]:
        """Columns as they are, (N, columns), and where they are missing.

        What is outside of a likelihood's support becomes NaN, which is no missing cell.
        """
        raw = self._picked([self._in_X(i) for i in positions], self.dtype)
        missing = raw.is_nan()
        # All likelihoods of one reading have the same.
        (support,) = {LIKELIHOODS[self._columns.families[i]].support for i in positions}
        if support.low == -math.inf:
            return raw, missing
        outside = raw.compare("LessOrEqual" if support.is_open else "Less", support.low)
        if support.high < math.inf:
            outside = outside.logical("Or", raw.compare("Greater", support.high))
        if support.is_whole:
            outside = outside.logical("Or", raw.compare("Greater", raw.apply("Floor")))
        return outside.choose(math.nan, raw), missing

    def _standardised(self, raw: _Node, positions: Sequence[int], reading: str) -> _Node:
        if reading == "plain":
            return raw
        steps = self._columns.float32_steps()
        if self.dtype == np.float32 and steps is not None:
            high, factor, rest = (step[list(positions)].numpy() for step in steps)
            return (raw - high) * factor + rest
        shift, scale = (
            part[list(positions)].numpy() for part in (self._columns.shift, self._columns.scale)
        )
        values = raw.cast(np.float64)
        if reading != "standardised":
            values = (values + 1.0 if reading == "count" else values).apply("Log")
        return ((values - shift) / scale).cast(self.dtype)

    def _given(self, column: Labels | Number, position: int) -> _Node:
        """Of a column of the condition the columns of c, NaN where it is missing or unknown."""
        if isinstance(column, Labels):
            return self._one_hot(position, column.categories, column.name, None).values
        raw = self._picked([position], np.float64)
        return ((raw - column.mean) / column.scale).cast(self.dtype)

    def _one_hot(
        self, position: int, categories: np.ndarray, name: Any, unknown: str | None
    ) -> _Cells:
        """A column of 0 and 1 for each category.

        What is unknown is NaN; or, with ``unknown="missing"``, missing. Missing cells are 0;
        without ``unknown`` they are not allowed for, and NaN.
        """
        is_hot, missing = self._compared(position, categories, name)
        hot = is_hot.cast(self.dtype)
        bad = hot.sum(-1, keepdims=True).compare("Less", 0.5)
        if unknown == "missing":
            missing = bad
        else:
            if unknown is not None:
                bad = bad.logical("And", missing.logical("Not"))
            hot = bad.choose(math.nan, hot)
        shape = hot.graph.constant([1, len(categories)], np.int64)
        return _Cells(hot, hot.graph.node("Expand", [missing, shape], np.bool_))

    def _compared(self, position: int, categories: np.ndarray, name: Any) -> tuple[_Node, _Node]:
        """Which category each cell has, (N, categories), and where it is missing, (N, 1)."""
        values = categories.tolist()
        cells = self._picked([position], None)
        are_texts, is_text = [isinstance(value, str) for value in values], cells.dtype.kind == "U"
        if any(are_texts) and not all(are_texts):
            raise NotImplementedError(
                f"column {name!r} has categories of several types, {listed(values)}, which no "
                "input of ONNX holds together. Turn them all into strings, and fit again."
            )
        if all(are_texts) != is_text:
            raise ValueError(
                f"column {name!r} has the categories {listed(values)}, but its input is of "
                f"{'text' if is_text else 'numbers'}. Give every column an input of its own "
                "type, as to_onnx does with a DataFrame."
            )
        if not is_text:
            numbers = cells.cast(np.float64)
            return numbers.compare("Equal", np.array(values, np.float64)), numbers.is_nan()
        keys = values if "" in values else [*values, ""]
        codes = cells.apply(
            "LabelEncoder",
            dtype=np.int64,
            domain="ai.onnx.ml",
            op_version=2,  # skl2onnx takes no newer one unless it is told to
            keys_strings=keys,
            values_int64s=list(range(len(keys))),
            default_int64=-1,
        )
        n = len(values)
        return codes.compare("Equal", np.arange(n)), codes.compare("Equal", n)

    def _picked(self, positions: Sequence[int], dtype: Any) -> _Node:
        """Columns of X side by side, (N, columns), cast to a dtype; None leaves one as it is."""
        places = [self._inputs_of.places[i] for i in positions]
        parts = []
        for i, group in groupby(places, key=lambda place: place.input):
            some = list(group)
            node, columns = self._inputs[i], [place.column for place in some]
            if dtype is not None and node.dtype.kind == "U":
                raise ValueError(
                    f"{type(self._model).__name__} has numbers in column "
                    f"{places.index(some[0])} of X, but its input is of text."
                )
            if columns != list(range(some[0].n_columns)):
                node = node.take(columns)
            parts.append(node if dtype is None else node.cast(dtype))
        return _joined(parts)

    def _in_X(self, column: int) -> int:
        return self._inputs_of.modelled[column]


# ------------------------------------------------------------------------ networks


def _silu(u: _Node) -> _Node:
    return u * u.apply("Sigmoid")


def _gelu(u: _Node) -> _Node:
    # onnxruntime knows the error function of single precision alone.
    erf = (u * math.sqrt(0.5)).cast(np.float32).apply("Erf").cast(u.dtype)
    return u * (erf + 1.0) * 0.5


def _elu(u: _Node) -> _Node:
    # Of Elu onnxruntime knows double in some opsets alone.
    return u.apply("Relu") + (-(-u).apply("Relu")).apply("Exp") - 1.0


_ACTIVATIONS: dict[str, Callable[[_Node], _Node]] = {
    "silu": _silu,
    "relu": lambda u: u.apply("Relu"),
    "tanh": lambda u: u.apply("Tanh"),
    "gelu": _gelu,
    "elu": _elu,
}


@dataclass(frozen=True)
class _Layer:
    """A `Linear` of a lone model."""

    weight: np.ndarray  # (I, P, O)
    bias: np.ndarray  # (P, O)

    @classmethod
    def of(cls, linear: Linear) -> _Layer:
        weight = linear.weight[0].detach().double().cpu().numpy()
        if linear.bias is None:
            bias = np.zeros(weight.shape[1:])
        else:
            bias = linear.bias[0].detach().double().cpu().numpy()
        *_, n_outputs = bias.shape
        return cls(weight.reshape(len(weight), -1, n_outputs), bias.reshape(-1, n_outputs))

    def given(self, c: np.ndarray) -> _Layer:
        """Of the inputs after c (C,), which is the same for all rows."""
        return _Layer(self.weight[len(c) :], self.bias + np.tensordot(c, self.weight[: len(c)], 1))

    def __call__(self, x: _Node, p: int = 0, beside: _Node | None = None) -> _Node:
        """Its p-th outputs, (N, O); added to ``beside`` in place of a bias."""
        return x.apply("Gemm", self.weight[:, p], self.bias[p] if beside is None else beside)


class _Network:
    """A `Perceptron` of a lone model, whose inputs are [c, x]."""

    def __init__(self, network: Perceptron, activation: str) -> None:
        self.activation = _ACTIVATIONS[activation]
        self.linear = _Layer.of(network.linear)
        self.hidden = [_Layer.of(layer) for layer in network.hidden]
        self.head = None if network.head is None else _Layer.of(network.head)

    def __call__(self, x: _Node, n: int, c: np.ndarray | None = None) -> list[_Node]:
        """The first n of the P outputs, (N, O) each; of [c, x] if c (C,) is given, else of x."""
        linear, hidden, last = self.linear, self.hidden, x
        if c is not None:
            linear, hidden = linear.given(c), [layer.given(c) for layer in hidden[:1]] + hidden[1:]
        for layer in hidden:
            last = self.activation(layer(last))
        outputs = [linear(x, p) for p in range(n)]
        if self.head is None:
            return outputs
        return [self.head(last, p, beside=output) for p, output in enumerate(outputs)]


# ---------------------------------------------- log p(x|z) but for what x alone decides

# The label and z are to be told from each other: terms that are the same for all of them are left
# out, and with them the gamma functions that ONNX does not know. Arguments are outputs of the
# decoder (S, N, columns), or numbers for each column.
_Output = _Node | np.ndarray


def _exp(u: Any) -> Any:
    return u.apply("Exp") if isinstance(u, _Node) else np.exp(u)


def _log(u: Any) -> Any:
    return u.apply("Log") if isinstance(u, _Node) else np.log(u)


def _softplus(u: _Node) -> _Node:
    # Of Softplus onnxruntime knows double in some opsets alone.
    return u.apply("Relu") + _log((-u.apply("Abs")).apply("Exp") + 1.0)


def _at_most(u: Any, ceiling: float) -> Any:
    return u.apply("Min", ceiling) if isinstance(u, _Node) else np.minimum(u, ceiling)


def _above(floor: float, raw: Any) -> Any:
    return _exp(_at_most(raw, LOG_CEILING)) + floor


def _gaussian(x: _Node, loc: _Node, raw: _Output) -> _Node:
    variance = _above(VARIANCE_FLOOR, raw)
    residual = x - loc
    return residual * residual / (-2.0 * variance) - 0.5 * _log(variance)


def _bernoulli(x: _Node, logit: _Node) -> _Node:
    return x * logit - _softplus(logit)


def _categorical(x: _Node, logit: _Node, sizes: Sequence[int]) -> _Node:
    ends = accumulate(sizes, initial=0)
    logits = [logit.take(range(*each)) for each in pairwise(ends)]
    return x * _joined([each.apply("LogSoftmax", axis=-1) for each in logits])


def _poisson(x: _Node, log_rate: _Node) -> _Node:
    return x * log_rate - _exp(_at_most(log_rate, LOG_CEILING))


def _negative_binomial(x: _Node, log_mean: _Node, raw: _Output) -> _Node:
    r = 1.0 / _above(OVERDISPERSION_FLOOR, _same_for_all(raw, "negative_binomial"))
    log_odds = log_mean - np.log(r)
    return -(x * _softplus(-log_odds)) - r * _softplus(log_odds)


def _student_t(x: _Node, loc: _Node, square: _Output, degrees: _Output) -> _Node:
    low, high = DEGREES_RANGE
    v = low + np.exp(np.minimum(_same_for_all(degrees, "student_t"), math.log(high - low)))
    residual = x - loc
    spread = v * _above(VARIANCE_FLOOR, _same_for_all(square, "student_t"))
    return _log(residual * residual / spread + 1.0) * (-(v + 1) / 2)


def _same_for_all(output: _Output, name: str) -> np.ndarray:
    if isinstance(output, _Node):
        raise NotImplementedError(
            f"likelihood={name!r} with noise_variance='decoder' needs the gamma function to weigh "
            "labels, which ONNX has not. Fit with noise_variance='feature', or give the graph the "
            "condition: as columns of X, named in condition_columns."
        )
    return output


_LOG_PROBS: dict[str, Callable[..., _Node]] = {
    "gaussian": _gaussian,
    "lognormal": _gaussian,
    "bernoulli": _bernoulli,
    "categorical": _categorical,
    "poisson": _poisson,
    "negative_binomial": _negative_binomial,
    "student_t": _student_t,
}


# --------------------------------------------------------- with the label integrated out


class _Posterior(NamedTuple):
    """q(z|x, c), both (N, Z)."""

    loc: _Node
    log_scale: _Node


class _Mixture:
    """Means of q(z|x) = sum of p(c|x) q(z|x, c) over labels c: the twin of ``BaseVAE._mixture``."""

    def __init__(self, model: BaseVAE, rows: _Rows) -> None:
        fitted = model._fitted
        self.rows, self.conditions = rows, fitted.conditions
        a = self.architecture = fitted.model.architecture
        # Without a mask there is no adapted proposal, and the answer would be another.
        self.x = rows.explained
        if not a.sees_mask:
            self.x = rows.missing.choose(math.nan, rows.explained)
        self.encoder, self.decoder = _networks(fitted.model)
        self.dispersions = fitted.model.dispersion[0].detach().double().cpu().numpy()
        self.noise = fixed_normals(N_DRAWS_LABELS, a.n_components).numpy()  # (S, Z)

    @property
    def features(self) -> _Node:
        """(N, Z)."""
        posteriors = [self._posterior(c) for c in self.conditions.combinations]
        pairs = zip(posteriors, self.conditions.combinations, strict=True)
        joint = [self._log_likelihood(q, c).unsqueeze(1) for q, c in pairs]
        shares = (_joined(joint) + self.conditions.log_prior).apply("Softmax", axis=1)  # (N, M)
        each = _joined([q.loc.unsqueeze(1) for q in posteriors], axis=1)  # (N, M, Z)
        return shares.unsqueeze(1).apply("MatMul", each).reshape(-1, self.noise.shape[1])

    def _posterior(self, c: np.ndarray) -> _Posterior:
        loc, log_scale = self.encoder(self.rows.seen, 2, c)
        return _Posterior(loc, log_scale.apply("Clip", *LOG_SCALE_RANGE))

    def _log_likelihood(self, q: _Posterior, c: np.ndarray) -> _Node:
        """log p(x|c), (N,), but for what x alone decides: the twin of ``inference.scores``."""
        if self.architecture.sees_mask:
            q = self._adapted(q, c)
        _, log_weights = self._weighed(q, c)
        return log_weights.reduce("ReduceLogSumExp", 0)

    def _adapted(self, q: _Posterior, c: np.ndarray) -> _Posterior:
        """The proposal for rows with missing cells: the twin of ``inference._proposal``."""
        n_missing = (1.0 - self.rows.mask).sum(-1, keepdims=True)
        is_complete = n_missing.compare("Less", 0.5)
        for _ in range(N_ADAPTATIONS):
            z, log_weights = self._weighed(q, c)
            shares = log_weights.apply("Softmax", axis=0).unsqueeze(2)  # (S, N, 1)
            loc = (shares * z).sum(0)
            deviation = z - loc
            log_scale = 0.5 * _log((shares * deviation * deviation).sum(0))
            q = _Posterior(
                is_complete.choose(q.loc, loc),
                is_complete.choose(q.log_scale, log_scale.apply("Max", q.log_scale)),
            )
        return q

    def _weighed(self, q: _Posterior, c: np.ndarray) -> tuple[_Node, _Node]:
        """Draws z (S, N, Z) from q, and their log importance weights (S, N)."""
        n_draws, n_components = self.noise.shape
        z = q.log_scale.apply("Exp") * self.noise[:, None] + q.loc
        a = self.architecture
        decoded = self.decoder(z.reshape(-1, n_components), a.n_decoded, c)
        outputs = [each.reshape(n_draws, -1, a.n_features) for each in decoded]
        log_px = self._log_prob([*outputs, *self.dispersions])
        squares = np.square(self.noise).sum(-1, keepdims=True)
        log_ratio = (squares - (z * z).sum(-1)) * 0.5 + q.log_scale.sum(-1)
        return z, log_px + log_ratio

    def _log_prob(self, outputs: Sequence[_Output]) -> _Node:
        """Of the observed cells of every row, (S, N)."""
        a, x = self.architecture, self.x
        parts = getattr(a.family, "parts", None) or [Part(a.family, slice(None), ())]
        of_parts = []
        for i, (part, (name, columns)) in enumerate(
            zip(parts, named_columns(a.likelihood), strict=True)
        ):
            some = range(*columns.indices(a.n_features))
            own = [_own(output, i, some, a.n_features) for output in outputs[: part.n_outputs]]
            own += [np.array([value]) for value in part.fixed]
            if name == "categorical":
                own.append(part.family.sizes or (len(some),))
            cells = _LOG_PROBS[name](_some(x, some, a.n_features), *own)
            if a.sees_mask:
                cells = cells * _some(self.rows.mask, some, a.n_features)
            of_parts.append(cells.sum(-1))
        return sum(of_parts[1:], of_parts[0])


def _own(output: _Output, part: int, columns: range, n_features: int) -> _Output:
    """A part's columns of an output, or its one of those that columns share."""
    if isinstance(output, _Node):
        return _some(output, columns, n_features)
    return output[list(columns)] if len(output) == n_features else output[part : part + 1]


def _some(node: _Node, columns: range, n_features: int) -> _Node:
    return node if len(columns) == n_features else node.take(columns)


def _networks(model: VAE) -> tuple[_Network, _Network]:
    activation = model.architecture.activation
    return _Network(model.encoder, activation), _Network(model.decoder, activation)
