"""Together is alone (law 1), and a training ends as it should."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from skvae import _training as training
from skvae._adam import Adam, Elementwise, OneKernel
from skvae._bounds import ELBO, elbo, importance_weighted
from skvae._gradient import Gradient
from skvae._likelihoods import LIKELIHOODS, Likelihood
from skvae._linear_start import linear_model
from skvae._networks import ACTIVATIONS
from skvae._run import Run, Stream
from skvae._training import Training, train
from skvae._vae import (
    VAE,
    Architecture,
    from_state,
    pick,
    reorder_components,
    stack_states,
    widest,
)

DATA = load_wine()
X = torch.from_numpy(StandardScaler().fit_transform(DATA.data))
NOTHING = X[:, :0]
LABELS = functional.one_hot(torch.from_numpy(DATA.target)).to(X)


def lone(seed=0, q=2, hidden=(8, 4), n_conditions=0, like=X, **names):
    a = Architecture(like.shape[1], q, n_conditions, hidden, **names)
    generator = torch.Generator(like.device).manual_seed(seed)
    return VAE(a, device=like.device).to(like.dtype).randomise(generator, like.mean(0))


def stack(models):
    """One model of K."""
    architecture = widest([model.architecture for model in models])
    states = [model.state_dict() for model in models]
    return from_state(architecture, stack_states(states, architecture))


# Counts first, with their logarithms at the end; fractions of bits; two variables of categories.
MIXED = (
    ("poisson", (1, 1)), ("negative_binomial", (1,)), ("gaussian", (1, 1)), ("student_t", (1,)),
    ("lognormal", (1,)), ("bernoulli", (1, 1)), ("categorical", (3, 2)),
)  # fmt: skip
_COUNTS = X[:, :3].exp().round()
X_MIXED = torch.cat(
    (_COUNTS, X[:, 3:7], torch.sigmoid(X[:, 7:9]), LABELS, functional.one_hot((X[:, 9] > 0).long()),
     (_COUNTS + 1).log()), 1,
)  # fmt: skip


def lone_mixed(seed=0, q=2, hidden=(8, 4), n_conditions=0, **names):
    a = Architecture(14, q, n_conditions, hidden, likelihood=MIXED, **names)
    mean, variance = X_MIXED[:, :14].mean(0), X_MIXED[:, :14].var(0)
    generator = torch.Generator().manual_seed(seed)
    return VAE(a).double().randomise(generator, mean, variance)


def run_of(model, seed=0, rows=150, n_validation=20, **keywords):
    device = model.dispersion.device
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(seed)).to(device)
    given = {"batch_size": 32, "max_iter": 20, "n_iter_no_change": 5, **keywords}
    return Run(model, order[:rows], order[rows : rows + n_validation], seed, **given)


def unlike(n_draws=1, n_conditions=0, dropout=0.0, like=X):
    """Runs that differ in all in which the runs of a group may differ."""

    def run(q, hidden, seed, rows, **keywords):
        model = lone(seed, q, hidden, n_conditions, like)
        return run_of(model, seed, rows, n_importance_samples=n_draws, dropout=dropout, **keywords)

    return [
        run(2, (8, 4), 0, 150, beta=1.0, learning_rate=1e-3),
        run(5, (5, 9), 1, 140, beta=0.5, learning_rate=1e-2, max_iter=7),
        run(3, (8, 8), 2, 145, beta=2.0, learning_rate=3e-3, max_iter=13, schedule="cosine"),
        run(1, (3, 2), 3, 150, beta=1.0, learning_rate=1e-2, alpha=0.1, n_validation=11),
        run(4, (2, 6), 4, 129, beta=1.0, learning_rate=3e-2, max_iter=40, n_iter_no_change=3),
    ]


def assert_same(one, other, tolerance):
    """Weights, moments, and every number of the history."""
    close = {"rtol": 0, "atol": tolerance}
    for name, weights in one.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[name], weights, **close)
    for part in one.optimizer:
        for name, moments in one.optimizer[part].items():
            torch.testing.assert_close(other.optimizer[part][name], moments, **close)
    histories = [(t.training_bounds, t.validation_bounds, t.bound) for t in (one, other)]
    for ours, theirs in zip(*histories, strict=True):
        np.testing.assert_allclose(ours, theirs, **close)
    assert (one.is_finite, one.is_improving) == (other.is_finite, other.is_improving)


def assert_together_is_alone(runs, x, c, tolerance=1e-10):
    """Law 1. The default leaves room for sums in another order, which padding makes."""
    together = train(runs, x, c)
    alone = [train([run], x, c)[0] for run in runs]
    for one, other in zip(together, alone, strict=True):
        assert_same(one, other, tolerance)
    return together


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("c", [NOTHING, LABELS], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("n_draws", [1, 3])
def test_together_is_alone(n_draws, c, dropout):
    runs = unlike(n_draws, c.shape[1], dropout)
    trained = assert_together_is_alone(runs, X, c)
    # The test would be empty if they had all come to the same end at the same time.
    assert len({run.group for run in runs}) == 1
    assert len({len(t.training_bounds) for t in trained}) > 2


def test_together_is_alone_in_float32():
    x = X.float()
    runs = [replace(run, max_iter=min(run.max_iter, 10)) for run in unlike(like=x)]
    together = train(runs, x, x[:, :0])
    alone = [train([run], x, x[:, :0])[0] for run in runs]
    for one, other in zip(together, alone, strict=True):
        for name, weights in one.model.state_dict().items():
            # Law 1: some ten roundings of a number near 1.
            torch.testing.assert_close(other.model.state_dict()[name], weights, rtol=0, atol=1e-6)
    ranking = [np.argsort([t.bound for t in trained]).tolist() for trained in (together, alone)]
    assert ranking[0] == ranking[1]


@pytest.mark.parametrize("noise", ["shared", "decoder", 0.5])
def test_together_is_alone_whatever_the_noise(noise):
    sizes = [(2, (8,)), (4, (3,)), (1, (6,)), (3, (8,))]
    runs = [run_of(lone(i, q, h, noise=noise), i, max_iter=6) for i, (q, h) in enumerate(sizes)]
    assert_together_is_alone(runs, X, NOTHING)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "elu"])
def test_together_is_alone_whatever_the_activation(activation):
    sizes = [(2, (8, 3)), (4, (3, 7))]
    runs = [
        run_of(lone(i, q, h, activation=activation), i, max_iter=4)
        for i, (q, h) in enumerate(sizes)
    ]
    assert_together_is_alone(runs, X, NOTHING)


def test_together_is_alone_with_bits_drawn_afresh():
    x = torch.sigmoid(X)
    models = [lone(i, q, (8,), like=x, likelihood="bernoulli") for i, q in enumerate((2, 5, 3))]
    runs = [run_of(model, i, max_iter=5, binarise=True) for i, model in enumerate(models)]
    assert_together_is_alone(runs, x, NOTHING)
    plain = train([replace(runs[0], binarise=False)], x, NOTHING)[0]
    assert plain.bound != train(runs[:1], x, NOTHING)[0].bound


@pytest.mark.parametrize("noise", ["feature", "shared", "decoder", 0.5])
@pytest.mark.parametrize("c", [NOTHING, LABELS], ids=["unconditional", "conditional"])
def test_together_is_alone_whatever_the_columns(c, noise):
    sizes = [(2, (8,)), (4, (3,)), (1, (6,)), (3, (8,))]
    runs = [
        run_of(
            lone_mixed(i, *size, c.shape[1], noise=noise),
            i,
            max_iter=6,
            binarise=True,
            learning_rate=1e-2,
        )
        for i, size in enumerate(sizes)
    ]
    trained = assert_together_is_alone(runs, X_MIXED, c)
    for result in trained:  # six rounds have taught every one
        assert result.bound > result.start_bound


def test_bits_are_drawn_in_their_own_columns_alone():
    """Nothing is drawn of other columns, whatever is in them."""
    group = training._Group([training.Watch(run_of(lone_mixed(), binarise=True))], X_MIXED, NOTHING)
    drawn = group._batch(group._step_of_block)[0][0]
    given = X_MIXED[group._block.rows[0, 0]]
    is_bit = torch.zeros(17, dtype=torch.bool).index_fill(0, torch.tensor([7, 8]), True)
    assert torch.equal(drawn[:, ~is_bit], given[:, ~is_bit])
    assert ((drawn[:, is_bit] == 0) | (drawn[:, is_bit] == 1)).all()


def test_runs_of_different_groups_train_in_one_call():
    """Depths, batch sizes, draws, dropout, validation: results in the order of the runs."""
    runs = [
        run_of(lone(0, 2, (8, 4)), 0, max_iter=5),
        run_of(lone(1, 3, (8,)), 1, max_iter=3),
        run_of(lone(2, 2, ()), 2, max_iter=6),
        run_of(lone(3, 2, (8, 4)), 3, max_iter=4, batch_size=16),
        run_of(lone(4, 2, (8, 4)), 4, max_iter=4, n_importance_samples=4),
        run_of(lone(5, 4, (8, 4)), 5, max_iter=4, n_validation=0),
        run_of(lone(6, 4, (8, 4)), 6, max_iter=4, dropout=0.2),
        run_of(lone(7, 4, (7, 2)), 7, max_iter=4),
    ]
    assert len({run.group for run in runs}) == 7
    trained = assert_together_is_alone(runs, X, NOTHING)
    assert [len(t.training_bounds) for t in trained] == [run.max_iter for run in runs]


def test_seeds_decide_alone():
    before = torch.get_rng_state()
    runs = [run_of(lone(), seed, max_iter=3) for seed in (0, 0, 1)]
    one, other, third = (train([run], X, NOTHING)[0] for run in runs)
    assert_same(one, other, 0)
    assert one.bound != third.bound
    assert torch.equal(torch.get_rng_state(), before)


def validation_bound(run, model, x=X):
    """By hand: the trained objective with the stream's own validation noise."""
    noise = Stream(run).validation_noise()
    bound = elbo if run.n_importance_samples == 1 else importance_weighted
    rows, beta = run.validation_rows, x.new_tensor([run.beta])
    with torch.no_grad():
        return bound(model.terms(x[None, rows], x[None, rows, :0], noise), beta).mean().item()


@pytest.mark.parametrize("n_draws", [1, 3])
def test_early_stopping_keeps_the_best_weights(n_draws):
    run = run_of(
        lone(hidden=(32,)), learning_rate=3e-2, max_iter=500, n_importance_samples=n_draws, beta=0.7
    )
    trained = train([run], X, NOTHING)[0]
    history = trained.validation_bounds
    assert len(history) == len(trained.training_bounds) < run.max_iter
    assert trained.bound == max(history) > history[-1]
    # The same sum over 20 rows in another order.
    assert trained.bound == pytest.approx(validation_bound(run, trained.model), abs=1e-11)
    # It stopped n_iter_no_change rounds after the last gain of more than tol.
    reference, last = validation_bound(run, run.model), -1
    for i, bound in enumerate(history):
        if bound > reference + run.tol:
            reference, last = bound, i
    assert len(history) == last + 1 + run.n_iter_no_change
    assert not trained.is_improving


def ended(run):
    """A run's watch, once its training has ended."""
    training = Training([run], X, NOTHING)
    for _ in training.rounds():
        pass
    training.results()
    return training.watches[0]


def test_the_best_weights_may_go_on_with_all_rows():
    run = run_of(lone(hidden=(32,)), learning_rate=3e-2, max_iter=500)
    watch = ended(run)
    trained, final = watch.trained(), watch.final_run()
    n_rounds = 1 + trained.validation_bounds.index(trained.bound)
    assert final.rows.tolist() == sorted([*run.rows.tolist(), *run.validation_rows.tolist()])
    rates = [run.learning_rate, *learning_rates(run)]
    assert (final.learning_rate, final.schedule) == (rates[n_rounds - 1], "constant")
    assert final.learning_rate < run.learning_rate  # or the line before would say nothing
    # 20 rows are as large a part of 150 as these rounds are of those before.
    assert final.max_iter == math.ceil(n_rounds * 20 / 150) > 1
    last = ended(final)
    # The start is the model that was kept, by the same noise on the same rows: it may stay.
    assert last.start_bound == pytest.approx(trained.bound, abs=1e-11)
    n_kept = 1 + last.validation_bounds.index(last.bound)
    assert last.bound > trained.bound
    # Adam went on too.
    n_steps = n_rounds * run.n_steps + n_kept * final.n_steps
    assert last.trained().optimizer["n_steps"]["n_steps"].item() == n_steps


def test_what_goes_wrong_with_all_rows_is_not_kept():
    watch = ended(run_of(lone(hidden=(32,)), learning_rate=3e-2, max_iter=500))
    [last] = train([replace(watch.final_run(), learning_rate=5.0)], X, NOTHING)
    for name, weights in watch.trained().model.state_dict().items():
        assert torch.equal(last.model.state_dict()[name], weights)


@pytest.mark.parametrize(
    "keywords",
    [{"n_validation": 0}, {"max_iter": 3}, {"learning_rate": 100.0}],
    ids=["without validation", "out of rounds", "the start was the best"],
)
def test_who_does_not_go_on(keywords):
    assert ended(run_of(lone(), **keywords)).final_run() is None


def test_the_start_counts():
    """No round of an absurd learning rate is better than the linear start: it is kept."""
    generator = torch.Generator().manual_seed(0)
    start = linear_model(
        X, NOTHING, 2, "feature", method="factor_analysis", floor=1e-6, generator=generator
    )
    run = run_of(lone().linearise(start), learning_rate=5.0)
    trained = train([run], X, NOTHING)[0]
    assert trained.bound == pytest.approx(validation_bound(run, run.model), abs=1e-11)  # as above
    assert trained.bound > max(trained.validation_bounds)
    assert len(trained.validation_bounds) == run.n_iter_no_change
    for name, weights in run.model.state_dict().items():
        assert torch.equal(trained.model.state_dict()[name], weights)


def test_without_validation_the_last_weights_are_kept():
    run = run_of(lone(), n_validation=0, max_iter=9)
    trained = train([run], X, NOTHING)[0]
    assert trained.validation_bounds == []
    assert len(trained.training_bounds) == run.max_iter
    assert trained.bound == trained.training_bounds[-1]
    steps = run.max_iter * run.n_steps
    assert trained.optimizer["n_steps"]["n_steps"].item() == steps


def learning_rates(run):
    """After every round, the first excepted."""
    work = Training([run], X, NOTHING)
    return [watches[0].learning_rate for watches in work.rounds()]


def test_schedules():
    run = run_of(lone(), max_iter=8, n_iter_no_change=8, learning_rate=1e-2, tol=1e9)
    rates = {name: learning_rates(replace(run, schedule=name)) for name in ALL_SCHEDULES}
    assert rates["constant"] == [1e-2] * 8
    cosine = [0.5e-2 * (1 + math.cos(math.pi * i / 8)) for i in range(1, 9)]
    # The same formula, up to the order of its factors.
    assert rates["cosine"] == pytest.approx(cosine, rel=1e-12, abs=1e-17)
    # Nothing gains 1e9 nats: after half of the patience, and again after all of it.
    adaptive = [1e-2] * 3 + [0.3e-2] * 4 + [0.09e-2]
    assert rates["adaptive"] == pytest.approx(adaptive, rel=1e-12)
    assert learning_rates(replace(run, tol=-1e9, schedule="adaptive")) == [1e-2] * 8


ALL_SCHEDULES = ("adaptive", "cosine", "constant")


def test_the_schedule_reaches_the_steps():
    runs = [run_of(lone(), max_iter=4, schedule=name) for name in ("constant", "cosine")]
    constant, cosine = (train([run], X, NOTHING)[0].training_bounds for run in runs)
    assert constant[0] == cosine[0]
    assert constant[1] != cosine[1]


@pytest.mark.parametrize("n_validation", [0, 20])
def test_a_loss_that_is_not_finite_is_flagged_and_harms_no_one(n_validation):
    x = X.float()
    keywords = {"n_validation": n_validation, "max_iter": 6}
    bad = run_of(lone(0, like=x), 0, learning_rate=1e30, **keywords)
    good = [run_of(lone(i, 3, like=x), i, **keywords) for i in (1, 2)]
    trained, *others = train([bad, *good], x, x[:, :0])
    assert not trained.is_finite
    assert len(trained.training_bounds) < bad.max_iter
    # The first step overshot, so that the best weights were the first.
    for name, weights in bad.model.state_dict().items():
        assert torch.equal(trained.model.state_dict()[name], weights)
    if n_validation:
        # float32: sums over 20 rows of some 20 nats, in another order
        assert trained.bound == pytest.approx(validation_bound(bad, bad.model, x), abs=1e-4)
    for run, other in zip(good, others, strict=True):
        assert other.is_finite
        alone = train([run], x, x[:, :0])[0]
        # float32 histories: six rounds of roundings, of some 20 nats each
        np.testing.assert_allclose(other.training_bounds, alone.training_bounds, atol=1e-4)


def test_training_goes_on_from_the_optimizers_state():
    run = run_of(lone(), n_validation=0, max_iter=10)
    first = train([run], X, NOTHING)[0]
    resumed = replace(run, model=first.model, optimizer=first.optimizer)
    second, anew = train([resumed, replace(resumed, optimizer=None)], X, NOTHING)
    n_steps = [t.optimizer["n_steps"]["n_steps"].item() for t in (first, second, anew)]
    assert n_steps == [10 * run.n_steps, 20 * run.n_steps, 10 * run.n_steps]
    # The moments matter: the same weights, rows and noise, and yet another first round.
    assert second.training_bounds[0] != anew.training_bounds[0]


def test_resuming_equals_never_having_stopped():
    """One batch of all rows and no noise to speak of: only Adam's state is to be handed on."""
    model = lone()
    with torch.no_grad():  # a posterior without width: its draws do not matter
        model.encoder.linear.bias[0, 1] = -50.0
    run = run_of(model, n_validation=0, max_iter=20, batch_size=150, schedule="constant")
    whole = train([run], X, NOTHING)[0]
    half = train([replace(run, max_iter=10)], X, NOTHING)[0]
    rest = replace(run, max_iter=10, model=half.model, optimizer=half.optimizer)
    joined = train([rest], X, NOTHING)[0]
    # What is left of the noise is exp(-14), the narrowest posterior, in every step.
    for name, weights in whole.model.state_dict().items():
        torch.testing.assert_close(joined.model.state_dict()[name], weights, rtol=0, atol=1e-4)


def test_models_are_picked_from_a_stack_as_they_were():
    sizes = [(2, (8, 4)), (5, (3, 9)), (1, (1, 1))]
    models = [lone(i, q, hidden, 3) for i, (q, hidden) in enumerate(sizes)]
    stacked = stack(models)
    assert all(len(weights) == 3 for weights in stacked.parameters())
    assert stacked.architecture.hidden_layer_sizes == (8, 9)
    for k, model in enumerate(models):
        picked = pick(stacked.state_dict(), k, model.architecture)
        assert picked.keys() == model.state_dict().keys()
        for name, weights in model.state_dict().items():
            assert torch.equal(picked[name], weights)


def test_idle_components_cost_nothing():
    """Padding: prior and posterior are one, to the bit, and no gradient arises."""
    models = [lone(0, 2, (8,)), lone(1, 5, (3,))]
    stacked = stack(models)
    noise = torch.zeros(3, 2, 178, 5, dtype=X.dtype)
    given = torch.randn(3, 1, 178, 2, generator=torch.Generator().manual_seed(0), dtype=X.dtype)
    noise[:, :1, :, :2] = given
    terms = stacked.terms(X.expand(2, -1, -1), NOTHING.expand(2, -1, -1), noise)
    assert (terms.kl[0, :, 2:] == 0).all()
    alone = models[0].terms(X[None], NOTHING[None], given)
    for name in ("log_px", "log_ratio"):
        # Sums over 8 units or 5 components in another order.
        pair = getattr(terms, name)[:, :1], getattr(alone, name)
        torch.testing.assert_close(*pair, rtol=0, atol=1e-11)
    bound = elbo(terms, X.new_ones(2)).sum()
    gradients = dict(
        zip(
            [name for name, _ in stacked.named_parameters()],
            torch.autograd.grad(bound, list(stacked.parameters())),
            strict=True,
        )
    )
    assert (gradients["encoder.linear.weight"][0, ..., 2:] == 0).all()
    assert (gradients["decoder.linear.weight"][0, 2:] == 0).all()
    assert (gradients["encoder.head.weight"][1, 3:] == 0).all()


@pytest.mark.parametrize("noise", ["feature", "decoder"])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 4)])
@pytest.mark.parametrize("c", [NOTHING, LABELS], ids=["unconditional", "conditional"])
def test_the_order_of_components_leaves_the_density(c, hidden, noise):
    run = run_of(lone(0, 4, hidden, c.shape[1], noise=noise), max_iter=3)
    trained, order = train([run], X, c)[0], torch.tensor([2, 0, 3, 1])
    reordered = trained.reorder(order)
    draws = torch.randn(3, 1, 178, 4, generator=torch.Generator().manual_seed(0), dtype=X.dtype)
    with torch.no_grad():
        before = trained.model.terms(X[None], c[None], draws)
        after = reordered.model.terms(X[None], c[None], draws[..., order])
    for name in ("log_px", "log_ratio"):
        # Sums over four components in another order.
        pair = getattr(after, name), getattr(before, name)
        torch.testing.assert_close(*pair, rtol=0, atol=1e-11)
    torch.testing.assert_close(after.kl, before.kl[..., order], rtol=0, atol=1e-12)
    # The moments move as the weights do, and the inverse order brings all back.
    moments = trained.optimizer["second"]
    moved = reorder_components(moments, run.model.architecture, order)
    for name, part in reordered.optimizer["second"].items():
        assert torch.equal(part, moved[name])
    assert_same(reordered.reorder(order.argsort()), trained, 0)


def filled(model, bound, x, c, noise, *masks, beta):
    """The bound and ``grad`` of all parameters, by hand."""
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)  # every one has to be filled
    value = Gradient(model, bound, beta).fill(x, c, noise, *masks)
    return value, [parameter.grad for parameter in model.parameters()]


LIKELIHOODS_AND_NOISES = [
    ("gaussian", "feature"), ("gaussian", "shared"), ("gaussian", "decoder"), ("gaussian", 0.5),
    ("bernoulli", "feature"), ("student_t", "feature"), ("student_t", "shared"),
    ("student_t", "decoder"),
]  # fmt: skip


@pytest.mark.parametrize(("likelihood", "noise"), LIKELIHOODS_AND_NOISES)
@pytest.mark.parametrize("hidden", [(), (8,), (8, 4)])
@pytest.mark.parametrize("c", [NOTHING, LABELS], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("n_draws", [1, 3])
def test_the_gradient_is_autograds(n_draws, c, hidden, likelihood, noise):
    """Of all parameters, in two models, one of them padded."""
    x = torch.sigmoid(X) if likelihood == "bernoulli" else X
    a = {"like": x, "likelihood": likelihood, "noise": noise}
    smaller = tuple(size - 1 for size in hidden)
    model = stack([lone(0, 3, hidden, c.shape[1], **a), lone(1, 2, smaller, c.shape[1], **a)])
    generator, beta = torch.Generator().manual_seed(0), X.new_tensor([0.5, 2.0])
    noise = torch.randn(n_draws, 2, 178, 3, generator=generator, dtype=X.dtype)
    noise[:, 1, :, 2] = 0
    x, c = x.expand(2, -1, -1), c.expand(2, -1, -1)
    value, found = filled(model, ELBO, x, c, noise, beta=beta)
    bound = elbo(model.terms(x, c, noise), beta)
    # Sums over 178 rows of products of numbers near 1, in another order.
    close = {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(value, bound, **close)
    expected = torch.autograd.grad(
        bound.mean(1).sum(), list(model.parameters()), materialize_grads=True
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **close)


@pytest.mark.parametrize("noise", ["feature", "shared", "decoder", 0.5])
@pytest.mark.parametrize("c", [NOTHING, LABELS], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("has_exposure", [False, True])
def test_the_gradient_of_a_mixed_table_is_autograds(c, noise, has_exposure):
    names = {"noise": noise, "has_exposure": has_exposure}
    model = stack([lone_mixed(i, 2, (8,), c.shape[1], **names) for i in range(2)])
    generator, beta = torch.Generator().manual_seed(0), X.new_tensor([0.5, 2.0])
    draws = torch.randn(3, 2, 178, 2, generator=generator, dtype=X.dtype)
    x = torch.cat((X_MIXED, X[:, :1]), 1) if has_exposure else X_MIXED
    x, c = x.expand(2, -1, -1), c.expand(2, -1, -1)
    value, found = filled(model, ELBO, x, c, draws, beta=beta)
    bound = elbo(model.terms(x, c, draws), beta)
    torch.testing.assert_close(value, bound, rtol=1e-9, atol=1e-11)
    expected = torch.autograd.grad(
        bound.mean(1).sum(), list(model.parameters()), materialize_grads=True
    )
    for ours, theirs in zip(found, expected, strict=True):
        # As above; counts up to 15 make larger sums.
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_the_gradient_is_that_of_finite_differences(activation):
    """With dropout, which only training has; a direction at random."""
    model = lone(0, 2, (8, 4), activation=activation)
    generator, one = torch.Generator().manual_seed(0), X.new_ones(1)

    def normals(*shape):
        return torch.randn(shape, generator=generator, dtype=X.dtype)

    masks = [tuple((normals(1, 178, n) > 0) / 0.5 for n in sizes) for sizes in ((8, 4), (4, 8))]
    masks = [tuple(mask.to(X) for mask in some) for some in masks]
    given = X[None], NOTHING[None], normals(1, 1, 178, 2), *masks
    with torch.no_grad():  # biases of 0 under masks would stand right at the kink of a ReLU
        for parameter in model.parameters():
            parameter += 0.1 * normals(*parameter.shape)
    _, found = filled(model, ELBO, *given, beta=one)
    direction = [normals(*parameter.shape) for parameter in model.parameters()]
    slope = sum((g * d).sum().item() for g, d in zip(found, direction, strict=True))
    values, step = [], 1e-6
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, d in zip(model.parameters(), direction, strict=True):
                parameter += sign * step * d
        values.append(filled(model, ELBO, *given, beta=one)[0].mean().item())
    # Central differences: relative errors of about the step, and of rounding over the step.
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-5)


def test_a_clamped_posterior_finds_back():
    """Far too wide, it is clamped; the gradient by hand passes over that and narrows it."""
    model = lone(0, 2, (8,))
    with torch.no_grad():
        model.encoder.linear.bias[0, 1] = 9.0
    filled(model, ELBO, X[None], NOTHING[None], X.new_zeros(1, 1, 178, 2), beta=X.new_ones(1))
    assert (model.encoder.linear.bias.grad[0, 1] < -1).all()


class Laplace(Likelihood):
    """As short as a likelihood may be: no gradient of its own."""

    parameters, reading = ("loc", "log_scale"), "standardised"

    def __init__(self, loc, log_scale):
        self.loc, self.log_scale = loc, log_scale

    @classmethod
    def of(cls, *outputs):
        return cls(*outputs)

    @classmethod
    def start(cls, mean, variance):
        return mean, 0.5 * torch.log(variance / 2)

    def log_prob(self, x):
        scaled = (x - self.loc).abs() * (-self.log_scale).exp()
        return -scaled - self.log_scale - math.log(2)


@pytest.mark.parametrize("noise", ["feature", "shared", "decoder", 0.5])
def test_a_likelihood_without_a_gradient_of_its_own_trains(monkeypatch, noise):
    monkeypatch.setitem(LIKELIHOODS, "laplace", Laplace)
    run = run_of(lone(likelihood="laplace", noise=noise), n_importance_samples=2, max_iter=30)
    trained = train([run], X, NOTHING)[0]
    assert trained.is_finite
    assert trained.bound > validation_bound(run, run.model) + 0.1


@pytest.mark.parametrize("alpha", [0.0, 0.1])
@pytest.mark.parametrize(
    ("numbers_a_tensor", "way"), [(0, OneKernel), (math.inf, Elementwise)], ids=["kernel", "each"]
)
def test_adam_is_torchs(monkeypatch, numbers_a_tensor, way, alpha):
    """Each model of a stack steps as torch's AdamW does on it alone; biases do not decay."""
    monkeypatch.setattr("skvae._adam._NUMBERS_A_TENSOR", numbers_a_tensor)
    n_steps, step = [], way.step
    monkeypatch.setattr(way, "step", lambda self: (step(self), n_steps.append(1)))
    # The last is like the first, but not its neighbour.
    rates, counts = X.new_tensor([1e-2, 1e-2, 3e-3, 1e-2]), [0.0, 7.0, 7.0, 0.0]
    models = [lone(i, 2, (4,)) for i in range(len(rates))]
    alphas = alpha * X.new_tensor([1, 3, 2, 1])
    stacked = stack(models)
    ours = Adam(stacked, alphas, 10)
    ours.flat["n_steps"].copy_(X.new_tensor(counts)[:, None])

    def gradients(model):
        """Of the bound's mean over rows, by autograd."""
        n_models = len(model.dispersion)
        x, zero = X.expand(n_models, -1, -1), X.new_zeros(1, n_models, 178, 2)
        bound = elbo(model.terms(x, x[..., :0], zero), X.new_ones(n_models))
        return torch.autograd.grad(bound.mean(1).sum(), list(model.parameters()))

    theirs = []
    for model, rate, decay, count in zip(
        models, rates.tolist(), alphas.tolist(), counts, strict=True
    ):
        named = list(model.named_parameters())
        weights = [p for name, p in named if name.endswith("weight")]
        rest = [p for name, p in named if not name.endswith("weight")]
        groups = [{"params": weights, "weight_decay": decay}, {"params": rest, "weight_decay": 0}]
        theirs.append(torch.optim.AdamW(groups, lr=rate))
        for p in model.parameters():
            zero = torch.zeros_like(p)
            begun = {"step": torch.tensor(count), "exp_avg": zero, "exp_avg_sq": zero.clone()}
            theirs[-1].state[p] = begun
    for i in range(20):
        if i % 10 == 0:
            ours.plan(rates)
        for parameter, gradient in zip(stacked.parameters(), gradients(stacked), strict=True):
            parameter.grad.copy_(gradient)
        ours.step()
        for model, optimizer in zip(models, theirs, strict=True):
            for parameter, gradient in zip(model.parameters(), gradients(model), strict=True):
                parameter.grad = -gradient
            optimizer.step()
    assert len(n_steps) == 20
    state = ours.state(ours.flat)
    for k, (model, optimizer) in enumerate(zip(models, theirs, strict=True)):
        for name, parameter in model.named_parameters():
            kept = optimizer.state[parameter]
            expected = parameter.detach(), -kept["exp_avg"], kept["exp_avg_sq"]
            for part, value in zip(("weights", "first", "second"), expected, strict=True):
                # Twenty steps of roundings, of numbers near 1.
                torch.testing.assert_close(state[part][name][k], value[0], rtol=0, atol=1e-11)


def test_the_ways_of_a_step_take_turns(monkeypatch):
    """Models whose rates part, as a schedule has them do, and meet again."""

    def stepped(numbers_a_tensor):
        monkeypatch.setattr("skvae._adam._NUMBERS_A_TENSOR", numbers_a_tensor)
        model = stack([lone(i, 2, (4,)) for i in range(2)])
        adam = Adam(model, X.new_zeros(2), 5)
        generator = torch.Generator().manual_seed(0)
        for rates in ([1e-2, 1e-2], [1e-2, 3e-3], [3e-3, 3e-3]):
            adam.plan(X.new_tensor(rates))
            for _ in range(5):
                for parameter in model.parameters():
                    parameter.grad.normal_(generator=generator)
                adam.step()
        return adam.flat

    # Fifteen steps of roundings, of numbers near 1.
    torch.testing.assert_close(stepped(math.inf), stepped(0), rtol=0, atol=1e-12)


def warmed_up(step, state, device):
    """What `capture` does on CUDA before it records, here on the CPU."""
    saved = [tensor.clone() for tensor in state]
    for _ in range(3):
        step()
        for tensor, value in zip(state, saved, strict=True):
            tensor.copy_(value)
    return step


# Four steps a round: after 16 rounds, where two of three runs end, a block of 64 is used up.
BETWEEN = {"rows": 128, "max_iter": 18}
LARGE = {"n_importance_samples": 2**10, "batch_size": 64, "max_iter": 2}


@pytest.mark.parametrize(
    "keywords",
    [{"max_iter": 30}, {"n_importance_samples": 2, "max_iter": 7}, BETWEEN, LARGE],
    ids=["elbo", "iwae", "between_blocks", "blocks_of_one_step"],
)
def test_warming_up_before_a_capture_leaves_no_trace(monkeypatch, keywords):
    """Whatever the length of a block, and wherever in it a group is packed anew."""
    short = {**keywords, "max_iter": min(16, keywords["max_iter"])}
    runs = [
        run_of(lone(i, hidden=(4,)), i, n_iter_no_change=99, **given)
        for i, given in enumerate((keywords, short, short))
    ]
    plain = train(runs, X, NOTHING)
    monkeypatch.setattr(training, "capture", warmed_up)
    for one, other in zip(plain, train(runs, X, NOTHING), strict=True):
        assert_same(one, other, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("n_draws", [1, 3])
def test_on_cuda_the_captured_step_is_the_eager_one(monkeypatch, n_draws):
    x = X.cuda()
    runs = unlike(n_draws, like=x, dropout=0.1)
    captured = train(runs, x, x[:, :0])
    monkeypatch.setattr(training, "capture", lambda step, state, device: step)
    for one, other in zip(captured, train(runs, x, x[:, :0]), strict=True):
        # Kernels may differ between the two: law 1's tolerance.
        assert_same(one, other, 1e-10)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_result_is_that_of_the_cpu(monkeypatch):
    """Given the same noise: CUDA's generator would draw other numbers."""
    cpu = train(unlike(), X, NOTHING)

    class SameNoise(Stream):
        def __init__(self, run):
            here = replace(run, model=VAE(run.model.architecture).double(), rows=run.rows.cpu())
            super().__init__(here)

        def validation_noise(self):
            return super().validation_noise().cuda()

        def block(self):
            block = super().block()
            moved = (part.cuda() for part in block[:3])
            masks = (tuple(mask.cuda() for mask in part) for part in block[3:])
            return type(block)(*moved, *masks)

    monkeypatch.setattr(training, "Stream", SameNoise)
    runs = [
        replace(
            run,
            model=run.model.cuda(),
            rows=run.rows.cuda(),
            validation_rows=run.validation_rows.cuda(),
        )
        for run in unlike()
    ]
    for run, one, other in zip(runs, cpu, train(runs, X.cuda(), NOTHING.cuda()), strict=True):
        # Sums in another order, in float64, for up to 200 steps that magnify them.
        np.testing.assert_allclose(other.training_bounds, one.training_bounds, atol=1e-8)
        assert other.bound == pytest.approx(one.bound, abs=1e-8)
        assert len(other.validation_bounds) <= run.max_iter
