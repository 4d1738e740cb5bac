"""Rows that are not there as a table of numbers: sparse, on a disk, or more than there is room for.

They train the same model, to the bit, as the same rows in an array.
"""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from skvae import ConditionalVAE, VAETransformer, _preparing, _rows, _sklearn
from skvae._codec import ColumnCodec
from skvae._rows import Chosen, SparseRows, Window, chunks, has_missing, mean_rows
from skvae.impute import VAEImputer
from skvae.model_selection import GridSearchCV

RNG = np.random.default_rng(0)
N, D = 300, 12
COUNTS = RNG.poisson(RNG.gamma(1.0, size=(N, 3)) @ RNG.gamma(0.3, size=(3, D)))
Y = COUNTS[:, 0] > COUNTS[:, 1]
SMALL = {
    "n_components": 2,
    "hidden_layer_sizes": (8,),
    "max_iter": 5,
    "batch_size": 32,
    "random_state": 0,
}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def vae(**parameters):
    return VAETransformer(**{**SMALL, **parameters})


def assert_same_model(one, other):
    """Bit for bit."""
    for name, weights in one.to_torch().state_dict().items():
        assert torch.equal(weights, other.to_torch().state_dict()[name]), name
    assert one.validation_scores_ == other.validation_scores_
    np.testing.assert_array_equal(one.kl_per_component_, other.kl_per_component_)


def mapped(X, folder, mode="r"):
    path = folder / "X.dat"
    np.asarray(X).tofile(path)
    return np.memmap(path, dtype=X.dtype, mode=mode, shape=X.shape)


# ------------------------------------------------------------------ tables


def of_csr(X):
    return SparseRows(*map(torch.from_numpy, (X.indptr, X.indices, X.data)), X.shape[1])


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_sparse_rows_are_the_dense_ones(density):
    """Empty rows, any order, and rows asked for twice."""
    X = sparse.random_array((20, 7), density=density, format="csr", rng=RNG)
    rows, dense = of_csr(X), torch.from_numpy(X.toarray())
    assert rows.shape == dense.shape
    assert torch.equal(rows[3:9], dense[3:9])
    assert torch.equal(rows[30:], dense[30:])
    which = torch.tensor([5, 0, 19, 5])
    assert torch.equal(rows.index_select(0, which), dense[which])
    assert torch.equal(torch.cat(list(chunks(rows))), dense)
    assert torch.equal(Chosen(rows, which)[1:], dense[which][1:])
    assert torch.equal(Chosen(rows, which).index_select(0, torch.tensor([2, 2])), dense[[19, 19]])


def test_cells_named_twice_are_summed():
    """As scipy has it for sparse rows that are not canonical."""
    X = sparse.csr_array(([1.0, 2.0, 5.0], [1, 1, 0], [0, 2, 3]), shape=(2, 3))
    np.testing.assert_array_equal(of_csr(X)[:], X.toarray())


def test_chunks_hold_so_many_numbers(monkeypatch):
    monkeypatch.setitem(_rows._CHUNK_NUMBERS, "cpu", 30)
    x = torch.arange(70.0).view(10, 7)
    assert [len(rows) for rows in chunks(x)] == [4, 4, 2]
    x[9, 6] = torch.nan
    assert has_missing(x)
    assert not has_missing(x[:9])
    means = mean_rows(x, lambda rows: (rows.nan_to_num(), (~rows.isnan()).float()))
    torch.testing.assert_close(means, x.double().nanmean(0))


def test_moments_are_those_of_all_chunks(monkeypatch):
    """Chan's: a column far from zero, one whose first chunk is missing, one with an outlier."""
    x = torch.from_numpy(RNG.normal(size=(50, 3)))
    x[:, 0] += 1e9
    x[:7, 1] = torch.nan
    x[40, 2] = 1e8
    expected = ColumnCodec.of(x, ["gaussian"] * 3)
    monkeypatch.setitem(_rows._CHUNK_NUMBERS, "cpu", 21)
    found = ColumnCodec.of(x, ["gaussian"] * 3)
    torch.testing.assert_close(found.shift, expected.shift, rtol=1e-14, atol=0)
    torch.testing.assert_close(found.scale, expected.scale, rtol=1e-8, atol=0)
    np.testing.assert_allclose(found.shift, np.nanmean(x, 0), rtol=1e-12)
    np.testing.assert_allclose(found.scale, np.nanstd(x, 0), rtol=1e-8)


@pytest.mark.parametrize("n_numbers", [1, 60, 10_000])
def test_a_window_has_the_rows_of_every_step(monkeypatch, n_numbers):
    monkeypatch.setattr(_rows, "_WINDOW_NUMBERS", n_numbers)
    table = torch.from_numpy(COUNTS)
    asked = torch.randint(N, (5, 2, 3))
    window, whole = Window(Chosen(table, torch.arange(N)), asked), Window(table, asked)
    for _ in range(2):
        for step in range(5):
            window.show(step)
            places = window.places(torch.tensor([step]), asked[step])
            assert torch.equal(window.table[places], table[asked[step]])
            rows = asked[step]
            assert whole.places(torch.tensor([step]), rows) is rows
            assert whole.table is table
        asked.copy_(torch.randint(N, (5, 2, 3)))
        window.renew()


# ------------------------------------------------------------------ estimators

KINDS = {
    "gaussian": {},
    "gaussian, random": {"init": "random"},
    "poisson": {"likelihood": "poisson"},
    "negative_binomial": {"likelihood": "negative_binomial"},
    "bernoulli": {"likelihood": "bernoulli"},
    "two starts": {"n_init": 2, "dropout": 0.1},
    "weighted": {"n_importance_samples": 3},
    "wide": {"hidden_layer_sizes": (8, 4), "early_stopping": False},
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8])
@pytest.mark.parametrize("format", [sparse.csr_array, sparse.csr_matrix, sparse.coo_array])
def test_sparse_x_of_any_kind(dtype, format):
    X = COUNTS.astype(dtype)
    dense = vae(likelihood="poisson").fit(X)
    found = vae(likelihood="poisson").fit(format(X))
    assert_same_model(found, dense)
    Z = found.transform(format(X))
    np.testing.assert_array_equal(Z, dense.transform(X))
    assert Z.dtype == dense.transform(X).dtype
    np.testing.assert_array_equal(found.score_samples(format(X)), dense.score_samples(X))
    assert found.score(format(X)) == dense.score(X)
    assert found.sample(3).dtype == dense.sample(3).dtype


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_numbers", [100, 2**22])
def test_sparse_and_mapped_x_train_the_same_model(kind, n_numbers, tmp_path, monkeypatch):
    monkeypatch.setattr(_rows, "_WINDOW_NUMBERS", n_numbers)
    X = COUNTS.astype(float) if kind != "bernoulli" else np.minimum(COUNTS, 1.0)
    expected = vae(**KINDS[kind]).fit(X)
    assert_same_model(vae(**KINDS[kind]).fit(sparse.csr_array(X)), expected)
    assert_same_model(vae(**KINDS[kind]).fit(mapped(X, tmp_path)), expected)


def test_x_that_does_not_fit_is_taken_row_by_row(monkeypatch):
    X = COUNTS.astype(float)
    X[0, 0] = np.nan
    expected = vae().fit(X)
    is_asked = []
    monkeypatch.setattr(_preparing, "fits", lambda rows: is_asked.append(rows.shape))
    assert_same_model(vae().fit(X), expected)
    assert is_asked == [(N, 2 * D)]  # with the mask


def test_the_answers_of_all_methods():
    X = COUNTS.astype(float)
    rows, model = sparse.csr_array(X), vae().fit(X)
    for method in ("transform", "posterior", "score_samples", "elbo", "effective_sample_size"):
        np.testing.assert_array_equal(getattr(model, method)(rows), getattr(model, method)(X))
    assert model.marginal_kl(rows) == model.marginal_kl(X)
    for method in (model.impute, model.sample_missing):
        with pytest.raises(TypeError, match="parse"):
            method(rows)
    with pytest.raises(TypeError, match="parse"):
        VAEImputer(vae()).fit(rows)


def test_partial_fit_and_warm_start():
    X = COUNTS.astype(float)
    one, other = vae(warm_start=True), vae(warm_start=True)
    for _ in range(2):
        assert_same_model(one.fit(sparse.csr_array(X)), other.fit(X))
        assert_same_model(one.partial_fit(sparse.csr_array(X)), other.partial_fit(X))


def test_a_condition_beside_sparse_x():
    X = COUNTS.astype(float)
    model = ConditionalVAE(**SMALL)
    found = model.fit(sparse.csr_array(X), Y).transform(sparse.csr_array(X))
    np.testing.assert_array_equal(found, ConditionalVAE(**SMALL).fit(X, Y).transform(X))
    np.testing.assert_array_equal(
        model.condition_proba(sparse.csr_array(X)), model.condition_proba(X)
    )
    assert model.score(sparse.csr_array(X), Y) == model.score(X, Y)


def test_a_search_over_sparse_x():
    grid = {"vaetransformer__n_components": [1, 2], "vaetransformer__beta": [0.5, 1.0]}
    pipe = make_pipeline(vae(likelihood="poisson"), PCA(1))
    found = GridSearchCV(pipe, grid, cv=2).fit(sparse.csr_array(COUNTS))
    expected = GridSearchCV(pipe, grid, cv=2).fit(COUNTS)
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(found.cv_results_[name], expected.cv_results_[name])


def test_what_sparse_x_cannot_be():
    rows = sparse.csr_array(COUNTS.astype(float))
    for likelihood in ("auto", {"poisson": [0], "remainder": "gaussian"}):
        with pytest.raises(TypeError, match=r"X is sparse.*toarray"):
            vae(likelihood=likelihood).fit(rows)
    with pytest.raises(TypeError, match=r"X is sparse.*condition="):
        ConditionalVAE(condition_columns=[0], **SMALL).fit(rows)
    frame = pd.DataFrame.sparse.from_spmatrix(rows).add_prefix("x")  # which is read as CSR
    with pytest.raises(TypeError, match="Sparse data was passed for X, but dense"):
        ConditionalVAE(condition_columns=["x0"], **SMALL).fit(frame)
    for value, name in ((np.nan, "NaN"), (np.inf, "infinity")):
        broken = rows.copy()
        broken.data[3] = value
        with pytest.raises(ValueError, match=name):
            vae().fit(broken)
    model = vae(likelihood="poisson").fit(rows)
    broken = rows.copy()
    broken.data[:] -= 0.5
    with pytest.raises(ValueError, match=r"likelihood='poisson' needs values in.*X\[0, "):
        model.transform(broken)
    with pytest.raises(ValueError, match=f"{D - 1} features"):
        model.transform(rows[:, 1:])


def test_arrays_that_must_not_be_written_to_are_not_copied(tmp_path):
    """Nor does torch warn of them."""
    X = mapped(COUNTS.astype(np.float32), tmp_path)
    frozen = np.array(X)
    frozen.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for table in (X, frozen, X[10:200]):
            tensor = _sklearn.to_tensor(table)
            assert tensor.data_ptr() == table.__array_interface__["data"][0]
            np.testing.assert_array_equal(tensor, table)
    assert _sklearn.is_mapped(X[10:200].T)
    assert _sklearn.is_mapped(np.asarray(X))
    assert not _sklearn.is_mapped(frozen)
    assert not _sklearn.is_mapped(X[[1, 2]])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("n_numbers", [1000, 2**22])
def test_on_cuda_rows_that_stay_on_the_host_train_the_same_model(n_numbers, monkeypatch):
    """By the same captured step, from a window that is filled between its replays."""
    monkeypatch.setattr(_rows, "_WINDOW_NUMBERS", n_numbers)
    X = COUNTS.astype(np.float32)
    for kind in ("gaussian", "poisson"):
        expected = vae(device="cuda", **KINDS[kind]).fit(X)
        found = vae(device="cuda", **KINDS[kind]).fit(sparse.csr_array(X))
        assert_same_model(found, expected)
        # In other batches: to rounding.
        np.testing.assert_allclose(
            found.transform(sparse.csr_array(X)), expected.transform(X), atol=1e-4
        )
