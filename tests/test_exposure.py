"""Counts relative to the total of their row: documents of any length, cells of any depth."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse, stats
from sklearn.base import clone

from skvae import ConditionalVAE, VAETransformer
from skvae._vae import VAE, Architecture
from skvae.model_selection import GridSearchCV

RNG = np.random.default_rng(0)
N, D = 400, 20
TOPICS = RNG.dirichlet(np.full(D, 0.2), size=3)
SHARES = RNG.dirichlet(np.full(3, 0.3), size=N)
LENGTHS = np.exp(RNG.normal(4, 1, size=N)).astype(int) + 1
X = np.stack([RNG.multinomial(n, p) for n, p in zip(LENGTHS, SHARES @ TOPICS, strict=True)])
SMALL = {
    "n_components": 2,
    "hidden_layer_sizes": (16,),
    "likelihood": "poisson",
    "exposure": "total",
    "random_state": 0,
}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def model():
    return VAETransformer(**SMALL).fit(X)


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_the_density_is_scipys_at_the_rows_own_rate(likelihood):
    """With the decoder's mean m at exposure 1: that of a count of mean exposure * m."""
    a = Architecture(4, 2, likelihood=likelihood, has_exposure=True, hidden_layer_sizes=(3,))
    vae = VAE(a).randomise(torch.Generator().manual_seed(0), torch.tensor([1.0, 2, 3, 4])).double()
    counts, exposure = torch.tensor([[3.0, 0, 1, 7], [1, 1, 0, 2]]), torch.tensor([[2.0], [0.1]])
    counts, exposure = counts.double(), exposure.double()
    x = torch.cat((counts, torch.zeros(2, 4), exposure.log()), 1)[None].double()
    noise = torch.randn(5, 1, 2, 2, dtype=torch.float64)
    c = x[..., :0]
    terms = vae.terms(x, c, noise)
    plain = vae.decode(terms.z, c)
    mean = (plain.mean[:, 0] * exposure).detach().numpy()
    if likelihood == "poisson":
        cells = stats.poisson.logpmf(counts, mean)
    else:
        r = ((plain.mean.square() / (plain.variance - plain.mean))[:, 0]).detach().numpy()
        cells = stats.nbinom.logpmf(counts, r, r / (r + mean))
    np.testing.assert_allclose(terms.log_px[:, 0].detach(), cells.sum(-1), rtol=1e-10)


@pytest.mark.parametrize("exposure", [None, "total"])
def test_words_of_single_documents_are_no_outliers(exposure):
    """Rows not trained on have words that no row had: nothing is known of them, nor claimed."""
    rng = np.random.default_rng(0)
    topics = 3 * rng.gamma(0.3, 1, (3, 40))
    common = rng.poisson(topics[rng.integers(0, 3, size=600)])
    rare = rng.random((600, 3000)) < 1.5 / 600
    model = VAETransformer(**(SMALL | {"exposure": exposure}), init="random", max_iter=20)
    model.fit(np.concatenate((common, rare), 1).astype(float))
    assert min(model.validation_scores_) > model.best_validation_score_ - 30
    assert model.kl_per_component_.min() > 0.1


def test_a_row_of_twice_the_counts_has_the_same_features(model):
    np.testing.assert_allclose(model.transform(2 * X), model.transform(X), atol=1e-10)


def test_features_do_not_tell_the_length(model):
    """Without exposure the first of them does."""

    def correlation(model):
        Z = model.transform(X)
        return max(abs(np.corrcoef(z, np.log(LENGTHS))[0, 1]) for z in Z.T)

    assert correlation(model) < 0.3
    # Few epochs serve: it tells from the first on.
    assert correlation(clone(model).set_params(exposure=None, max_iter=30).fit(X)) > 0.8


def test_the_score_is_of_the_counts_given_their_total(model):
    """Better than a model of the same shares for every row, by scipy's multinomial."""
    total = X.sum(1)
    one = stats.poisson.logpmf(X, total[:, None] * X.sum(0) / X.sum()).sum(1).mean()
    assert model.score(X) > one + 10
    # And no better than the shares the rows were drawn with, but for what was learned of them.
    truth = stats.poisson.logpmf(X, total[:, None] * SHARES @ TOPICS).sum(1).mean()
    assert model.score(X) < truth + 2


def test_means_are_at_the_mean_total_and_draws_at_those_that_were_there(model):
    mean = model.inverse_transform(model.transform(X))
    # The shares are learned, and need not quite sum to one.
    assert np.median(mean.sum(1)) == pytest.approx(LENGTHS.mean(), rel=0.1)
    drawn = model.sample(20_000)
    assert (drawn == np.rint(drawn)).all()
    totals = np.log(drawn.sum(1) + 1)
    assert totals.mean() == pytest.approx(np.log(LENGTHS + 1).mean(), abs=0.15)
    assert totals.std() == pytest.approx(np.log(LENGTHS + 1).std(), rel=0.15)
    again = model.inverse_transform(np.zeros((20_000, 2)), mean=False)
    assert np.log(again.sum(1) + 1).std() == pytest.approx(np.log(LENGTHS + 1).std(), rel=0.15)


def test_a_row_without_counts(model):
    """Nothing is expected of it: its probability is one."""
    empty = np.zeros((1, D))
    assert model.score_samples(empty)[0] == pytest.approx(0, abs=1e-2)
    assert np.isfinite(model.transform(empty)).all()
    VAETransformer(**SMALL, max_iter=3).fit(np.vstack([X[:50], empty]))


def test_it_is_kept_and_searched_and_sparse(model):
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))
    np.testing.assert_array_equal(again.sample(5, random_state=0), model.sample(5, random_state=0))
    rows = sparse.csr_array(X.astype(np.uint8) if X.max() < 256 else X)
    np.testing.assert_array_equal(
        clone(model).set_params(max_iter=3).fit(rows).transform(rows),
        clone(model).set_params(max_iter=3).fit(X).transform(X),
    )
    grid = {"exposure": [None, "total"], "n_components": [1, 2]}
    search = GridSearchCV(clone(model).set_params(max_iter=3), grid, cv=2).fit(rows)
    assert search.best_params_["exposure"] == "total"


@pytest.mark.parametrize("noise", ["feature", "shared", "decoder"])
def test_columns_of_other_kinds_beside_counts(noise):
    """They take no part in the total, and may be missing."""
    table = pd.DataFrame(X[:, :5], columns=list("abcde")).astype(int)
    table["length"] = np.log(LENGTHS)
    table["topic"] = pd.Categorical(SHARES.argmax(1))
    table.loc[3, "length"] = np.nan
    table = table[["length", "a", "b", "topic", "c", "d", "e"]]
    likelihood = {"negative_binomial": list("abcde"), "remainder": "auto"}
    names = {**SMALL, "likelihood": likelihood, "noise_variance": noise, "max_iter": 20}
    model = VAETransformer(**names).fit(table)
    assert np.isfinite(model.score_samples(table)).all()
    doubled = table.assign(**{name: 2 * table[name] for name in "abcde"})
    np.testing.assert_allclose(model.transform(doubled), model.transform(table), atol=1e-10)
    completed = model.impute(table)
    assert np.isfinite(completed["length"]).all()
    np.testing.assert_array_equal(completed[list("abcde")], table[list("abcde")])
    assert all(dtype.kind == "i" for dtype in model.sample(50)[list("abcde")].dtypes)
    table.loc[7, "b"] = np.nan
    says = r"X\[7, 2\] \(column 'b'\) is missing, and exposure='total' needs all counts"
    for call in (model.transform, clone(model).fit):
        with pytest.raises(ValueError, match=says):
            call(table)


def test_a_condition_beside_it():
    topic = SHARES.argmax(1)
    model = ConditionalVAE(**SMALL, max_iter=30).fit(X, topic)
    mean = model.inverse_transform(np.zeros((3, 2)), condition=[0, 1, 2])
    found = np.corrcoef(mean, TOPICS)[:3, 3:].argmax(1)
    np.testing.assert_array_equal(found, [0, 1, 2])


def test_it_is_of_counts():
    with pytest.raises(ValueError, match=r"exposure='total' needs counts.*likelihood='poisson'"):
        VAETransformer(exposure="total").fit(X)
    with pytest.raises(ValueError, match="'exposure' parameter"):
        VAETransformer(exposure="length", likelihood="poisson").fit(X)
    model = VAETransformer(**SMALL, max_iter=2, warm_start=True).fit(X)
    with pytest.raises(ValueError, match="exposure was 'total' and is None"):
        model.set_params(exposure=None).fit(X)
