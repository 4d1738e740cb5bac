"""What is kept is plain: numpy on the CPU, no torch object, no rows of X."""

import copy
import io
import os
import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvae import ConditionalVAE, VAETransformer
from skvae._state import checksum
from skvae.impute import VAEImputer

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"n_components": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}
X = np.random.default_rng(0).normal(size=(60, 4)) @ np.random.default_rng(1).normal(size=(4, 4))
Y = np.array(["ant", "bee", "cow"])[np.arange(60) % 3]
MIXED = np.array([1, "a", False], dtype=object)[np.arange(60) % 3]

TABLE = np.column_stack([Y.astype(object), X.astype(object)])
HOLES = np.where(np.random.default_rng(2).random(X.shape) < 0.2, np.nan, X)


def models():
    return {
        "transformer": VAETransformer(**SMALL).fit(X),
        "float32": VAETransformer(**SMALL).fit(X.astype(np.float32)),
        "bernoulli": VAETransformer(likelihood="bernoulli", **SMALL).fit((X > 0) * 1.0),
        "decoder": VAETransformer(noise_variance="decoder", **SMALL).fit(X),
        "device": VAETransformer(device=torch.device("cpu"), **SMALL).fit(X),
        "labels": ConditionalVAE(**SMALL).fit(X, Y),
        "objects": ConditionalVAE(**SMALL).fit(X, condition=MIXED),
        "columns": ConditionalVAE(condition_columns=[0], **SMALL).fit(TABLE),
        "numbers": ConditionalVAE(**SMALL).fit(X, np.arange(60) % 3),
        "holes": VAETransformer(likelihood="auto", **SMALL).fit(HOLES),
    }


with warnings.catch_warnings():  # fitted at collection, before any test's filters
    warnings.simplefilter("ignore")
    MODELS = models()
    IMPUTER = VAEImputer(VAETransformer(**SMALL), n_draws=8, add_indicator=True).fit(HOLES)


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


def resealed(state, **changes):
    """What a version of skvae would have written whose state was this."""
    state = {**state, **changes}
    state.pop("_checksum")
    return {**state, "_checksum": checksum(state)}


def loaded(cls, state):
    model = cls.__new__(cls)
    model.__setstate__(state)
    return model


@pytest.mark.parametrize("version", ["0.0.0.other", "0.9.1"])
def test_another_version_is_said(version):
    model = MODELS["transformer"]
    with pytest.warns(InconsistentVersionWarning, match=version):
        other = loaded(VAETransformer, resealed(model.__getstate__(), _version=version))
    assert_same(model, other, X)
    with warnings.catch_warnings():  # what is saved again is of this version
        warnings.simplefilter("error")
        pickle.loads(pickle.dumps(other))


def test_a_parameter_of_a_later_version_is_the_default():
    state = MODELS["transformer"].__getstate__()
    del state["handle_unknown"]
    with pytest.warns(InconsistentVersionWarning):
        other = loaded(VAETransformer, resealed(state, _version="0.0.1"))
    assert_same(MODELS["transformer"], other, X)
    assert other.get_params() == MODELS["transformer"].get_params()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the fallback of a machine without a GPU")
@pytest.mark.parametrize("name", ["transformer", "labels"])
def test_a_model_from_a_gpu_loads_without_one(name):
    model = MODELS[name]
    with pytest.warns(UserWarning, match="cuda:0.*loaded on the CPU"):
        other = loaded(type(model), resealed(model.__getstate__(), device_="cuda:0"))
    assert other.device_ == "cpu"
    assert_same(model, other, X)
    other.partial_fit(X, Y)


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, GPU])])
def test_another_process_without_a_gpu_gives_the_same_answers(device, tmp_path):
    model = VAETransformer(device=device, **SMALL).fit(X)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "X.npy", X)
    code = (
        "import pickle, sys; from pathlib import Path; import numpy as np\n"
        "folder = Path(sys.argv[1])\n"
        "model = pickle.loads((folder / 'model.pickle').read_bytes())\n"
        "assert model.device_ == 'cpu'\n"
        "np.save(folder / 'Z.npy', model.transform(np.load(folder / 'X.npy')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert ("loaded on the CPU" in done.stderr) == (device == "cuda")
    # In double, summed in another order.
    np.testing.assert_allclose(np.load(tmp_path / "Z.npy"), model.transform(X), atol=1e-9)


def test_saving_a_model_that_was_loaded_from_a_file_object():
    stream = io.BytesIO()
    pickle.dump(MODELS["labels"], stream)
    stream.seek(0)
    assert_same(MODELS["labels"], pickle.load(stream), X)
    assert pickle.loads(pickle.dumps(VAETransformer(beta=2.0))).beta == 2.0


# ------------------------------------------------------------- damaged and foreign files


def to_joblib(model):
    stream = io.BytesIO()
    joblib.dump(model, stream)
    return stream.getvalue()


def by_skops_of(data):
    io_ = pytest.importorskip("skops.io")
    return io_.loads(data, trusted=io_.get_untrusted_types(data=data))


#: Each way to write bytes, and to read them. Of pickle what is written in Python: a byte may
#: become the opcode at which the other one asks for all the memory there is.
FILES = {
    "pickle": (pickle.dumps, pickle._loads),
    "joblib": (to_joblib, lambda data: joblib.load(io.BytesIO(data))),
    "skops": (lambda model: pytest.importorskip("skops.io").dumps(model), by_skops_of),
}
KEPT = {
    "float32": MODELS["float32"],
    "columns": MODELS["columns"],
    "imputer": IMPUTER,
    "unfitted": VAETransformer(beta=2.0, hidden_layer_sizes=(3, 4), likelihood="student_t"),
}


def answers(name, model):
    """What a user gets of it, and all that is shown."""
    shown = [repr(model), sorted(vars(model))]
    if name == "unfitted":
        return shown
    if name == "imputer":
        return [*shown, model.transform(HOLES).tobytes(), model.get_feature_names_out().tolist()]
    x = rows(name)
    arrays = [model.transform(x), model.score_samples(x), model.sample(3, random_state=1)]
    arrays += [model.kl_per_component_, model.noise_variance_]
    text = [str(array.tolist()) for array in arrays]
    return [*shown, *text, model.n_iter_, model.loss_curve_, model.device_]


def outcome(name, read, data):
    """The answers of what is read; None if there was an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning is not enough
        try:
            return answers(name, read(data))
        except Exception:
            return None


@pytest.mark.parametrize("way", FILES)
@pytest.mark.parametrize("name", KEPT)
def test_a_flipped_byte_is_an_error_or_nothing(name, way):
    """At places all over the file: never another model."""
    write, read = FILES[way]
    data = write(KEPT[name])
    expected = outcome(name, read, data)
    assert expected is not None
    random = np.random.default_rng(0)
    n_errors = 0
    for place in random.permutation(len(data))[:250]:
        flipped = bytearray(data)
        flipped[place] ^= 1 << random.integers(8)
        found = outcome(name, read, bytes(flipped))
        assert found in (None, expected), place
        n_errors += found is None
    assert n_errors > 100


def test_the_indicator_of_an_imputer_is_sealed():
    """It is scikit-learn's, and decides which columns are added."""
    state = IMPUTER.__getstate__()
    VAEImputer().__setstate__(state)
    other = copy.deepcopy(state["indicator_"])
    other.features_ = other.features_[::-1].copy()
    with pytest.raises(ValueError, match="The file is damaged"):
        VAEImputer().__setstate__({**state, "indicator_": other})


@pytest.mark.parametrize("way", FILES)
@pytest.mark.parametrize("name", KEPT)
def test_a_file_that_was_cut_short_is_an_error(name, way):
    write, read = FILES[way]
    data = write(KEPT[name])
    for length in np.linspace(0, len(data) - 1, 40).astype(int):
        assert outcome(name, read, data[:length]) is None, length


@pytest.mark.parametrize("name", ["weights", "optimizer", "columns", "conditions"])
def test_a_number_that_has_changed_is_said(name):
    """The message tells what to do; the smallest change counts."""
    state = copy.deepcopy(MODELS["labels"].__getstate__())
    part = state["_fitted"][name]
    array = {
        "weights": lambda: part["encoder.linear.bias"],
        "optimizer": lambda: part["second"]["encoder.linear.bias"],
        "columns": lambda: part["shift"],
        "conditions": lambda: part["log_prior"],
    }[name]()
    array.flat[0] = np.nextafter(array.flat[0], array.dtype.type(np.inf))
    with pytest.raises(ValueError, match=r"ConditionalVAE cannot be loaded: its checksum.*copy"):
        loaded(ConditionalVAE, state)


def test_what_skvae_did_not_write_is_refused():
    """States of other classes and libraries, and of versions that are not known yet."""
    state = MODELS["transformer"].__getstate__()
    pca = PCA(2).fit(X).__getstate__()
    for foreign in (None, {}, pca, 3, {**pca, "_version": "1", "_class": "VAETransformer"}):
        with pytest.raises(ValueError, match="cannot be loaded: it has no checksum"):
            loaded(VAETransformer, foreign)
    with pytest.raises(ValueError, match="it is that of a VAETransformer"):
        loaded(ConditionalVAE, state)
    with pytest.raises(ValueError, match="it is that of a ConditionalVAE"):
        loaded(VAETransformer, MODELS["labels"].__getstate__())
    with pytest.raises(ValueError, match=r"saved by skvae 1000\.2.*Install skvae 1000\.2 or newer"):
        loaded(VAETransformer, {**state, "_version": "1000.2"})
    with pytest.raises(ValueError, match="its checksum does not match"):
        loaded(VAETransformer, {**state, "_version": "0.0.1"})


def leaves(value, path=()):
    """The places in nested dicts and lists, containers included."""
    if path:
        yield path
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    else:
        return
    for key, each in pairs:
        yield from leaves(each, (*path, key))


def replaced(value, path, other):
    """A copy with something else at this place; ``other`` is a function of what was there."""
    if not path:
        return other(value)
    key, *rest = path
    if isinstance(value, dict):
        return {k: replaced(v, rest, other) if k == key else v for k, v in value.items()}
    return type(value)(replaced(v, rest, other) if i == key else v for i, v in enumerate(value))


def not_finite(value):
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
        value = value.copy()
        value.flat[-1] = np.nan
        return value
    return np.nan


def negative(value):
    is_number = isinstance(value, np.ndarray) and value.dtype.kind in "if"
    return -value if is_number else -1


def half(value):
    is_float = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return value.astype(np.float16) if is_float else 1.5


LIES = {
    "none": lambda value: None,
    "text": lambda value: "x",
    "negative": negative,
    "huge": lambda value: 10**30,
    "empty": lambda value: value[:0] if isinstance(value, np.ndarray | list | tuple) else [],
    "dtype": half,
    "shape": lambda value: value[None] if isinstance(value, np.ndarray) else [value],
    "nan": not_finite,
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("name", ["columns", "labels", "holes"])
def test_a_state_that_lies_is_refused(name, lie):
    """Whatever is put in whatever place, with a checksum that is right.

    A ValueError, or a model that works: answers of the right shape, all of them finite.
    """
    model = MODELS[name]
    state, x = model.__getstate__(), rows(name)
    n_refused = 0
    for path in leaves(state["_fitted"], ("_fitted",)):
        lying = resealed(replaced(state, path, LIES[lie]))
        try:
            found = loaded(type(model), lying)
        except ValueError as error:
            assert "cannot be loaded" in str(error)  # noqa: PT017
            n_refused += 1
            continue
        assert np.isfinite(found.transform(x)).all(), path
        assert found.sample(3).shape == (3, x.shape[1]), path
        assert np.isfinite(found.score_samples(x)).all(), path
        found.partial_fit(x, Y if name == "labels" else None)
    assert n_refused > 40


@pytest.mark.parametrize(
    "changes",
    [{"kl_per_component_": np.zeros(5)}, {"_n_features_out": 3}, {"n_features_in_": 9},
     {"noise_variance_": np.zeros(2)}, {"device_": "gpu"}, {"device_": None},
     {"feature_names_in_": np.array(["a"], object)}, {"_fitted": None}, {"_fitted": {}}],
    ids=str,
)  # fmt: skip
def test_attributes_that_lie_are_refused(changes):
    state = resealed(MODELS["transformer"].__getstate__(), **changes)
    with pytest.raises(ValueError, match="cannot be loaded"):
        loaded(VAETransformer, state)


def test_a_network_for_other_columns_is_refused():
    """Of the same sizes, with another likelihood."""
    state = MODELS["transformer"].__getstate__()
    lying = replaced(state, ("_fitted", "architecture", "likelihood"), lambda _: "lognormal")
    with pytest.raises(ValueError, match="its columns are not those of its network"):
        loaded(VAETransformer, resealed(lying))


def test_what_the_checksum_covers():
    """Every value of a state tells, and no two parts can be taken for one."""
    values = [
        None, True, 1, 1.0, "1", b"1", "", [], (), {}, [""], ["", ""], ["ab"], ["a", "b"], -1.0,
        np.nan, (1, 2), [1, 2], [[1], 2], [1, [2]], [[1, 2]], {"a": 1}, {"a": 2}, {"b": 1},
        slice(1), slice(2),
        np.float32(1), np.zeros(2), np.zeros((2, 1)), np.zeros((1, 2)), np.zeros(2, np.float32),
        np.zeros(2, np.int32), np.zeros(0), np.array(["a", "b"]), np.array(["a", "b"], object),
        np.array(["b", "a"], object), np.array([True]), np.array([False]),
        np.random.RandomState(0), np.random.RandomState(1), range(3),
    ]  # fmt: skip
    sums = [checksum(value) for value in values]
    assert len(set(sums)) == len(values)
    assert sums == [checksum(copy.deepcopy(value)) for value in values]
    big = np.arange(4.0).reshape(2, 2).T
    assert checksum(big) == checksum(big.astype(">f8")) == checksum(np.ascontiguousarray(big))


def test_a_file_may_go_once_it_is_read(tmp_path):
    """Nothing hangs on a memory map, labels of numbers and numbers of a table included."""
    for model in (MODELS["numbers"], MODELS["columns"], MODELS["holes"]):
        path = tmp_path / "model.joblib"
        joblib.dump(model, path)
        read = joblib.load(path, mmap_mode="r")
        path.write_bytes(bytes(path.stat().st_size))
        assert not has_memmap(vars(read)), model
        assert_same(model, read, rows("columns") if model is MODELS["columns"] else X)


def has_memmap(value):
    if isinstance(value, dict):
        value = list(value.values())
    if hasattr(value, "__dataclass_fields__"):
        value = list(vars(value).values())
    if isinstance(value, list | tuple):
        return any(has_memmap(each) for each in value)
    return isinstance(value, np.memmap) or isinstance(getattr(value, "base", None), np.memmap)
