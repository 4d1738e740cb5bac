"""ONNX: `transform` as a graph that runs without Python, by way of skl2onnx.

`register` tells skl2onnx of the estimators; then ``skl2onnx.to_onnx`` converts them, alone or
in a Pipeline or ColumnTransformer.

Axes: ``N`` rows; ``I`` columns that the encoder sees, ``D`` that the likelihood explains;
``C`` condition columns, ``Z`` components, ``P`` outputs of a network, ``O`` columns of each;
``S`` draws, ``M`` combinations of labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby, pairwise
from numbers import Real
from typing import Any, NamedTuple, cast

import numpy as np

try:
    import skl2onnx
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
from torch import Tensor

from skvae._answers import N_DRAWS_LABELS, fixed_normals
from skvae._base import BaseVAE
from skvae._conditional import ConditionalVAE
from skvae._conditions import Labels, Number
from skvae._joint import Part, named_columns
from skvae._likelihoods import (
    DEGREES_RANGE,
    LIKELIHOODS,
    LOG_CEILING,
    OVERDISPERSION_FLOOR,
    TINY,
    VARIANCE_FLOOR,
    Support,
)
from skvae._messages import listed
from skvae._networks import Linear, Perceptron
from skvae._schema import Field
from skvae._transformer import VAETransformer
from skvae._vae import LOG_SCALE_RANGE, Architecture
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
    Inputs of one column each are told apart by name where they have the names of `fit`, else by
    position. Missing cells are NaN, of a text column the empty string (unless that is a category).
    A ConditionalVAE finds its condition in its `condition_columns`; without these, labels are
    integrated out as `transform` does. Then rows with missing cells are NaN, and so are those of
    a model that was fitted on complete rows: `transform` takes roots of matrices for them.

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
    # A ColumnTransformer gives a step its columns as one tensor, which holds text or numbers, but
    # for these classes.
    parser: Any = getattr(skl2onnx, "_parse", None)
    apart = getattr(parser, "do_not_merge_columns", None)
    if apart is not None and estimator not in apart:
        parser.do_not_merge_columns = (*apart, estimator)


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
    inputs = _Inputs(model, operator.inputs)
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
    model = operator.raw_operator
    rows = _Rows(model, _Inputs(model, operator.inputs), _Graph(scope, container))
    features = rows.answered(_features(model, rows))
    container.add_node("Identity", [features.name], operator.outputs[0].full_name)


def _features(model: BaseVAE, rows: _Rows) -> _Node:
    """Means of q(z|x), (N, Z), or of the mixture where labels are unknown."""
    fitted = model._fitted
    conditions = fitted.conditions
    if not fitted.codec.n_features:
        raise NotImplementedError(
            "every column of X was constant in fit: all rows have the same features, and there is "
            "nothing to convert."
        )
    if fitted.codec.is_relative:
        raise NotImplementedError(
            "exposure='total' has no ONNX converter: the encoder sees counts in units of the "
            "total of their row. Fit with exposure=None, or run `transform` itself."
        )
    encoder = _Network(fitted.model.encoder, fitted.model.architecture.activation)
    if getattr(model, "_source", "") == "columns":
        return encoder(_joined([rows.condition, rows.seen]), 1)[0]
    if conditions.combinations is None:
        raise NotImplementedError(
            f"{type(model).__name__} needs the condition {listed(conditions.numbers)} for every "
            "row, and an ONNX graph has X alone. Make the condition columns of X, name them in "
            "condition_columns, and fit again."
        )
    if len(conditions.log_prior) == 1:
        return encoder(rows.seen, 1, conditions.combinations[0])[0]
    _check_weighed(fitted.model.architecture)
    return _Mixture(model, rows, encoder).features


def _check_weighed(architecture: Architecture) -> None:
    """Labels can be weighed: terms with the gamma function are the same for all of them."""
    names = [name for name, _ in named_columns(architecture.likelihood)]
    found = [name for name in ("negative_binomial", "student_t") if name in names]
    if found and architecture.noise == "decoder":
        raise NotImplementedError(
            f"likelihood={found[0]!r} with noise_variance='decoder' needs the gamma function to "
            "weigh labels, which ONNX has not. Fit with noise_variance='feature', or give the "
            "graph the condition: as columns of X, named in condition_columns."
        )


# --------------------------------------------------------------- a graph and its nodes


class _Graph:
    """Nodes and constants of the graph that skl2onnx is making."""

    def __init__(self, scope: Any, container: Any) -> None:
        self.scope, self.container = scope, container
        self._constants: dict[tuple[Any, ...], _Node] = {}

    def constant(self, values: Any, dtype: Any) -> _Node:
        """A constant with these values, of which the graph keeps one copy."""
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

    def __rsub__(self, other: Any) -> _Node:
        return self._lifted(other).apply("Sub", self)

    def __rtruediv__(self, other: Any) -> _Node:
        return self._lifted(other).apply("Div", self)

    def __add__(self, other: Any) -> _Node:
        return self.apply("Add", other)

    def __mul__(self, other: Any) -> _Node:
        return self.apply("Mul", other)

    def __sub__(self, other: Any) -> _Node:
        return self.apply("Sub", other)

    def __truediv__(self, other: Any) -> _Node:
        return self.apply("Div", other)

    def __neg__(self) -> _Node:
        return self.apply("Neg")

    __radd__ = __add__
    __rmul__ = __mul__

    def test(self, op: str, *others: Any) -> _Node:
        return self.apply(op, *others, dtype=np.bool_)

    def choose(self, yes: Any, no: _Node) -> _Node:
        """``yes`` where this node is true."""
        return self.graph.node("Where", [self, no._lifted(yes), no], no.dtype)

    def cast(self, dtype: Any) -> _Node:
        if self.dtype == dtype:
            return self
        kind = numpy_helper.from_array(np.empty(0, dtype)).data_type
        return self.apply("Cast", dtype=dtype, to=kind)

    def take(self, positions: Sequence[int]) -> _Node:
        """Of the last axis."""
        return self._given("Gather", positions, axis=-1)

    def reshape(self, *shape: int) -> _Node:
        return self._given("Reshape", shape)

    def expand(self, *shape: int) -> _Node:
        return self._given("Expand", shape)

    def unsqueeze(self, axis: int) -> _Node:
        return self._given("Unsqueeze", [axis])

    def sum(self, axis: int, *, keepdims: bool = False) -> _Node:
        return self._given("ReduceSum", [axis], keepdims=int(keepdims))

    def log_sum_exp(self, axis: int) -> _Node:
        if self.graph.container.target_opset < 18:  # where axes became an input
            return self.apply("ReduceLogSumExp", axes=[axis], keepdims=0)
        return self._given("ReduceLogSumExp", [axis], keepdims=0)

    def any(self) -> _Node:
        """Where one of a row is true, (N, 1)."""
        return self.cast(np.float32).sum(-1, keepdims=True).test("Greater", 0.5)

    def _given(self, op: str, numbers: Sequence[int], **attributes: Any) -> _Node:
        """What has axes, positions or sizes as its other input."""
        inputs = [self, self.graph.constant(list(numbers), np.int64)]
        return self.graph.node(op, inputs, self.dtype, **attributes)


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


class _Inputs:
    """The columns of X among the inputs: one of all columns, or one for each, or between."""

    def __init__(self, model: BaseVAE, variables: Sequence[Any]) -> None:
        self.variables = variables
        self.dtypes = [_dtype_of(each) for each in variables]
        # A dimension that was left open.
        default = model.n_features_in_ if len(variables) == 1 else 1
        self.widths = [each.get_second_dimension() or default for each in variables]
        places = [(i, j) for i, width in enumerate(self.widths) for j in range(width)]
        if len(places) != model.n_features_in_:
            raise ValueError(
                f"the inputs of the graph have {len(places)} columns, but "
                f"{type(model).__name__} was fitted with {model.n_features_in_}."
            )
        # Names are the user's where no step has come between, and the input is a column.
        has_name = [v.is_root and n == 1 for v, n in zip(variables, self.widths, strict=True)]
        names = [variables[i].raw_name if has_name[i] else None for i, _ in places]
        #: Of each column of X the input that it is in, and its column there.
        self.places = [places[i] for i in _order(model, names)]
        is_frame = len(variables) > 1 or names == _names(model)
        self.dtype = np.dtype("float32" if self._is_single(model, is_frame) else "float64")

    def _is_single(self, model: BaseVAE, is_frame: bool) -> bool:
        """Whether `transform` works in float32, given such an X."""
        modelled, schema = _modelled(model), model._fitted.schema
        dtypes = [self.dtypes[self.places[i][0]] for i in modelled]
        if schema is None or not (is_frame or len(modelled) < model.n_features_in_):
            return bool(np.result_type(*dtypes) == np.float32)
        pairs = zip(dtypes, schema.modelled, strict=True)  # as in ``Schema.encode``
        numbers = {dtype for dtype, field in pairs if not field.is_categorical}
        return numbers - {np.dtype(np.bool_)} == {np.dtype(np.float32)}


def _names(model: BaseVAE) -> list[str]:
    return list(getattr(model, "feature_names_in_", ()))


def _order(model: BaseVAE, names: Sequence[str | None]) -> Sequence[int]:
    """Of each column of X its place among the inputs' columns: by name where they have those of X,
    by position where they have others.
    """
    known = _names(model)
    if set(names) == set(known):
        return [names.index(name) for name in known]
    pairs = list(zip(names, known, strict=False))
    if set(names) & set(known) and any(name not in (None, column) for name, column in pairs):
        raise ValueError(
            f"the graph has the inputs {listed([name for name in names if name])}, but "
            f"{type(model).__name__} was fitted with the columns {listed(known)}. Give every "
            "column an input of its name, as to_onnx does with a DataFrame; or, to go by "
            "position, no input the name of a column."
        )
    return range(len(names))


def _modelled(model: BaseVAE) -> list[int]:
    """The columns of X that are, those of a condition left out."""
    given = _given(model)
    return [i for i in range(model.n_features_in_) if i not in given]


def _given(model: BaseVAE) -> list[int]:
    """The columns of X that are a condition."""
    return model._condition_at if isinstance(model, ConditionalVAE) else []


class _Cells(NamedTuple):
    """Columns as the model has them, 0 where they are missing, and where that is."""

    explained: _Node  # (N, columns), by the likelihood
    seen: _Node  # (N, columns), by the encoder
    missing: _Node  # (N, columns) of bool


class _Rows:
    """X as the model sees it: the ONNX twin of ``ColumnCodec.encoded``.

    What is outside of a likelihood's support is NaN, and so is an unknown category.
    """

    def __init__(self, model: BaseVAE, inputs: _Inputs, graph: _Graph) -> None:
        self._model, self._inputs, self._graph = model, inputs, graph
        pairs = zip(inputs.variables, inputs.dtypes, strict=True)
        self._nodes = [_Node(graph, variable.full_name, dtype) for variable, dtype in pairs]
        self._codec = model._fitted.codec
        self._modelled = _modelled(model)
        self.dtype = inputs.dtype

    def constant(self, values: Any) -> _Node:
        return self._graph.constant(values, self.dtype)

    @cached_property
    def seen(self) -> _Node:
        """What the encoder sees, (N, I): numbers, categories, logarithms of counts; the mask."""
        n_counts = bool(self._codec.positions("count"))
        parts = [cells.seen for cells in (*self._parts[n_counts:], *self._parts[:n_counts])]
        sees_mask = self._model._fitted.model.architecture.sees_mask
        return _joined([*parts, self.mask] if sees_mask else parts)

    @cached_property
    def explained(self) -> _Node:
        """What the likelihood explains, (N, D): counts, numbers, categories."""
        return _joined([cells.explained for cells in self._parts])

    @cached_property
    def mask(self) -> _Node:
        """1 where these columns are observed, (N, D)."""
        return self._missing.test("Not").cast(self.dtype)

    @cached_property
    def has_holes(self) -> _Node:
        """Rows where one of them is missing, (N, 1) of bool."""
        return self._missing.any()

    @cached_property
    def condition(self) -> _Node:
        """c (N, C), from columns of X."""
        pairs = zip(self._model._fitted.conditions.columns, _given(self._model), strict=True)
        return _joined([self._given(column, position) for column, position in pairs])

    def answered(self, features: _Node) -> _Node:
        """NaN where `transform` refuses a column that was constant in fit: no network sees it.

        And where cells are missing that the encoder knows nothing of: `transform` looks for the
        mode of p(z|what is observed) there.
        """
        refused = [] if self._model._fitted.model.architecture.sees_mask else [self._missing]
        constant = (~self._codec.varies).nonzero()[:, 0].tolist()
        for name, some in groupby(constant, key=lambda i: self._codec.families[i]):
            positions = list(some)
            if name != "categorical":
                raw = self._raw(positions)
                refused += [raw.test("IsInf"), *_outside(raw, LIKELIHOODS[name].support)]
            elif self._model.handle_unknown == "error":
                refused += [self._coded(i)[1] for i in positions]
        return _joined(refused).any().choose(math.nan, features) if refused else features

    @cached_property
    def _missing(self) -> _Node:
        return _joined([cells.missing for cells in self._parts])

    @cached_property
    def _parts(self) -> list[_Cells]:
        """The columns that vary: of numbers those that are read alike; each category by itself."""
        parts = []
        for reading in ("count", "standardised", "log", "plain"):
            if positions := self._codec.positions(reading):
                parts.append(self._numbers(positions, reading))
        return parts + [self._category(i) for i in self._codec.positions("category")]

    def _numbers(self, positions: Sequence[int], reading: str) -> _Cells:
        raw = self._raw(positions)
        missing = raw.test("IsNaN")
        # All likelihoods of one reading have the same.
        for outside in _outside(raw, LIKELIHOODS[self._codec.families[positions[0]]].support):
            raw = outside.choose(math.nan, raw)
        if reading == "count":
            raw = missing.choose(0.0, raw)
        seen = missing.choose(0.0, self._standardised(raw, positions, reading))
        return _Cells(raw if reading == "count" else seen, seen, missing)

    def _raw(self, positions: Sequence[int]) -> _Node:
        """Modelled columns as they are, (N, columns)."""
        return self._picked([self._modelled[i] for i in positions], self.dtype)

    def _standardised(self, raw: _Node, positions: Sequence[int], reading: str) -> _Node:
        if reading == "plain":
            return raw
        steps = self._codec.float32_steps()
        if self.dtype == np.float32 and steps is not None:
            high, factor, rest = (step[list(positions)].numpy() for step in steps)
            return (raw - high) * factor + rest
        shift, scale = (
            part[list(positions)].numpy() for part in (self._codec.shift, self._codec.scale)
        )
        values = raw.cast(np.float64)
        if reading != "standardised":
            values = (values + 1.0 if reading == "count" else values).apply("Log")
        return ((values - shift) / scale).cast(self.dtype)

    def _category(self, position: int) -> _Cells:
        hot, unknown, missing = self._coded(position)
        if self._model.handle_unknown == "missing":
            missing = missing.test("Or", unknown)
        else:
            hot = unknown.choose(math.nan, hot)
        return _Cells(hot, hot, missing.expand(1, self._codec.sizes[position]))

    def _coded(self, position: int) -> tuple[_Node, _Node, _Node]:
        """What `_one_hot` gives of a modelled column."""
        schema = self._model._fitted.schema
        assert schema is not None  # where there are categories
        return self._one_hot(self._modelled[position], schema.modelled[position])

    def _given(self, column: Labels | Number, position: int) -> _Node:
        """Of a column of the condition the columns of c, NaN where it is missing or unknown."""
        if isinstance(column, Labels):
            hot, unknown, missing = self._one_hot(position, column)
            return unknown.test("Or", missing).choose(math.nan, hot)
        raw = self._picked([position], np.float64)
        return ((raw - column.mean) / column.scale).cast(self.dtype)

    def _one_hot(self, position: int, column: Field | Labels) -> tuple[_Node, _Node, _Node]:
        """A column of 0 and 1 for each category; where the cell is unknown, and missing, (N, 1)."""
        categories = column.categories
        assert categories is not None
        cells, is_text = self._picked([position], None), _is_of_text(column.name, categories)
        if is_text != (cells.dtype.kind == "U"):
            raise self._wrong_type(
                position,
                f"column {column.name!r} has the categories {listed(categories.tolist())}, "
                f"but its input is of {'numbers' if is_text else 'text'}. Give every column an "
                "input of its own type, as to_onnx does with a DataFrame.",
            )
        find = _same_texts if is_text else _same_numbers
        is_hot, missing = find(cells, categories.tolist())
        return is_hot.cast(self.dtype), is_hot.any().test("Or", missing).test("Not"), missing

    def _picked(self, positions: Sequence[int], dtype: Any) -> _Node:
        """Columns of X side by side, (N, columns), cast to a dtype; None leaves one as it is."""
        places = self._inputs.places
        parts = []
        for i, group in groupby(positions, key=lambda position: places[position][0]):
            some, node = list(group), self._nodes[i]
            if dtype is not None and node.dtype.kind == "U":
                raise self._wrong_type(
                    some[0],
                    f"{type(self._model).__name__} has numbers in column {some[0]} of X, but its "
                    "input is of text.",
                )
            columns = [places[position][1] for position in some]
            if columns != list(range(self._inputs.widths[i])):
                node = node.take(columns)
            parts.append(node if dtype is None else node.cast(dtype))
        return _joined(parts)

    def _wrong_type(self, position: int, message: str) -> Exception:
        """That of a column's input; or of the one that skl2onnx has made of several."""
        variable = self._inputs.variables[self._inputs.places[position][0]]
        if variable.raw_name != "merged_columns":
            return ValueError(message)
        name = type(self._model).__name__
        return NotImplementedError(
            "skl2onnx has merged the columns of text and of numbers that a ColumnTransformer gives "
            f"{name}. This version has no _parse.do_not_merge_columns, where skvae.onnx.register() "
            f"names those that take them apart: convert {name} by itself."
        )


def _outside(x: _Node, support: Support) -> list[_Node]:
    """The twin of ``Support.outside``; none where all numbers are inside."""
    if support.low == -math.inf:
        return []
    outside = x.test("LessOrEqual" if support.is_open else "Less", support.low)
    if support.high < math.inf:
        outside = outside.test("Or", x.test("Greater", support.high))
    if support.is_whole:
        outside = outside.test("Or", x.test("Greater", x.apply("Floor")))
    return [outside]


def _is_of_text(name: Any, categories: np.ndarray) -> bool:
    """Whether categories are text; else they are numbers."""
    kinds = {
        str if isinstance(value, str) else Real if isinstance(value, (Real, np.bool_)) else None
        for value in categories
    }
    if len(kinds) > 1 or None in kinds:
        which = "of several types" if len(kinds) > 1 else "that are neither text nor numbers"
        raise NotImplementedError(
            f"column {name!r} has categories {which}, {listed(categories.tolist())}, "
            "which no input of ONNX holds. Turn them all into strings, and fit again."
        )
    return str in kinds


def _same_texts(cells: _Node, values: Sequence[str]) -> tuple[_Node, _Node]:
    """Which of these values each cell has, (N, values), and where it is missing, (N, 1)."""
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
    return codes.test("Equal", np.arange(n)), codes.test("Equal", n)


def _same_numbers(cells: _Node, values: Sequence[Any]) -> tuple[_Node, _Node]:
    """Which of these numbers each cell has, (N, values), and where it is missing, (N, 1)."""
    numbers = cells.cast(np.float64)
    missing = numbers.test("IsNaN")
    if cells.dtype.kind != "f" and np.array(values).dtype.kind in "bi":
        # Beyond 2^53 double takes several for the same.
        return cells.cast(np.int64).test("Equal", np.array(values, np.int64)), missing
    held = [value if float(value) == value else math.nan for value in values]
    return numbers.test("Equal", np.array(held, np.float64)), missing


# ------------------------------------------------------------------------ networks


def _gelu(u: _Node) -> _Node:
    # onnxruntime knows the error function of single precision alone.
    erf = (u * math.sqrt(0.5)).cast(np.float32).apply("Erf").cast(u.dtype)
    return u * (erf + 1.0) * 0.5


def _elu(u: _Node) -> _Node:
    # Of Elu onnxruntime knows double in some opsets alone.
    return u.apply("Relu") + (-(-u).apply("Relu")).apply("Exp") - 1.0


_ACTIVATIONS: dict[str, Callable[[_Node], _Node]] = {
    "silu": lambda u: u * u.apply("Sigmoid"),
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
        weight = _array(linear.weight[0])
        bias = np.zeros(weight.shape[1:]) if linear.bias is None else _array(linear.bias[0])
        *_, n_outputs = bias.shape
        return cls(weight.reshape(len(weight), -1, n_outputs), bias.reshape(-1, n_outputs))

    def given(self, c: np.ndarray) -> _Layer:
        """Of the inputs after c (C,), which is the same for all rows."""
        return _Layer(self.weight[len(c) :], self.bias + np.tensordot(c, self.weight[: len(c)], 1))

    def __call__(self, x: _Node, p: int = 0, beside: _Node | None = None) -> _Node:
        """Its p-th outputs, (N, O); added to ``beside`` in place of a bias."""
        return x.apply("Gemm", self.weight[:, p], self.bias[p] if beside is None else beside)


def _array(weights: Tensor) -> np.ndarray:
    return weights.detach().double().cpu().numpy()


class _Network:
    """A `Perceptron` of a lone model, whose inputs are [c, x]."""

    def __init__(self, network: Perceptron, activation: str) -> None:
        self.activation = _ACTIVATIONS[activation]
        self.linear = _Layer.of(network.linear)
        self.hidden = [_Layer.of(layer) for layer in cast(Iterable[Linear], network.hidden)]
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

# Labels and draws of z are to be told from each other: terms that are the same for all of them are
# left out, and with them the gamma functions that ONNX does not know. Arguments are outputs of the
# decoder (S, N, columns), or constants for each column.


def _log_1p(v: _Node) -> _Node:
    """log(1 + v): what 1 + v loses of v is lost in the difference to 1 again, and cancels.

    Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 1.14. It is finite at
    -1, where a count of 0 multiplies it.
    """
    v = v.apply("Max", -1 + 1e-7)
    u = v + 1.0
    return u.test("Equal", 1.0).choose(v, v * (u.apply("Log") / (u - 1.0)))


def _softplus(u: _Node) -> _Node:
    # Of Softplus onnxruntime knows double in some opsets alone.
    return u.apply("Relu") + ((-u.apply("Abs")).apply("Exp") + 1.0).apply("Log")


def _above(floor: float, raw: _Node) -> _Node:
    return raw.apply("Min", LOG_CEILING).apply("Exp") + floor


def _gaussian(x: _Node, loc: _Node, raw: _Node) -> _Node:
    variance = _above(VARIANCE_FLOOR, raw)
    residual = x - loc
    return residual * residual * (-0.5 / variance) - 0.5 * variance.apply("Log")


def _bernoulli(x: _Node, logit: _Node) -> _Node:
    return x * logit - _softplus(logit)


def _categorical(x: _Node, logit: _Node, sizes: Sequence[int]) -> _Node:
    ends = accumulate(sizes, initial=0)
    logits = [logit.take(range(*each)) for each in pairwise(ends)]
    return x * _joined([each.apply("LogSoftmax", axis=-1) for each in logits])


def _poisson(x: _Node, log_rate: _Node) -> _Node:
    mean = _mean_count(log_rate)
    return x - mean - x * _log_1p((x - mean) / mean)


def _mean_count(log_mean: _Node) -> _Node:
    return log_mean.apply("Min", LOG_CEILING).apply("Exp").apply("Max", TINY)


def _negative_binomial(x: _Node, log_mean: _Node, raw: _Node) -> _Node:
    r, mean = 1.0 / _above(OVERDISPERSION_FLOOR, raw), _mean_count(log_mean)
    far = (x - mean) / (x + r)
    return -(x * _log_1p(far * (r / mean))) - r * _log_1p(-far)


def _student_t(x: _Node, loc: _Node, square: _Node, degrees: _Node) -> _Node:
    low, high = DEGREES_RANGE
    v = degrees.apply("Min", math.log(high - low)).apply("Exp") + low
    residual = x - loc
    spread = v * _above(VARIANCE_FLOOR, square)
    return _log_1p(residual * residual / spread) * ((v + 1.0) * -0.5)


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

_Posterior = tuple[_Node, _Node]  # means and log scales of q(z|x, c), both (N, Z)


class _Mixture:
    """Means of q(z|x) = sum of p(c|x) q(z|x, c) over labels c: the twin of ``Answers._mixture``."""

    def __init__(self, model: BaseVAE, rows: _Rows, encoder: _Network) -> None:
        fitted = model._fitted
        self.rows, self.conditions, self.encoder = rows, fitted.conditions, encoder
        a = self.architecture = fitted.model.architecture
        self.decoder = _Network(fitted.model.decoder, a.activation)
        self.dispersions = [rows.constant(each) for each in _array(fitted.model.dispersion[0])]
        self.noise = fixed_normals(N_DRAWS_LABELS, a.n_components).numpy()  # (S, Z)

    @property
    def features(self) -> _Node:
        """(N, Z)."""
        means, evidence = [], []  # of each label: (N, 1, Z), and log p(x|c) (N, 1)
        assert self.conditions.combinations is not None
        for c in self.conditions.combinations:
            loc, log_scale = self.encoder(self.rows.seen, 2, c)
            q = loc, log_scale.apply("Clip", *LOG_SCALE_RANGE)
            means.append(loc.unsqueeze(1))
            evidence.append(self._log_weights(q, c).log_sum_exp(0).unsqueeze(1))
        shares = (_joined(evidence) + self.conditions.log_prior).apply("Softmax", axis=1)
        mean = shares.unsqueeze(1).apply("MatMul", _joined(means, axis=1))
        mean = mean.reshape(-1, self.noise.shape[1])
        # Where cells are missing z is drawn about its mode, which takes the roots of matrices.
        return self.rows.has_holes.choose(math.nan, mean)

    def _log_weights(self, q: _Posterior, c: np.ndarray) -> _Node:
        """Log importance weights of draws from q, (S, N)."""
        n_draws, n_components = self.noise.shape
        loc, log_scale = q
        z = log_scale.apply("Exp") * self.noise[:, None] + loc
        a = self.architecture
        decoded = self.decoder(z.reshape(-1, n_components), a.n_decoded, c)
        log_px = self._log_prob([each.reshape(n_draws, -1, a.n_features) for each in decoded])
        squares = np.square(self.noise).sum(-1, keepdims=True)
        log_weights: _Node = log_px + ((squares - (z * z).sum(-1)) * 0.5 + log_scale.sum(-1))
        # Rows so far out that the dtype holds no density of theirs have the least there is, not
        # -inf or NaN: such weights are all alike, and lost beside any other.
        least = self.rows.constant(np.finfo(self.rows.dtype).min)
        return log_weights.test("Greater", least).choose(log_weights, least)

    def _log_prob(self, decoded: Sequence[_Node]) -> _Node:
        """Of all cells of every row, (S, N)."""
        a = self.architecture
        parts = getattr(a.family, "parts", None) or [Part(a.family, slice(None), ())]
        of_parts = []
        for i, (part, (name, columns)) in enumerate(
            zip(parts, named_columns(a.likelihood), strict=True)
        ):
            some = range(*columns.indices(a.n_features))
            own: list[Any] = [_some(output, some, a.n_features) for output in decoded]
            own += [each.take([i] if a.noise == "shared" else some) for each in self.dispersions]
            own = own[: part.n_outputs]
            own += [self.rows.constant([value]) for value in part.fixed]
            if name == "categorical":
                own.append(part.family.sizes or (len(some),))
            cells = _LOG_PROBS[name](_some(self.rows.explained, some, a.n_features), *own)
            of_parts.append(cells.sum(-1))
        return sum(of_parts[1:], of_parts[0])


def _some(node: _Node, columns: range, n_features: int) -> _Node:
    return node if len(columns) == n_features else node.take(columns)
