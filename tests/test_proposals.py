"""Where z is drawn from: log p(x) is right however poor the encoder is."""

import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from test_linear import solution, table, vae_of, with_exact_posterior
from test_missing import folded
from torch.distributions import Independent, MultivariateNormal, Normal
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from skvae import VAETransformer, _inference
from skvae._answers import fixed_normals
from skvae._inference import elbo_terms, scores
from skvae._joint import named_columns
from skvae._likelihoods import LIKELIHOODS
from skvae._networks import ACTIVATIONS
from skvae._proposals import Laplace, Proposal, _log_joint, _slope
from skvae._vae import VAE, Architecture, Posterior, log_prob_observed

NO_CONDITION = torch.empty(10_000, 0, dtype=torch.float64)


def scored(model, x, n_draws, **options):
    noise = fixed_normals(n_draws, model.architecture.n_components).double()
    return scores(model, x, NO_CONDITION[: len(x)], noise, **options)


@pytest.mark.parametrize("data", ["wine", "breast_cancer"])
def test_a_linear_model_needs_no_encoder(data):
    """To one that has learned nothing q(z|x) is the prior."""
    fit, *model = solution("factor_analysis", data, 5)
    vae = vae_of(with_exact_posterior(fit.mean_, *model[-2:]))
    with torch.no_grad():
        for parameter in vae.encoder.parameters():
            parameter.zero_()
    x = torch.from_numpy(table(data))
    found, by_encoder = scored(vae, x, 256), scored(vae, x, 256, only_holes=True)
    expected = fit.score_samples(table(data))
    np.testing.assert_allclose(found.log_likelihood, expected, atol=0.05)
    # Half of the draws are from the posterior, and few of the others are anywhere near.
    assert ((found.effective_sample_size > 120) & (found.effective_sample_size < 200)).all()
    assert np.median(np.abs(by_encoder.log_likelihood.numpy() - expected)) > 0.5


def random_model(likelihood, n_features, noise="feature"):
    """Of one component: the decoder bends, the encoder knows nothing."""
    a = Architecture(n_features, 1, 0, (8,), likelihood=likelihood, noise=noise)
    generator = torch.Generator().manual_seed(0)
    vae = VAE(a).double()
    for name, parameter in vae.named_parameters():
        if name.startswith("decoder"):
            parameter.data = 0.7 * torch.randn(parameter.shape, generator=generator).double()
    return vae, generator


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_log_p_is_the_integral_over_z(name):
    """For every likelihood, of rows that were drawn and of rows that were not."""
    likelihood = (("categorical", (3, 3)),) if name == "categorical" else name
    vae, generator = random_model(likelihood, 6)
    with torch.no_grad():
        z = torch.randn(40, 1, generator=generator).double()
        x = vae.decode(z[None, None], NO_CONDITION[None, :40]).sample(generator)[0, 0]
        if name == "categorical":
            strange = functional.one_hot(torch.zeros(5, 2).long(), 3).flatten(1).double()
        elif LIKELIHOODS[name].reading == "plain":
            strange = torch.ones(5, 6).double()
        else:
            strange = 1 + torch.arange(30.0).view(5, 6).double() % 7
        x = torch.cat((x, strange))
        if LIKELIHOODS[name].reading == "count":
            x = torch.cat((x, x.log1p()), 1)
        grid = torch.linspace(-12, 12, 20_001).double()
        p = vae.decode(grid[:, None, None, None], NO_CONDITION[None, :1])
        log_px = torch.stack([log_prob_observed(p, row[None, None], vae.architecture) for row in x])
    prior = stats.norm.logpdf(grid) + np.log(24 / 20_000)
    expected = logsumexp(log_px[:, :, 0, 0].numpy() + prior, 1)
    found = scored(vae, x, 1024)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found.log_likelihood, expected, atol=0.15)
    assert np.median(found.effective_sample_size) > 300


def all_random(architecture, scale=0.5):
    """A model that has nothing in common with a trained one, and the generator of its weights."""
    generator = torch.Generator().manual_seed(0)
    vae = VAE(architecture).double()
    for parameter in vae.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator).double()
    return vae, generator


def drawn_rows(vae, n_rows, generator):
    """z (1, B, Z), c (1, B, 0) and x (1, B, D) of p(x|z)."""
    z = torch.randn(1, n_rows, vae.architecture.n_components, generator=generator).double()
    c = NO_CONDITION[None, :n_rows]
    with torch.no_grad():
        return z, c, vae.decode(z[None], c).sample(generator)[0]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (5,), (7, 4)])
def test_slopes_of_the_outputs_are_autograds(hidden, activation):
    """Of both outputs of a column, with a condition and with an exposure."""
    a = Architecture(6, 3, 2, hidden, activation, "negative_binomial", "decoder", False, True)
    vae, generator = all_random(a, 1.0)
    z, c, exposure = (torch.randn(1, 4, n, generator=generator).double() for n in (3, 2, 1))
    with torch.no_grad():
        outputs, slopes = vae.outputs_and_slopes(z[None], c, exposure)
        torch.testing.assert_close(outputs, vae.outputs(z[None], c, exposure))
    expected = torch.autograd.functional.jacobian(
        lambda z: tuple(vae.outputs(z[None], c, exposure)), z
    )
    for ours, theirs in zip(slopes, expected, strict=True):
        own = theirs[0, 0].diagonal(dim1=0, dim2=3)[:, 0]  # (D, Z, B): of a row in its own z
        torch.testing.assert_close(ours[:, 0], own.permute(1, 2, 0), rtol=1e-10, atol=1e-12)


JOINT = (("poisson", (1, 1)), ("gaussian", (1, 1, 1)), ("categorical", (2, 3)))


@pytest.mark.parametrize("noise", ["feature", "decoder"])
@pytest.mark.parametrize("likelihood", [*LIKELIHOODS, JOINT])
def test_a_step_is_by_gradient_and_expected_curvature(likelihood, noise):
    """The gradient is autograd's; the curvature that of the means, by the information of cells."""
    a = Architecture(10, 3, 0, (6,), likelihood=likelihood, noise=noise)
    vae, generator = all_random(a)
    z, c, x = drawn_rows(vae, 7, generator)
    mask = (torch.rand(x.shape, generator=generator) > 0.3).double()
    for name, columns in named_columns(likelihood):
        if name == "categorical":  # all columns of a variable are there, or none
            mask[..., columns] = 1.0
    rows = torch.cat((x, torch.zeros_like(x[..., : a.n_counts]), mask), 2)
    gradient, root = _slope(vae, z, rows, c)
    z.requires_grad_()
    (expected,) = torch.autograd.grad(_log_joint(vae, z, rows, c).sum(), z)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)
    jacobian = torch.autograd.functional.jacobian(lambda z: vae.decode(z[None], c).mean[0], z)
    of_row = jacobian[0, :, :, 0].diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # (B, D, Z)
    weights = (mask * vae.decode(z[None], c).information[0])[0, :, :, None]
    curvature = of_row.mT @ (weights * of_row) + torch.eye(3).double()
    torch.testing.assert_close((root @ root.mT)[0], curvature.detach(), rtol=1e-9, atol=1e-9)


def test_the_normal_about_a_mode_is_torchs():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(1, 5, 3, 3, generator=generator).double().tril()
    root.diagonal(dim1=-2, dim2=-1).abs_().add_(0.5)
    normal = Laplace(torch.randn(1, 5, 3, generator=generator).double(), root)
    expected = MultivariateNormal(normal.loc, precision_matrix=root @ root.mT)
    z = torch.randn(4, 1, 5, 3, generator=generator).double()
    constant = 1.5 * np.log(2 * np.pi)  # of three components
    torch.testing.assert_close(normal.log_density(z) - constant, expected.log_prob(z))
    torch.testing.assert_close(
        normal.log_peak - constant, expected.log_prob(normal.loc), check_stride=False
    )
    torch.testing.assert_close(normal.uncorrelated().loc, expected.mean)
    torch.testing.assert_close(normal.uncorrelated().log_scale.exp().square(), expected.variance)
    # Noise of one component at a time: the columns of a root of the covariance.
    ways = normal.rsample(torch.eye(3).double()[:, None, None]) - normal.loc
    torch.testing.assert_close(
        torch.einsum("skbi,skbj->kbij", ways, ways), expected.covariance_matrix
    )


@pytest.mark.parametrize("has_rest", [False, True])
@pytest.mark.parametrize("n_draws", [1, 2, 3, 5, 8])
def test_draws_have_the_density_of_the_mixture(n_draws, has_rest):
    """Half are about the mode, the rest from q, or with holes half of these from the third."""
    generator = torch.Generator().manual_seed(0)

    def normals(*shape):
        return torch.randn(*shape, generator=generator).double()

    q, rest = (Posterior(normals(1, 4, 2), 0.3 * normals(1, 4, 2)) for _ in range(2))
    root = normals(1, 4, 2, 2).tril()
    root.diagonal(dim1=-2, dim2=-1).abs_().add_(0.5)
    mode = Laplace(normals(1, 4, 2), root)
    z, log_density = Proposal(q, mode, rest if has_rest else None).drawn(normals(n_draws, 2))
    parts = [MultivariateNormal(mode.loc, precision_matrix=root @ root.mT)]
    parts += [Independent(Normal(p.loc, p.log_scale.exp()), 1) for p in (q, rest)]
    n_rest = n_draws // 4 if has_rest else 0
    shares = torch.tensor([n_draws - n_draws // 2, n_draws // 2 - n_rest, n_rest]) / n_draws
    each = torch.stack([part.log_prob(z) for part in parts])
    expected = (shares.double().log()[:, None, None, None] + each).logsumexp(0)
    # The density is without the constant of a normal of two components.
    torch.testing.assert_close(log_density - np.log(2 * np.pi), expected)


@pytest.mark.parametrize("sees_mask", [True, False])
def test_beside_rows_with_holes_a_complete_one_is_as_alone(sees_mask):
    vae, generator = all_random(Architecture(4, 2, 0, (5,), sees_mask=sees_mask))
    z, c, x = drawn_rows(vae, 6, generator)
    mask = torch.ones_like(x)
    mask[0, ::2, 1:3] = 0.0
    x, is_complete = torch.cat((x * mask, mask), 2), mask.all(2)[0]
    with torch.no_grad():
        encoded = vae.encode(x, c)
        together = Proposal.of(vae, x, c, 100)
        for_holes = Proposal.of(vae, x, c, 100, only_holes=True)
    for part in (for_holes.q, for_holes.rest, together.q, together.rest):
        for ours, own in zip(part, encoded, strict=True):
            torch.testing.assert_close(ours[:, is_complete], own[:, is_complete], rtol=0, atol=0)
    # Where a mode is not asked for its normal is q as well.
    own = Posterior(*(t[:, is_complete] for t in encoded))
    alike = Laplace(*(t[:, is_complete] for t in for_holes.mode))
    z = z[None, :, is_complete]
    torch.testing.assert_close(alike.log_density(z), own.log_density(z))
    for rows in (is_complete, ~is_complete):
        with torch.no_grad():
            alone = Proposal.of(vae, x[:, rows], c[:, rows], 100)
        torch.testing.assert_close(
            [*alone.q, *alone.mode], [t[:, rows] for t in (*together.q, *together.mode)]
        )
    # With holes q is the encoder's where that knows of them, and the third part is the prior.
    q_of_holes, expected = together.q, encoded if sees_mask else together.mode.uncorrelated()
    for ours, own in zip(q_of_holes, expected, strict=True):
        torch.testing.assert_close(ours[:, ~is_complete], own[:, ~is_complete], rtol=0, atol=0)
    assert not torch.stack([*together.rest])[:, :, ~is_complete].any()


@pytest.fixture(scope="module")
def digits():
    """A model of most of them, and the rest."""
    X = load_digits().data + 0.3 * np.random.default_rng(0).normal(size=(1797, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # On the CPU, whose noise makes the model that the figures below are of.
        model = VAETransformer(16, max_iter=40, random_state=0, device="cpu")
        return model.fit(X[:1200]), X[1200:]


def test_draws_about_the_mode_count(digits):
    """Of 16 components q(z|x) has no correlations, and few draws of it are where they should."""
    model, rows = digits[0], digits[1][:100]
    few, many = (model.score_samples(rows, n_draws=n) for n in (128, 4096))
    assert np.abs(few - many).mean() < 0.1
    codec, vae = model._fitted.codec, model.to_torch().double()
    x = (torch.from_numpy(rows) - codec.shift) / codec.scale
    by_encoder = scored(vae, x[:, codec.varies], 128, only_holes=True).effective_sample_size
    assert np.median(by_encoder) < 20
    assert np.median(model.effective_sample_size(rows)) > 40


def test_no_row_is_worse_off_by_more_than_half_of_its_draws():
    """A mode that is not where p(x|z)p(z) is cannot take more than log 2, as half are from q."""
    vae, generator = random_model("gaussian", 6)
    z = torch.randn(200, 1, generator=generator).double()
    with torch.no_grad():
        x = vae.decode(z[None, None], NO_CONDITION[None, :200]).sample(generator)[0, 0]
    both = scored(vae, x, 2048).log_likelihood
    alone = scored(vae, x, 1024, only_holes=True).log_likelihood  # as many as are from q
    assert (both - alone).min() > -np.log(4)


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_modes_that_are_far_are_found(likelihood):
    """Where means are exponentials a step may be a thousand times too long."""
    a = Architecture(20, 4, 0, (16,), likelihood=likelihood)
    generator = torch.Generator().manual_seed(2)
    vae = VAE(a).double()
    for name, parameter in vae.named_parameters():
        if name.startswith("decoder"):
            parameter.data = 0.6 * torch.randn(parameter.shape, generator=generator).double()
    vae.dispersion.data.fill_(-2.0)
    z = torch.randn(200, 4, generator=generator).double()
    with torch.no_grad():
        p = vae.decode(z[None, None], NO_CONDITION[None, :200])
        counts = p.sample(generator)[0, 0]
        at_z = p.log_prob(counts).sum(-1)[0, 0]
    found = scored(vae, torch.cat((counts, counts.log1p()), 1), 256)
    assert counts.max() > 1000
    assert found.log_likelihood.min() > at_z.min() - 50
    assert (found.effective_sample_size > 5).double().mean() > 0.98


@pytest.mark.parametrize("times", [1, 4, 10])
def test_float32_rows_depend_on_themselves_alone(digits, times):
    """Rounding decides on no step of the search for a mode, also far from all that was seen."""
    model, rows = digits[0], (times * digits[1][:300]).astype(np.float32)
    single = np.concatenate([model.score_samples(row[None]) for row in rows])
    together = model.score_samples(rows)
    np.testing.assert_allclose(single, together, rtol=2e-6, atol=1e-4)
    np.testing.assert_allclose(model.score_samples(rows.astype(float)), together, rtol=1e-5)


@pytest.mark.parametrize("likelihood", [*LIKELIHOODS, JOINT])
def test_float64_rows_depend_on_themselves_alone(likelihood):
    a = Architecture(10, 3, 0, (6,), likelihood=likelihood)
    vae, generator = all_random(a)
    x = drawn_rows(vae, 40, generator)[2][0]
    x = torch.cat((x, x[:, : a.n_counts].log1p()), 1)
    single = torch.cat([scored(vae, row[None], 64).log_likelihood for row in x])
    torch.testing.assert_close(single, scored(vae, x, 64).log_likelihood, rtol=1e-12, atol=0)


@pytest.mark.parametrize("weight", [1e20, 1e200])
def test_curvature_beyond_all_numbers_is_none(weight):
    """Rows of which nothing can be said have a score, if it is -inf."""
    dtype = torch.float64 if weight > 1e38 else torch.float32
    vae = VAE(Architecture(6, 2, 0, ())).to(dtype)
    with torch.no_grad():
        vae.decoder.linear.weight.fill_(weight)
    x = torch.ones(3, 6, dtype=dtype)
    found = scores(vae, x, x[:, :0], fixed_normals(8, 2).to(dtype)).log_likelihood
    assert not found.isnan().any()


@pytest.mark.parametrize("n_components", [1, 2])
def test_where_the_curvature_is_infinite_the_prior_serves(n_components):
    """Bits that are steps of z: all are 1 on one side of 0, and p(x) is the half of it."""
    vae = VAE(Architecture(5, n_components, 0, (), likelihood="bernoulli")).double()
    with torch.no_grad():
        vae.decoder.linear.weight.fill_(1e160)
    found = scored(vae, torch.ones(1, 5, dtype=torch.float64), 1024).log_likelihood.item()
    # Of the 512 draws from q, the prior here, a half but for some.
    assert found == pytest.approx(np.log(0.5), abs=0.05)


@pytest.mark.parametrize("n_features", range(2, 9))
def test_a_curvature_that_rounding_leaves_without_a_root_loses_no_row(n_features):
    """Of two components that do the same; q, the prior here, has densities at its draws."""
    vae = VAE(Architecture(n_features, 2, 0, ())).double()
    with torch.no_grad():
        vae.decoder.linear.weight.fill_(1e20)
    x = torch.ones(1, n_features, dtype=torch.float64)
    found, by_encoder = (
        scored(vae, x, 64, only_holes=only_holes).log_likelihood.item()
        for only_holes in (False, True)
    )
    # Both are negative, and the same but for rounding where the prior takes the mode's place.
    assert found >= (1 + 1e-9) * by_encoder > -np.inf


@pytest.mark.parametrize("n_draws", range(1, 8))
def test_few_draws_are_shared_as_many_are(n_draws):
    fit, *model = solution("factor_analysis", "wine", 2)
    vae = vae_of(with_exact_posterior(fit.mean_, *model[-2:]))
    x = torch.from_numpy(table("wine"))
    found = scored(vae, x, n_draws)
    # All parts are the posterior: any share of them gives log p(x).
    np.testing.assert_allclose(found.log_likelihood, fit.score_samples(table("wine")), atol=1e-4)


def test_holes_that_leave_a_second_mode():
    """Of which the encoder knows one, and is sure of it."""
    model, row, log_density = folded()
    with torch.no_grad():
        model.encoder.linear.bias.view(-1).copy_(torch.tensor([1.2, np.log(0.1)]))
    found = scored(model, row, 1024).log_likelihood.item()
    assert found == pytest.approx(log_density, abs=0.2)


def test_the_bound_is_by_draws_from_q_alone():
    fit, *model = solution("factor_analysis", "wine", 2)
    vae = vae_of(with_exact_posterior(fit.mean_, *model[-2:]))
    x = torch.from_numpy(table("wine"))
    noise = fixed_normals(64, 2).double()
    reconstruction, kl = elbo_terms(vae, x, NO_CONDITION[: len(x)], noise)
    expected = fit.score_samples(table("wine"))
    np.testing.assert_allclose(reconstruction - kl, expected, atol=0.05)


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that an operation makes."""

    n_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else (result,):
            if isinstance(made, torch.Tensor):
                self.n_bytes = max(self.n_bytes, made.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize(
    ("n_features", "n_components", "n_draws"), [(20, 32, 512), (20, 128, 16), (2000, 16, 16)]
)
def test_draws_and_matrices_are_few_at_a_time(n_features, n_components, n_draws, monkeypatch):
    monkeypatch.setattr(_inference, "keep_freed_memory", lambda: None)  # a block never touched
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # another thread would not be seen
    vae = VAE(Architecture(n_features, n_components, 0, (8,))).double()
    vae.randomise(torch.Generator().manual_seed(0), torch.zeros(n_features))
    x = torch.zeros(min(1000, 400_000 // n_features), n_features, dtype=torch.float64)
    with Largest() as largest:
        scored(vae, x, n_draws)
    assert largest.n_bytes < 12 * 2**20  # with all rows at once 64 MiB and more
