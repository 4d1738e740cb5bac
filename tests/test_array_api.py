"""Tensors in, tensors out, where they are: scikit-learn's array API dispatch."""

import contextlib
import pickle

import array_api_strict
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils._python_dispatch import TorchDispatchMode

from skvae import ConditionalVAE, VAETransformer
from skvae.impute import VAEImputer

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N, D = 300, 4
SMALL = {"n_components": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, D, generator=GENERATOR, dtype=torch.float64).cumsum(1)
Y = torch.arange(N) % 3
HOLES = X.where(torch.rand(X.shape, generator=GENERATOR) > 0.1, torch.nan)
TABLE = torch.cat([Y[:, None].double(), X], 1)

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda:0", marks=[pytest.mark.gpu, GPU])]
)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])

# A GPU takes the moments of the columns in another order, and training carries that on.
TOLERANCE = {"cpu": 1e-9, "cuda:0": 1e-3}

#: By name what is called of a model fitted on X (or of one whose condition is in a column).
PLAIN = {
    "transform": lambda m, x: m.transform(x),
    "posterior": lambda m, x: m.posterior(x).std,
    "inverse_transform": lambda m, x: m.inverse_transform(m.transform(x)),
    "a draw of it": lambda m, x: m.inverse_transform(m.transform(x), mean=False, random_state=1),
    "sample": lambda m, x: m.sample(2 * N),
    "mean of a sample": lambda m, x: m.sample(2 * N, mean=True),
    "score_samples": lambda m, x: m.score_samples(x),
    "elbo": lambda m, x: m.elbo(x).reconstruction,
    "effective_sample_size": lambda m, x: m.effective_sample_size(x),
    "impute": lambda m, x: m.impute(x, n_draws=16),
    "sample_missing": lambda m, x: m.sample_missing(x, n_draws=16)[0],
}
MODELS = {
    "plain": (VAETransformer(**SMALL), PLAIN),
    "student_t": (VAETransformer(likelihood="student_t", **SMALL), PLAIN),
    "random start": (VAETransformer(init="random", n_importance_samples=2, **SMALL), PLAIN),
    "labels": (
        ConditionalVAE(**SMALL),
        {**PLAIN, "condition_proba": lambda m, x: m.condition_proba(x)},
    ),
}


@contextlib.contextmanager
def dispatch():
    with sklearn.config_context(array_api_dispatch=True):
        yield


def on(model, x):
    """Fitted there; a ConditionalVAE by labels in y."""
    return clone(model).fit(x, Y.to(x.device))


@DEVICES
@DTYPES
@pytest.mark.parametrize("name", MODELS)
def test_answers_stay_where_x_is(name, dtype, device):
    """A tensor of the dtype and on the device of X, that says what numpy is told."""
    model, calls = MODELS[name]
    x = X.to(device, dtype)
    model = clone(model).set_params(device=device)
    reference = clone(model).fit(x.cpu().numpy(), Y.numpy())
    with dispatch():
        fitted = on(model, x)
        assert torch.is_tensor(fitted.kl_per_component_)
        assert torch.is_tensor(fitted.noise_variance_)
        assert str(fitted.kl_per_component_.device) == device
        for call, ask in calls.items():
            answer = ask(fitted, x)
            assert torch.is_tensor(answer), call
            assert (answer.dtype, str(answer.device)) == (dtype, device), call
            np.testing.assert_allclose(
                answer.cpu().numpy(),
                ask(reference, x.cpu().numpy()),
                rtol=TOLERANCE[device],
                atol=TOLERANCE[device],
                err_msg=call,
            )
        assert isinstance(fitted.score(x, Y.to(device)), float)
        assert isinstance(fitted.marginal_kl(x), float)


@DEVICES
def test_a_condition_in_columns_of_a_tensor(device):
    model = ConditionalVAE(condition_columns=[0], device=device, **SMALL)
    x = TABLE.to(device)
    numbers = x[:, :1]
    reference = clone(model).fit(TABLE.numpy())
    with dispatch():
        fitted = clone(model).fit(x)
        features = fitted.transform(x)
        pairs = [
            (features, reference.transform(TABLE.numpy())),
            (fitted.score_samples(x), reference.score_samples(TABLE.numpy())),
            (
                fitted.inverse_transform(features, condition=numbers),
                reference.inverse_transform(
                    features.cpu().numpy(), condition=numbers.cpu().numpy()
                ),
            ),
            (
                fitted.sample(condition=numbers),
                reference.sample(condition=numbers.cpu().numpy()),
            ),
        ]
    for found, expected in pairs:
        assert torch.is_tensor(found)
        assert str(found.device) == device
        tolerance = TOLERANCE[device]
        np.testing.assert_allclose(found.cpu().numpy(), expected, rtol=tolerance, atol=tolerance)


@DEVICES
def test_labels_in_columns_of_a_tensor_of_whole_numbers(device):
    x = (TABLE * 2).round().to(device, torch.int64)
    with dispatch():
        fitted = ConditionalVAE(condition_columns=[0], **SMALL).fit(x)
        drawn = fitted.sample(condition=[0, 2, 4])
        assert drawn[:, 0].tolist() == [0.0, 2.0, 4.0]
        assert str(drawn.device) == device
        decoded = fitted.inverse_transform(fitted.transform(x))
        assert decoded.shape == (N, D + 1)
        assert decoded.dtype == torch.float64


@DEVICES
@pytest.mark.parametrize("likelihood", ["auto", {"student_t": [0], "remainder": "gaussian"}])
@pytest.mark.parametrize("condition_columns", [None, [1]])
def test_likelihoods_by_column(condition_columns, likelihood, device):
    """They read tables on the host; what comes back is where X was."""
    x = X.to(device)
    if condition_columns:
        likelihood = "auto"
        model = ConditionalVAE(condition_columns=condition_columns, likelihood=likelihood, **SMALL)
    else:
        model = VAETransformer(likelihood=likelihood, **SMALL)
    with dispatch():
        model.fit(x)
        given = {"condition": x[:, 1]} if condition_columns else {}
        answers = [
            model.transform(x),
            model.score_samples(x),
            model.inverse_transform(model.transform(x), **given),
            model.sample(N, **given),
        ]
    assert all(torch.is_tensor(answer) and str(answer.device) == device for answer in answers)
    assert answers[2].shape == answers[3].shape == (N, D)


@DEVICES
@pytest.mark.parametrize("estimator", [VAETransformer(**SMALL), ConditionalVAE(**SMALL)], ids=str)
def test_in_a_pipeline(estimator, device):
    x, y = X.to(device), Y.to(device)
    with dispatch():
        pipe = make_pipeline(StandardScaler(), clone(estimator), LogisticRegression()).fit(x, y)
        for answer in (pipe.predict(x), pipe.predict_proba(x)):
            assert torch.is_tensor(answer)
            assert str(answer.device) == device
        features = make_pipeline(StandardScaler(), clone(estimator)).fit(x, y)
        z = features.transform(x)
        assert str(features.inverse_transform(z).device) == device
        assert str(features.score_samples(x).device) == device


@DEVICES
@pytest.mark.parametrize("has_holes", [False, True])
def test_training_goes_on(has_holes, device):
    x = (HOLES if has_holes else X).to(device)
    with dispatch():
        model = VAETransformer(warm_start=True, **SMALL).fit(x)
        before = model.transform(x)
        after = model.partial_fit(x).transform(x)
        assert (before != after).any()
        assert str(model.fit(x).transform(x).device) == device
        assert not model.impute(x, n_draws=16).isnan().any()


# ------------------------------------------------------------- no copy to the host


class Copies(TorchDispatchMode):
    """Sizes of what is copied from a GPU to the host, whoever asks for it."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            source = args[1] if func.overloadpacket is torch.ops.aten.copy_ else args[0]
            if source.is_cuda and not result.is_cuda:
                self.sizes.append(source.numel())
        return result


@pytest.fixture
def to_host(monkeypatch):
    """Sizes of the tensors that are turned into what is no tensor, or sent to the host."""
    sizes = []

    def watched(name):
        plain = getattr(torch.Tensor, name)

        def watch(self, *args, **kwargs):
            sizes.append(self.numel())
            return plain(self, *args, **kwargs)

        return watch

    for name in ("cpu", "numpy", "tolist", "__array__", "__dlpack__"):
        monkeypatch.setattr(torch.Tensor, name, watched(name))
    return sizes


@DEVICES
@pytest.mark.parametrize("name", MODELS)
def test_no_rows_are_copied_to_the_host(name, device, to_host):
    """Moments of columns are, and labels, which are looked up; never anything of X's size.

    Of `sample_missing` the weights are, by which a generator on the host chooses.
    """
    model, calls = MODELS[name]
    model = clone(model).set_params(device=device)
    calls = {call: ask for call, ask in calls.items() if call != "sample_missing"}
    x, labels = X.to(device), Y.to(device)
    del to_host[:]
    with dispatch(), Copies() as copies:
        fitted = model.fit(x, labels)
        answers = [ask(fitted, x) for ask in calls.values()]
        fitted.partial_fit(x, labels)
        fitted.score(x, labels)
    assert all(torch.is_tensor(answer) for answer in answers)
    # Of conditions one label a row, of draws of them the numbers; rows of X are D times as many.
    most = 2 * N if name == "labels" else N - 1
    assert max(to_host) <= most
    assert max(copies.sizes, default=0) <= most
    assert to_host  # the watch sees what there is


@DEVICES
def test_no_rows_are_copied_in_a_pipeline(device, to_host):
    x = X.to(device)
    pipe = make_pipeline(StandardScaler(), VAETransformer(device=device, **SMALL))
    del to_host[:]
    with dispatch(), Copies() as copies:
        z = pipe.fit(x).transform(x)
        pipe.inverse_transform(z)
        pipe.score_samples(x)
    assert max(to_host, default=0) < N
    assert max(copies.sizes, default=0) < N


def test_the_watch_sees_copies(to_host):
    with dispatch():
        fitted = VAETransformer(device="cpu", **SMALL).fit(X)
        assert max(to_host) < N
        fitted.transform(X).numpy()
        assert max(to_host) == 2 * N
        np.asarray(X)
        assert max(to_host) == D * N


@pytest.mark.gpu
@GPU
def test_the_watch_sees_copies_from_a_gpu():
    x = X.to("cuda")
    for copy in (lambda: x.cpu(), lambda: x.to("cpu"), lambda: X.clone().copy_(x)):
        with Copies() as copies:
            copy()
        assert copies.sizes == [N * D]
    with Copies() as copies:
        x.to(torch.float32) + X.to("cuda")
    assert copies.sizes == []


# ------------------------------------------------------------------ other namespaces


@pytest.mark.parametrize("name", MODELS)
def test_arrays_of_the_strict_namespace(name):
    model, calls = MODELS[name]
    x, y = array_api_strict.asarray(X.numpy()), array_api_strict.asarray(Y.numpy())
    model = clone(model).set_params(device="cpu")
    reference = clone(model).fit(X.numpy(), Y.numpy())
    with dispatch():
        fitted = clone(model).fit(x, y)
        for call, ask in calls.items():
            answer = ask(fitted, x)
            assert isinstance(answer, type(x)), call
            np.testing.assert_allclose(
                np.asarray(answer._array), ask(reference, X.numpy()), err_msg=call
            )
        loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.transform(X.numpy()), reference.transform(X.numpy()))


@pytest.mark.parametrize(
    "convert", [torch.from_numpy, array_api_strict.asarray], ids=["torch", "strict"]
)
def test_an_imputer_answers_in_the_namespace_of_x(convert):
    rows = X.numpy().copy()
    rows[::3, 1] = np.nan
    x, imputer = convert(rows), VAEImputer(VAETransformer(**SMALL), add_indicator=True)
    expected = clone(imputer).fit_transform(rows)
    with dispatch():
        completed = imputer.fit_transform(x)
        # Objects are no array of a namespace with functions of its own.
        table = np.array([["a", 1.0], ["b", None], ["a", 2.0]] * 10, dtype=object)
        mixed = clone(imputer).set_params(estimator__likelihood="auto")
        assert mixed.fit_transform(table).shape == (30, 3)
    assert isinstance(completed, type(x))
    assert completed.dtype == x.dtype
    np.testing.assert_allclose(np.from_dlpack(completed), expected)


def test_a_condition_in_columns_of_the_strict_namespace():
    x = array_api_strict.asarray(TABLE.numpy())
    with dispatch():
        fitted = ConditionalVAE(condition_columns=[0], **SMALL).fit(x)
        answers = [fitted.transform(x), fitted.sample(condition=x[:, 0])]
    assert all(isinstance(answer, type(x)) for answer in answers)


@DEVICES
@pytest.mark.parametrize("name", ["plain", "labels"])
def test_a_model_of_tensors_is_kept_as_one_of_numpy(name, device):
    """What is loaded answers numpy, as the docs say, and the same."""
    x = X.to(device)
    with dispatch():
        fitted = on(MODELS[name][0], x)
        expected = fitted.transform(x).cpu().numpy()
    loaded = pickle.loads(pickle.dumps(fitted))
    assert isinstance(loaded.kl_per_component_, np.ndarray)
    np.testing.assert_allclose(loaded.transform(X.numpy()), expected, rtol=1e-9, atol=1e-9)


@DEVICES
def test_the_namespace_of_fit_is_that_of_transform(device):
    x = X.to(device)
    with dispatch():
        fitted = VAETransformer(**SMALL).fit(x)
        for call in (fitted.transform, fitted.score_samples, fitted.posterior, fitted.impute):
            with pytest.raises(ValueError, match="same namespace"):
                call(X.numpy())
        with pytest.raises(ValueError, match="same namespace"):
            fitted.inverse_transform(np.zeros((2, 2)))


# ------------------------------------------------------- set_output and feature names


FRAMES = {"pandas": pd.DataFrame, "polars": pl.DataFrame}
NAMES = ["a", "b", "c", "d"]


@pytest.mark.parametrize("library", FRAMES)
@pytest.mark.parametrize("estimator", [VAETransformer(**SMALL), ConditionalVAE(**SMALL)], ids=str)
def test_set_output_names_the_components(estimator, library):
    frame = FRAMES[library](dict(zip(NAMES, X.numpy().T, strict=True)))
    model = clone(estimator).set_output(transform=library)
    z = model.fit_transform(frame, Y.numpy())
    prefix = type(estimator).__name__.lower()
    assert isinstance(z, FRAMES[library])
    assert list(z.columns) == [f"{prefix}0", f"{prefix}1"]
    assert list(z.columns) == model.get_feature_names_out().tolist()
    assert model.feature_names_in_.tolist() == NAMES
    np.testing.assert_array_equal(
        z.to_numpy(), model.set_output(transform="default").transform(frame)
    )
    with pytest.raises(ValueError, match="feature names should match"):
        model.transform(frame.rename({"a": "e"}) if library == "polars" else frame[NAMES[::-1]])


@pytest.mark.parametrize("library", FRAMES)
def test_set_output_in_a_pipeline(library):
    frame = FRAMES[library](dict(zip(NAMES, X.numpy().T, strict=True)))
    pipe = make_pipeline(StandardScaler(), VAETransformer(**SMALL)).set_output(transform=library)
    z = pipe.fit_transform(frame)
    assert list(z.columns) == pipe.get_feature_names_out().tolist()
    assert pipe[1].feature_names_in_.tolist() == NAMES  # those that the scaler gives
    assert len(z) == N
