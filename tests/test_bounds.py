"""Bounds are ordered (law 3), and their gradients are those of what they bound."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from torch.distributions import Normal, kl_divergence

from skvae._bounds import (
    ELBO,
    IMPORTANCE_WEIGHTED,
    Terms,
    elbo,
    gaussian_kl,
    importance_weighted,
    log_mean_exp,
)
from skvae._linear_start import LinearModel
from skvae._vae import VAE, Architecture


def normals(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_terms(S=4, K=2, B=3, Z=5):
    loc, log_scale = normals(K, B, Z, seed=1), normals(K, B, Z, seed=2)
    z = loc + log_scale.exp() * normals(S, K, B, Z, seed=3)
    return Terms(normals(S, K, B, seed=4), z, loc, log_scale)


def part_of(terms, k):
    """The k-th model's."""
    return Terms(terms.log_px[:, k : k + 1], terms.z[:, k : k + 1], terms.loc[k : k + 1],
                 terms.log_scale[k : k + 1])  # fmt: skip


def test_kl_is_torchs():
    loc, log_scale = normals(3, 4, 5), normals(3, 4, 5, seed=1)
    q = Normal(loc, log_scale.exp(), validate_args=False)
    expected = kl_divergence(q, Normal(0.0, 1.0))
    # Closed forms on both sides; only rounding differs.
    torch.testing.assert_close(gaussian_kl(loc, log_scale), expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(random_terms().kl.shape, torch.Size((2, 3, 5)))


def test_a_component_at_its_prior_costs_exactly_nothing():
    zero = torch.zeros(1, 1, 1)
    assert gaussian_kl(zero, zero).item() == 0
    assert Terms(zero[0], normals(1, 1, 1, 1), zero, zero).log_ratio.item() == 0


def test_log_ratio_is_torchs():
    terms = random_terms()
    q = Normal(terms.loc, terms.log_scale.exp(), validate_args=False)
    expected = (q.log_prob(terms.z) - Normal(0.0, 1.0).log_prob(terms.z)).sum(-1)
    # Sums of five terms of size about 10; only rounding differs.
    torch.testing.assert_close(terms.log_ratio, expected, rtol=1e-12, atol=1e-12)


def test_log_mean_exp_survives_large_weights():
    log_w = torch.tensor([[1e3, -1e3], [1e3, -1e3]])
    torch.testing.assert_close(log_mean_exp(log_w), log_w[0], rtol=0, atol=1e-4)  # float32 of 1e3


@pytest.mark.parametrize("bound", [elbo, importance_weighted])
def test_beta_is_of_each_model(bound):
    terms, beta = random_terms(), torch.tensor([0.5, 2.0], dtype=torch.float64)
    together = bound(terms, beta)
    for k in range(2):
        alone = bound(part_of(terms, k), beta[k : k + 1])[0]
        torch.testing.assert_close(alone, together[k], rtol=0, atol=0)


class Tiny:
    """A model whose every row is the same row of data, with draws and a q of its own."""

    def __init__(self, n_draws, beta, n_replicates=40_000):
        loc = torch.tensor([0.4, -0.7], dtype=torch.float64)
        log_scale = torch.tensor([-0.3, 0.2], dtype=torch.float64)
        self.loc = loc.repeat(1, n_replicates, 1).requires_grad_()
        self.log_scale = log_scale.repeat(1, n_replicates, 1).requires_grad_()
        weight = torch.tensor([[0.8, -0.5, 0.3], [0.2, 0.9, -0.6]], dtype=torch.float64)
        self.weight = weight.requires_grad_()
        self.beta = torch.tensor([beta], dtype=torch.float64)
        noise = normals(n_draws, 1, n_replicates, 2, seed=7)
        self.z = self.loc + self.log_scale.exp() * noise
        x = torch.tensor([0.5, 1.0, -0.8], dtype=torch.float64)
        self.log_px = Normal(torch.tanh(self.z @ self.weight), 0.7).log_prob(x).sum(-1)

    @property
    def terms(self):
        return Terms(self.log_px, self.z, self.loc, self.log_scale)

    def by_autograd(self, bound):
        """The bound, its gradients in q of every row, (N, Z), and in the decoder's weights."""
        value = bound(self.terms, self.beta)
        leaves = self.loc, self.log_scale, self.weight
        return value.detach(), *torch.autograd.grad(value.sum(), leaves, retain_graph=True)

    def by_hand(self, bound):
        """Value and gradients of a bound that gives those in q: autograd for the decoder alone."""
        of_weight = []

        def decoder(weights):
            of_z, found = torch.autograd.grad(
                self.log_px, (self.z, self.weight), weights, retain_graph=True
            )
            of_weight.append(found)
            return of_z

        terms = Terms(*(t.detach() for t in (self.log_px, self.z, self.loc, self.log_scale)))
        of_q = bound.gradients(terms, self.beta, decoder)
        n_rows = self.loc.shape[1]  # theirs are of the mean over rows
        return bound.value(terms, self.beta), *(n_rows * g for g in (*of_q, *of_weight))


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("n_draws", [1, 4])
def test_gradients_of_the_elbo_are_autograds(n_draws, beta):
    tiny = Tiny(n_draws, beta, 50)
    for ours, theirs in zip(tiny.by_hand(ELBO), tiny.by_autograd(elbo), strict=True):
        # Closed forms on both sides; only rounding differs.
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def plain_importance_weighted(terms, beta):
    """By the textbook: torch's densities, and the gradient that autograd finds."""
    q = Normal(terms.loc, terms.log_scale.exp())
    ratio = (q.log_prob(terms.z) - Normal(0.0, 1.0).log_prob(terms.z)).sum(-1)
    return torch.logsumexp(terms.log_px - beta * ratio, 0) - np.log(len(ratio))


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("n_draws", [1, 2, 8])
def test_dreg_is_the_plain_gradient_in_expectation(n_draws, beta):
    tiny = Tiny(n_draws, beta)
    value, *dreg, decoder = tiny.by_hand(IMPORTANCE_WEIGHTED)
    plain_value, *plain, plain_decoder = tiny.by_autograd(plain_importance_weighted)
    # The value, and the decoder's gradient, are the same numbers: only rounding differs,
    # in the second of a sum over 40,000 rows.
    torch.testing.assert_close(value, plain_value, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(decoder, plain_decoder, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(dreg, plain, strict=True):
        difference = (ours - theirs)[0]
        error = difference.std(0) / len(difference) ** 0.5
        # 4.5 standard errors: 7e-6 by chance for each of 36 numbers; the seed is fixed.
        assert (difference.mean(0).abs() < 4.5 * error).all()
        assert (error > 0).all()  # they are two estimators, not one


def test_dreg_varies_less():
    """What the estimator is for (Tucker et al., figure 1)."""
    tiny = Tiny(32, 1.0, 2_000)
    _, *dreg, _ = tiny.by_hand(IMPORTANCE_WEIGHTED)
    _, *plain, _ = tiny.by_autograd(plain_importance_weighted)
    for ours, theirs in zip(dreg, plain, strict=True):
        assert (ours[0].std(0) < theirs[0].std(0)).all()


@pytest.fixture(scope="module")
def linear():
    """Log weights (1000 draws, 178 rows) of PCA's model under a wrong posterior, and log p(x)."""
    X = StandardScaler().fit_transform(load_wine().data)
    pca = PCA(2).fit(X)
    signal = torch.from_numpy(pca.explained_variance_ - pca.noise_variance_)
    loadings = torch.from_numpy(pca.components_.T) * signal.sqrt()
    precision = 1 + signal / pca.noise_variance_
    x, mean = torch.from_numpy(X), torch.from_numpy(pca.mean_)
    # Off by a tenth and too wide by half: the bounds are loose, and the weights bounded.
    gain = loadings.T / pca.noise_variance_ / precision[:, None] * 0.9
    model = LinearModel(
        x.new_zeros(0, 13),
        mean,
        loadings,
        torch.full_like(mean, pca.noise_variance_),
        gain,
        1.5 * precision.rsqrt(),
    )
    vae = VAE(Architecture(13, 2, noise="shared", hidden_layer_sizes=())).double()
    with torch.no_grad():
        terms = vae.linearise(model).terms(x[None], x[None, :, :0], normals(1000, 1, 178, 2))
    return terms, torch.from_numpy(pca.score_samples(X))


ONE = torch.ones(1, dtype=torch.float64)


def averaged(terms, n_draws):
    """(1000 / n, B): the bound of n draws, over a partition of all of them."""
    parts = zip(terms.log_px.split(n_draws), terms.z.split(n_draws), strict=True)
    bounds = [
        importance_weighted(Terms(log_px, z, terms.loc, terms.log_scale), ONE)[0]
        for log_px, z in parts
    ]
    return torch.stack(bounds)


def test_bounds_are_ordered(linear):
    terms, log_p = linear
    one, five, fifty = (averaged(terms, n) for n in (1, 5, 50))
    # Jensen holds for every row of the very same draws; the slack is rounding.
    assert (one.mean(0) <= five.mean(0) + 1e-12).all()
    assert (five.mean(0) <= fifty.mean(0) + 1e-12).all()
    assert (one.mean() + 0.01 < five.mean()) & (five.mean() + 0.001 < fifty.mean())
    # The last holds in expectation: up to four standard errors.
    error = fifty.mean(1).std() / len(fifty) ** 0.5
    assert fifty.mean() <= log_p.mean() + 4 * error
    assert one.mean() < log_p.mean() - 0.1


def test_the_elbo_is_the_mean_of_the_log_weights(linear):
    """Its KL is in closed form, theirs by draws."""
    terms, _ = linear
    difference = (elbo(terms, ONE) - averaged(terms, 1))[:, :].mean(1)
    # Four standard errors of the mean over draws.
    assert abs(difference.mean()) < 4 * difference.std() / len(difference) ** 0.5


def test_weights_are_unbiased(linear):
    """E_q[p(x, z) / q(z|x)] = p(x), of which Jensen makes the bound."""
    terms, log_p = linear
    ratio = (terms.log_px - terms.log_ratio)[:, 0].sub(log_p).exp()
    t = (ratio.mean(0) - 1) / (ratio.std(0) / len(ratio) ** 0.5)
    # Five standard errors for each of 178 rows that share no draws.
    assert t.abs().max() < 5
    # And together they are standard normal: their mean is within five of its errors.
    assert abs(t.mean()) < 5 / len(t) ** 0.5


def test_spread_shrinks_with_draws(linear):
    terms, _ = linear
    one, five, fifty = (averaged(terms, n).std(0).mean().item() for n in (1, 5, 50))
    assert one > 1.5 * five > 1.5 * 2 * fifty  # about sqrt(n) each, with room for the tails


def test_log_density_of_the_fixture_is_that_of_a_normal(linear):
    """PCA's density is no oracle of its own making: scipy agrees."""
    X = StandardScaler().fit_transform(load_wine().data)
    pca = PCA(2).fit(X)
    expected = stats.multivariate_normal(pca.mean_, pca.get_covariance()).logpdf(X)
    # The precision by two routes: condition number about 10.
    np.testing.assert_allclose(linear[1], expected, atol=1e-10)
