"""What is kept is plain: numpy on the CPU, no torch object, no rows of X."""

import copy
import io
import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvae import ConditionalVAE, VAETransformer

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"n_components": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}
X = np.random.default_rng(0).normal(size=(60, 4)) @ np.random.default_rng(1).normal(size=(4, 4))
Y = np.array(["ant", "bee", "cow"])[np.arange(60) % 3]
MIXED = np.array([1, "a", False], dtype=object)[np.arange(60) % 3]

TABLE = np.column_stack([Y.astype(object), X.astype(object)])


def models():
    return {
        "transformer": VAETransformer(**SMALL).fit(X),
        "float32": VAETransformer(**SMALL).fit(X.astype(np.float32)),
        "bernoulli": VAETransformer(likelihood="bernoulli", **SMALL).fit((X > 0) * 1.0),
        "decoder": VAETransformer(noise_variance="decoder", **SMALL).fit(X),
        "labels": ConditionalVAE(**SMALL).fit(X, Y),
        "objects": ConditionalVAE(**SMALL).fit(X, condition=MIXED),
        "columns": ConditionalVAE(condition_columns=[0], **SMALL).fit(TABLE),
    }


with warnings.catch_warnings():  # fitted at collection, before any test's filters
    warnings.simplefilter("ignore")
    MODELS = models()


def rows(name):
    if name == "columns":
        return TABLE
    return (X > 0) * 1.0 if name == "bernoulli" else X


def assert_same(a, b, x):
    """Bit for bit."""
    for method in ("transform", "score_samples"):
        np.testing.assert_array_equal(getattr(a, method)(x), getattr(b, method)(x))
    np.testing.assert_array_equal(a.kl_per_component_, b.kl_per_component_)
    if isinstance(a, ConditionalVAE) and a.condition_columns is None:
        given = list(a.classes_)
        np.testing.assert_array_equal(a.sample(condition=given), b.sample(condition=given))
    np.testing.assert_array_equal(a.sample(5), b.sample(5))


def by_joblib(model, tmp_path):
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.joblib"  # never over one that is mapped
    joblib.dump(model, path)
    return joblib.load(path, mmap_mode="r")


def by_skops(model, tmp_path):
    io_ = pytest.importorskip("skops.io")
    data = io_.dumps(model)
    trusted = {"skvae._transformer.VAETransformer", "skvae._conditional.ConditionalVAE"}
    unknown = io_.get_untrusted_types(data=data)
    assert set(unknown) <= trusted
    assert len(unknown) == 1
    return io_.loads(data, trusted=unknown)


WAYS = {
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),
    "joblib": by_joblib,
    "skops": by_skops,
    "deepcopy": lambda model, _: copy.deepcopy(model),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_a_copy_gives_the_same_answers(way, name, tmp_path):
    """Every way to keep a model keeps every bit, and it can go on training."""
    model = MODELS[name]
    copied = WAYS[way](model, tmp_path)
    assert_same(model, copied, rows(name))
    again = WAYS[way](copied, tmp_path)
    assert_same(model, again, rows(name))


@pytest.mark.parametrize("way", WAYS)
def test_inside_a_pipeline(way, tmp_path):
    pipe = make_pipeline(StandardScaler(), VAETransformer(**SMALL)).fit(X)
    copied = WAYS[way](pipe, tmp_path)
    np.testing.assert_array_equal(pipe.transform(X), copied.transform(X))


@pytest.mark.parametrize("name", MODELS)
def test_clone_is_unfitted_with_the_same_parameters(name):
    copied = clone(MODELS[name])
    assert copied.get_params() == MODELS[name].get_params()
    assert not hasattr(copied, "kl_per_component_")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("warm_start", [True, False])
def test_training_goes_on_after_loading(way, warm_start, tmp_path):
    """The copy's next fit is the original's next fit: weights, moments, scales, order."""
    for estimator in (VAETransformer, ConditionalVAE):
        model = estimator(warm_start=warm_start, **SMALL).fit(X, Y)
        copied = WAYS[way](model, tmp_path)
        go_on = "fit" if warm_start else "partial_fit"
        getattr(model, go_on)(X, Y)
        getattr(copied, go_on)(X, Y)
        assert_same(model, copied, X)


def holds_torch(value):
    if type(value).__module__.split(".")[0] in ("torch", "skvae"):
        return True
    if isinstance(value, dict):
        return any(holds_torch(v) for v in value.values())
    return isinstance(value, (list, tuple, set)) and any(holds_torch(v) for v in value)


@pytest.mark.parametrize("name", MODELS)
def test_the_state_is_plain(name):
    """No torch object, nor one of skvae's, and asking changes nothing."""
    model = MODELS[name]
    before = set(vars(model))
    assert not holds_torch(model.__getstate__())
    assert b"torch" not in pickle.dumps(model)
    assert set(vars(model)) == before


@pytest.mark.parametrize("estimator", [VAETransformer, ConditionalVAE])
def test_size_does_not_grow_with_rows(estimator):
    """The same epochs on 20 times the rows: only lengths of numbers may differ."""
    small = len(pickle.dumps(estimator(**SMALL).fit(X, Y)))
    large = len(pickle.dumps(estimator(**SMALL).fit(np.tile(X, (20, 1)), np.tile(Y, 20))))
    assert abs(large - small) < 200  # X would be 38,000 bytes


def test_another_version_is_said():
    model = MODELS["transformer"]
    state = model.__getstate__()
    state["_version"] = "0.0.0.other"
    loaded = VAETransformer.__new__(VAETransformer)
    with pytest.warns(InconsistentVersionWarning, match=r"0\.0\.0\.other"):
        loaded.__setstate__(state)
    assert_same(model, loaded, X)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the fallback of a machine without a GPU")
@pytest.mark.parametrize("name", ["transformer", "labels"])
def test_a_model_from_a_gpu_loads_without_one(name):
    model = MODELS[name]
    state = {**model.__getstate__(), "device_": "cuda:0"}
    loaded = type(model).__new__(type(model))
    with pytest.warns(UserWarning, match="cuda:0.*loaded on the CPU"):
        loaded.__setstate__(state)
    assert loaded.device_ == "cpu"
    assert_same(model, loaded, X)
    loaded.partial_fit(X, Y)


def test_saving_a_model_that_was_loaded_from_a_file_object():
    stream = io.BytesIO()
    pickle.dump(MODELS["labels"], stream)
    stream.seek(0)
    assert_same(MODELS["labels"], pickle.load(stream), X)
    assert pickle.loads(pickle.dumps(VAETransformer(beta=2.0))).beta == 2.0
