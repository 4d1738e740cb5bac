"""VAETransformer: what a fit leaves behind, and what its numbers mean."""

import math
import pickle
import warnings

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvae import VAETransformer, _fitting
from skvae import _inference as inference
from skvae._preparing import rows_a_step
from skvae._training import Training, _Group

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"n_components": 3, "hidden_layer_sizes": (16,), "max_iter": 20, "random_state": 0}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 2)) @ RNG.normal(size=(2, 6)) + 0.5 * RNG.normal(size=(400, 6))


@pytest.fixture(scope="module")
def model():
    return VAETransformer(**SMALL).fit(X)


def test_fitted_attributes(model):
    assert model.n_features_in_ == 6
    assert 1 <= model.n_iter_ <= 20
    assert len(model.loss_curve_) == len(model.validation_scores_) == model.n_iter_
    # The start itself may be the best.
    assert model.best_validation_score_ >= max(model.validation_scores_)
    assert (np.diff(model.kl_per_component_) <= 0).all()
    assert model.n_active_components_ == (model.kl_per_component_ > 0.01).sum()
    assert (model.kl_per_component_[:2] > 5 * model.kl_per_component_[2]).all()  # X has rank 2
    assert model.noise_variance_.shape == (6,)
    assert (model.noise_variance_ > 0).all()
    assert isinstance(model.device_, str)
    bits = VAETransformer(**SMALL, likelihood="bernoulli").fit(X > 0)
    assert not hasattr(bits, "noise_variance_")


def test_sample_is_the_mean_and_noise(model):
    """Var[x] = Var[E[x|z]] + noise; the same z by the same seed."""
    drawn, mean = model.sample(20_000), model.sample(20_000, mean=True)
    # A variance by 20,000 draws is good to 1 per cent; five of these.
    np.testing.assert_allclose(drawn.var(0), mean.var(0) + model.noise_variance_, rtol=0.05)
    np.testing.assert_allclose((drawn - mean).var(0), model.noise_variance_, rtol=0.05)
    np.testing.assert_array_equal(model.sample(5), model.sample(5))
    np.testing.assert_array_equal(model.sample(5), model.sample(5, random_state=0))
    assert (model.sample(5) != model.sample(5, random_state=1)).any()


def test_a_draw_given_z_is_the_mean_and_noise(model):
    """x ~ p(x|z) for one z: E[x|z] and the noise variance; seeded as `sample` is."""
    z = np.tile([0.7, -1.0, 0.2], (20_000, 1))
    mean, drawn = model.inverse_transform(z), model.inverse_transform(z, mean=False)
    deviation = np.sqrt(model.noise_variance_)
    # Five standard errors of a mean and, as above, of a variance by 20,000 draws.
    np.testing.assert_allclose((drawn - mean).mean(0) / deviation, 0, atol=5 / np.sqrt(20_000))
    np.testing.assert_allclose(drawn.var(0), model.noise_variance_, rtol=0.05)
    few = z[:5]
    np.testing.assert_array_equal(
        model.inverse_transform(few, mean=False),
        model.inverse_transform(few, mean=False, random_state=0),
    )
    other = model.inverse_transform(few, mean=False, random_state=1)
    assert (model.inverse_transform(few, mean=False) != other).any()
    assert model.inverse_transform(few.astype(np.float32), mean=False).dtype == np.float32


def test_a_draw_of_bits_given_z_is_bits():
    bits = (X > 0).astype(float)
    model = VAETransformer(likelihood="bernoulli", **SMALL).fit(bits)
    z = np.zeros((20_000, 3))
    drawn = model.inverse_transform(z, mean=False)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    # Five standard errors of a share of a half.
    np.testing.assert_allclose(drawn.mean(0), model.inverse_transform(z)[0], atol=0.018)


def test_bounds(model):
    """elbo = reconstruction - kl <= score; 1 <= effective draws <= S; marginal KL >= 0."""
    terms = model.elbo(X)
    np.testing.assert_allclose(terms.elbo, terms.reconstruction - terms.kl, rtol=1e-12)
    # The same draws, but the ELBO's KL is exact and not drawn: Jensen up to Sobol error.
    assert (terms.elbo <= model.score_samples(X) + 0.05).all()
    size = model.effective_sample_size(X)
    assert (size >= 1 - 1e-9).all()
    assert (size <= 128 + 1e-9).all()
    assert model.marginal_kl(X) > -0.05  # 1,000 draws: one error is about 0.02


def test_score_is_comparable_with_pca():
    """On rows of a linear model nothing beats the linear model by more than its fit."""
    scaled = StandardScaler().fit_transform(X)
    vae = VAETransformer(2, noise_variance="shared", hidden_layer_sizes=(), random_state=0)
    vae.fit(scaled)
    assert vae.score(scaled) == pytest.approx(PCA(2).fit(scaled).score(scaled), abs=0.05)


@pytest.mark.parametrize("go_on", ["fit", "partial_fit"])
def test_going_on_improves_and_keeps_order_and_scales(go_on):
    warm = VAETransformer(**{**SMALL, "max_iter": 2}, init="random", warm_start=True, batch_size=32)
    before = warm.fit(X).score(X)
    shift = warm._fitted.codec.shift.clone()
    features = warm.transform(X)
    for _ in range(15):
        getattr(warm, go_on)(X)
    assert warm.score(X) > before
    assert (warm._fitted.codec.shift == shift).all()
    for j in range(2):  # the informative ones go on as themselves
        assert abs(np.corrcoef(features[:, j], warm.transform(X)[:, j])[0, 1]) > 0.5
    getattr(warm, go_on)(X + 100.0)
    assert (warm._fitted.codec.shift == shift).all()


def n_steps(model):
    """That Adam has taken."""
    return int(model._fitted.optimizer["n_steps"]["n_steps"])


def test_a_fit_ends_with_all_rows_unless_another_is_to_go_on():
    params = {"n_components": 2, "hidden_layer_sizes": (16,), "random_state": 0, "batch_size": 32}
    params["device"] = "cpu"  # with the noise of a GPU it may end sooner
    model = VAETransformer(**params).fit(X)
    n_best = 1 + model.validation_scores_.index(model.best_validation_score_)
    assert model.n_iter_ == len(model.loss_curve_) > n_best > 9
    # An epoch of the 360 rows to train on has 12 steps; to nine of these one of all 400, 13 steps.
    assert n_steps(model) == 12 * n_best + 13 * math.ceil(n_best / 9)
    short = VAETransformer(**params, max_iter=model.n_iter_).fit(X)
    assert n_steps(short) == 12 * n_best
    assert short.validation_scores_ == model.validation_scores_
    warm = VAETransformer(**params, warm_start=True).fit(X)
    assert n_steps(warm) == 12 * n_best
    assert warm.validation_scores_ == model.validation_scores_
    # With half the beta there is something to gain, by rows that it has not seen.
    assert warm.set_params(beta=0.5).fit(X).n_iter_ > 30


def test_of_several_starts_the_one_that_is_kept_goes_on():
    params = {**SMALL, "max_iter": 500, "init": "random", "n_init": 3, "learning_rate_init": 0.01}
    model = VAETransformer(**params).fit(X)
    kept = VAETransformer(**params, warm_start=True).fit(X)
    assert model.validation_scores_ == kept.validation_scores_
    assert n_steps(model) > n_steps(kept)
    # As far from what was kept as a few epochs lead, and not another start.
    for j in range(3):
        assert abs(np.corrcoef(model.transform(X)[:, j], kept.transform(X)[:, j])[0, 1]) > 0.8


@pytest.mark.parametrize(
    ("n_rows", "size", "of_a_piece"),
    [(1, 1, 1), (5, 8, 8), (100, 16, 128), (512, 16, 128), (513, 32, 128), (2048, 64, 128),
     (2049, 128, 128), (10**6, 128, 128)],
)  # fmt: skip
def test_small_tables_have_small_batches(n_rows, size, of_a_piece):
    """More than 16 steps an epoch, if they can be; a piece does not say how long the table is."""
    assert rows_a_step("auto", n_rows, is_partial=False) == size
    assert rows_a_step("auto", n_rows, is_partial=True) == of_a_piece
    assert rows_a_step(7, n_rows, is_partial=False) == min(size, 7)


def test_interrupt_keeps_the_best_weights(ctrl_c_in_the_fourth_epoch):
    """Ctrl-C after three epochs: fitted, a warning, and the KeyboardInterrupt goes on."""
    model = VAETransformer(**SMALL)
    with (
        pytest.warns(ConvergenceWarning, match="interrupted after 3 epochs"),
        pytest.raises(KeyboardInterrupt),
    ):
        model.fit(X)
    assert model.n_iter_ == 3
    assert np.isfinite(model.transform(X)).all()
    assert np.isfinite(model.score(X))
    assert model.sample(2).shape == (2, 6)


def test_interrupt_gets_out_where_warnings_are_errors(ctrl_c_in_the_fourth_epoch):
    """As an error of the fit a cross-validation would go on after it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        with pytest.raises(KeyboardInterrupt):
            cross_val_score(VAETransformer(**SMALL), X, cv=3)


@pytest.mark.parametrize("n_times", [1, 2])
def test_interrupt_after_the_last_epoch_keeps_the_training(monkeypatch, n_times):
    """And a second one is obeyed, with the model before it left as it was."""
    pressed, plain = [], inference.averages

    def interrupted(*arguments):
        if len(pressed) < n_times:
            pressed.append(1)
            raise KeyboardInterrupt
        return plain(*arguments)

    before = VAETransformer(**SMALL).fit(X[:, :3])
    model = clone(before).fit(X[:, :3])
    monkeypatch.setattr(inference, "averages", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    if n_times == 1:
        np.testing.assert_array_equal(
            model.transform(X), VAETransformer(**SMALL).fit(X).transform(X)
        )
    else:
        np.testing.assert_array_equal(model.transform(X[:, :3]), before.transform(X[:, :3]))


def test_interrupt_before_the_first_epoch_is_none(monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(_Group, "round", interrupted)
    model = VAETransformer(**SMALL)
    with pytest.warns(match="after 0 epochs"), pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert (model.n_iter_, model.loss_curve_) == (0, [])
    assert np.isfinite(model.score(X))  # the start is a model


def test_a_warm_start_that_led_nowhere_is_not_repeated():
    """Else every further one would be the same epochs again, bit for bit."""
    wine = load_wine().data[:80]
    model = VAETransformer(4, warm_start=True, random_state=0, max_iter=100).fit(wine)
    model.set_params(learning_rate_init=0.3, max_iter=3)  # nothing better will be found
    before, curves = model.transform(wine), []
    for _ in range(3):
        model = pickle.loads(pickle.dumps(model.fit(wine)))
        curves.append(model.loss_curve_)
        np.testing.assert_array_equal(model.transform(wine), before)  # the best weights stay
    assert curves[0] != curves[1] != curves[2]


@pytest.mark.parametrize("max_iter", [1, 2])
def test_a_single_epoch_is_warned_of_too(max_iter):
    with pytest.warns(ConvergenceWarning, match=f"Stopped after max_iter={max_iter}"):
        # On the CPU: with other noise the start may be the best that there is so early.
        VAETransformer(2, max_iter=max_iter, random_state=0, device="cpu").fit(X**3)


def test_verbose_without_rows_for_validation(capsys):
    """What is kept is the latest, not the best; and a call of partial_fit is one epoch."""
    VAETransformer(**{**SMALL, "early_stopping": False}, verbose=10).fit(X)
    VAETransformer(**SMALL, verbose=10).partial_fit(X)
    out = capsys.readouterr().out
    assert "best" not in out
    assert "epoch 1/1:" in out


@pytest.mark.parametrize("verbose", [0, 1, True, 10])
def test_verbose(capsys, verbose):
    VAETransformer(**SMALL, verbose=verbose).fit(X)
    out, err = capsys.readouterr()
    assert bool(out) == bool(verbose)
    assert out.endswith(" 0 of 2 starts running\n") == bool(verbose)  # the last line says so
    assert not err
    if verbose:
        assert "nats" in out


@pytest.mark.parametrize("binary", [True, False])
def test_bernoulli_digits(binary):
    digits = load_digits().data[:300] / 16
    digits = (digits > 0.5).astype(float) if binary else digits
    model = VAETransformer(likelihood="bernoulli", **SMALL).fit(digits)
    mean = model.inverse_transform(model.transform(digits))
    assert (mean >= 0).all()
    assert (mean <= 1).all()
    assert set(np.unique(model.sample(10)[:, digits.std(0) > 0])) <= {0.0, 1.0}
    share = digits.mean(0).clip(1e-3, 1 - 1e-3)
    alone = (digits * np.log(share) + (1 - digits) * np.log(1 - share)).sum(1).mean()
    assert alone < model.score(digits) <= 0  # better than columns alone; a probability


def test_grid_search():
    data, target = load_wine(return_X_y=True)
    pipe = make_pipeline(StandardScaler(), VAETransformer(**SMALL), LogisticRegression())
    grid = {"vaetransformer__n_components": [1, 4]}
    found = GridSearchCV(pipe, grid, cv=3, error_score="raise").fit(data, target)
    assert found.best_score_ > 0.9


#: PCA.score and FactorAnalysis.score of scikit-learn 1.9.1 on the standardised set.
LINEAR = [
    (load_wine, 2, "shared", -16.155), (load_wine, 5, "shared", -15.213),
    (load_wine, 2, "feature", -15.434), (load_wine, 5, "feature", -14.779),
    (load_breast_cancer, 2, "shared", -31.685), (load_breast_cancer, 5, "shared", -24.625),
    (load_breast_cancer, 2, "feature", -23.547), (load_breast_cancer, 5, "feature", -16.547),
]  # fmt: skip


@pytest.mark.parametrize(("load", "q", "noise", "expected"), LINEAR)
def test_the_linear_vae_is_ppca_and_factor_analysis(load, q, noise, expected):
    """Law 2, trained: within 0.05 nats, below by noise of Adam, above by none but FA's own
    unfinished fit (ORACLES.md)."""
    data = StandardScaler().fit_transform(load().data)
    vae = VAETransformer(
        q, hidden_layer_sizes=(), noise_variance=noise, early_stopping=False, max_iter=30,
        random_state=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = vae.fit(data).score(data)
    assert found > expected - 0.05
    if noise == "shared":
        assert found < expected + 0.05


def test_to_torch_is_a_copy():
    model = VAETransformer(**SMALL).fit(X)
    before = model.transform(X)
    for parameter in model.to_torch().parameters():
        parameter.data.zero_()
    np.testing.assert_array_equal(model.transform(X), before)


def test_score_samples_is_the_integral_over_z():
    """log p(x) by quadrature of p(z) p(x|z), from public answers alone and in units of X."""
    rng = np.random.default_rng(0)
    u = rng.normal(size=400)  # a parabola: the posterior is not normal, the ELBO not tight
    x = np.column_stack([u, 30 * u**2]) + rng.normal(0, [0.3, 9.0], (400, 2))
    # On the CPU, with whose noise the encoder is known to leave a gap.
    params = {"hidden_layer_sizes": (32,), "learning_rate_init": 1e-2, "batch_size": 32}
    model = VAETransformer(1, **params, random_state=0, device="cpu").fit(x)
    z = np.linspace(-9, 9, 6001)
    log_px = norm(model.inverse_transform(z[:, None]), np.sqrt(model.noise_variance_)).logpdf(
        x[:, None]
    )  # (400, 6001, 2)
    exact = logsumexp(log_px.sum(2) + norm.logpdf(z), axis=1) + np.log(z[1] - z[0])
    score, elbo = model.score_samples(x, n_draws=8192), model.elbo(x, n_draws=8192).elbo
    gap = exact.mean() - elbo.mean()
    assert gap > 0.02
    # So many draws leave little of it; on average, as a row far out can lack good draws.
    assert abs(score.mean() - exact.mean()) < 0.1 * gap
    assert np.median(np.abs(score - exact)) < 1e-3


def test_of_both_starts_pcas_is_kept_where_it_serves():
    """Its validation bound is above that of factor analysis before any training."""
    X = StandardScaler().fit_transform(load_breast_cancer().data)
    kwargs = {"n_components": 4, "random_state": 2}
    both, pca, fa = (
        VAETransformer(init=init, **kwargs).fit(X) for init in ("both", "pca", "factor_analysis")
    )
    assert fa.best_validation_score_ > pca.best_validation_score_  # and yet:
    # The same start among two: together is alone, to float32 rounding.
    assert both.best_validation_score_ == pytest.approx(pca.best_validation_score_, abs=1e-2)
    assert both.n_iter_ == pca.n_iter_


def test_of_both_starts_pcas_is_not_kept_below_factor_analysis():
    """Hardly trained: factor analysis, as it is before, is the best there is."""
    X = StandardScaler().fit_transform(load_breast_cancer().data)
    kwargs = {"n_components": 2, "hidden_layer_sizes": (8,), "random_state": 0}
    kwargs |= {"max_iter": 2, "learning_rate_init": 1e-6}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        both, pca = (VAETransformer(init=init, **kwargs).fit(X) for init in ("both", "pca"))
    assert both.best_validation_score_ > pca.best_validation_score_ + 1


@pytest.mark.parametrize("name", ["documents", "wine"])
def test_counts_start_at_pca_alone(name):
    """Of documents from few topics the better start; of exponentials of a table as good a one."""
    rng = np.random.default_rng(2)
    if name == "wine":
        rates = np.exp(StandardScaler().fit_transform(load_wine().data))
    else:
        topics = rng.dirichlet(np.full(300, 0.05), size=5)
        rates = 30 * rng.dirichlet(np.full(5, 0.2), size=300) @ topics
    X, X_test = rng.poisson(rates), rng.poisson(rates)
    kwargs = {"n_components": 4, "likelihood": "poisson", "random_state": 0}
    default, pca, random = (
        VAETransformer(init=init, **kwargs).fit(X) for init in ("both", "pca", "random")
    )
    np.testing.assert_array_equal(default.transform(X), pca.transform(X))
    margin = 0.0 if name == "documents" else -0.5
    assert pca.score(X_test) > random.score(X_test) + margin


def test_a_start_that_cannot_be_chosen_any_more_is_given_up(monkeypatch):
    """Factor analysis is, once PCA has passed where it began; and nothing else changes."""
    X = load_wine().data
    rounds, plain = [], Training.rounds

    def counted(self):
        yield from plain(self)
        if not self.is_on_all_rows:
            rounds.append([len(watch.training_bounds) for watch in self.watches])

    monkeypatch.setattr(Training, "rounds", counted)
    vae = VAETransformer(2, hidden_layer_sizes=(16,), random_state=0).fit(X)
    monkeypatch.setattr(_fitting, "_give_up", lambda jobs, watches: None)
    patient = VAETransformer(2, hidden_layer_sizes=(16,), random_state=0).fit(X)
    (n_pca, n_given_up), (n_alone, n_to_the_end) = rounds
    assert n_pca == n_alone == vae.n_iter_
    assert n_given_up < n_to_the_end
    np.testing.assert_allclose(vae.validation_scores_, patient.validation_scores_, atol=1e-5)
    np.testing.assert_allclose(vae.transform(X), patient.transform(X), atol=1e-5)
