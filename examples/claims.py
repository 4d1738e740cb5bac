"""What lecture notes on variational autoencoders claim, tested.

Are samples noisy or blurry, what does a learned variance change, are importance-weighted
bounds worth their cost, what does a label add, and how do samples compare with those of a
generative adversarial network? Tables, findings and pictures, on scikit-learn's digits:

    python examples/claims.py --output docs/claims.md
"""

from __future__ import annotations

import argparse
import platform
import textwrap
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib

matplotlib.use("Agg")  # files are all that is drawn

import numpy as np
import sklearn
import torch
from _gan import GAN
from demo import JITTER, N_PICTURES, SIDE, Digits, load, mosaic
from matplotlib import pyplot as plt
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from skvae import ConditionalVAE, VAETransformer

N_DRAWS = 256  # of z, for log p(x)
N_SHOWN = 10 * N_PICTURES  # rows in a panel of a picture
N_SETS = 5  # of drawn rows, each as many as there are held-out rows
Variance = Literal["feature", "shared", "decoder"] | float
VARIANCES: list[Variance] = ["feature", "shared", "decoder", 1.0]

# The bounds are compared at the same number of decoder evaluations, and of steps too: a
# step has 120 of them, as 120 rows with one draw, 24 rows with 5 or 6 rows with 20.
EVALUATIONS_OF_A_STEP = 120
EVALUATIONS_OF_A_ROW = 400
IMPORTANCE_SAMPLES = [1, 5, 20]

GAN_STEPS = 5000
GAN_COMPONENTS = 16
# Learning rates and seeds. The slower rate is harder to tell from real rows, the faster
# covers more of them.
GANS = [(5e-4, 0), (5e-4, 1), (1e-3, 0)]

# Nearest neighbours that make a manifold: as in the papers.
N_NEIGHBOURS_RECALL = 3
N_NEIGHBOURS_COVERAGE = 5
N_PRINCIPAL = 16  # principal components in which neighbours are sought


class Gain(NamedTuple):
    """A difference of two means, and its standard error."""

    mean: float
    error: float

    @classmethod
    def paired(cls, a: np.ndarray, b: np.ndarray) -> Gain:
        """Of two numbers for each row."""
        difference = np.subtract(a, b, dtype=float)
        error = np.std(difference, ddof=1) / np.sqrt(len(difference))
        return cls(float(difference.mean()), float(error))

    @classmethod
    def unpaired(cls, a: np.ndarray, b: np.ndarray) -> Gain:
        error = np.sqrt(np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b))
        return cls(float(np.mean(a) - np.mean(b)), float(error))

    @property
    def verdict(self) -> str:
        """Whether there is a gain: beyond two standard errors, or nobody knows."""
        if abs(self.mean) <= 2 * self.error:
            return "**Undecided.**"
        return judged(self.mean > 0)

    def __neg__(self) -> Gain:
        return Gain(-self.mean, self.error)

    def __format__(self, spec: str) -> str:
        return f"{self.mean:{spec}} ± {self.error:{spec.removeprefix('+')}}"


class Telling(NamedTuple):
    """How well a classifier tells held-out rows from drawn ones, for each set of these."""

    accuracy: np.ndarray
    auc: np.ndarray


class Likeness(NamedTuple):
    """What drawn rows share with held-out ones, for each set of these."""

    precision: np.ndarray
    recall: np.ndarray
    coverage: np.ndarray


class Judge:
    """Everything that is asked of drawn rows; it knows the real ones alone."""

    def __init__(self, data: Digits) -> None:
        self.data = data
        self.n_drawn = N_SETS * len(data.X_test)
        self._principal = PCA(N_PRINCIPAL, random_state=0).fit(data.X_train)
        self.digits = support_vectors().fit(data.X_train, data.y_train)

    def sets(self, drawn: np.ndarray) -> list[np.ndarray]:
        """Sets of as many rows as are held out."""
        n = len(self.data.X_test)
        return [drawn[start : start + n] for start in range(0, len(drawn) - n + 1, n)]

    def telling(self, drawn: np.ndarray) -> Telling:
        """By support vectors, which look at the picture as a whole."""
        return Telling(*np.transpose([self._tell(support_vectors(), s) for s in self.sets(drawn)]))

    def auc_of_trees(self, drawn: np.ndarray) -> float:
        """By trees, which look at one pixel after another; on the first set."""
        trees = ExtraTreesClassifier(50, random_state=0)
        return self._tell(trees, self.sets(drawn)[0])[1]

    def _tell(self, classifier: Any, drawn: np.ndarray) -> tuple[float, float]:
        """Accuracy and area under the ROC curve, in five-fold cross-validation."""
        X = np.concatenate([self.data.X_test, drawn])
        is_real = np.arange(len(X)) < len(self.data.X_test)
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        p = cross_val_predict(classifier, X, is_real, cv=folds, method=scores_of(classifier))
        score, threshold = (p, 0) if p.ndim == 1 else (p[:, 1], 0.5)
        accuracy = np.mean((score > threshold) == is_real)
        return float(accuracy), float(roc_auc_score(is_real, score))

    def likeness(self, drawn: np.ndarray) -> Likeness:
        real = self._principal.transform(self.data.X_test)
        results = []
        for rows in self.sets(drawn):
            fake = self._principal.transform(rows)
            distance = cdist(real, fake)
            of_real, of_fake = radii(real, N_NEIGHBOURS_RECALL), radii(fake, N_NEIGHBOURS_RECALL)
            precision = (distance < of_real[:, None]).any(0).mean()
            recall = (distance < of_fake).any(1).mean()
            coverage = (distance.min(1) < radii(real, N_NEIGHBOURS_COVERAGE)).mean()
            results.append((precision, recall, coverage))
        return Likeness(*np.transpose(results))

    def compare(self, drawn: np.ndarray) -> Compared:
        return Compared(
            drawn, self.telling(drawn), self.likeness(drawn), self.digits.predict(drawn)
        )

    def for_display(self, rows: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
        """The first rows, none left out, in the order of the digits read in ``like``."""
        read = self.digits.predict((rows if like is None else like)[:N_SHOWN])
        return rows[:N_SHOWN][np.argsort(read, kind="stable")]


def support_vectors() -> Any:
    return make_pipeline(StandardScaler(), SVC(random_state=0))


def scores_of(classifier: Any) -> str:
    return "decision_function" if hasattr(classifier, "decision_function") else "predict_proba"


def radii(rows: np.ndarray, n_neighbours: int) -> np.ndarray:
    """Distance of each row to its nearest neighbour of that rank."""
    return np.sort(cdist(rows, rows), axis=1)[:, n_neighbours]  # rank 0 is the row itself


def curvature(rows: np.ndarray) -> np.ndarray:
    """Mean square of the discrete Laplacian of each picture, in squared grey levels."""
    x = rows.reshape(-1, SIDE, SIDE)
    inner = x[:, 1:-1, 1:-1]
    around = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
    return ((4 * inner - around) ** 2).mean((1, 2))


def sharpness(rows: np.ndarray) -> float:
    """Root mean square of the Laplacian, in grey levels."""
    return float(np.sqrt(curvature(rows).mean()))


def piled_up(rows: np.ndarray) -> float:
    """Share of the pixels that are black or white, give or take the jitter."""
    return float(np.mean((np.abs(rows) < JITTER) | (np.abs(rows - 16) < JITTER)))


def jittered(rows: np.ndarray) -> np.ndarray:
    """With the noise the data were given, or they could be told by its absence alone."""
    return rows + np.random.default_rng(2).normal(scale=JITTER, size=rows.shape)


class Fitted(NamedTuple):
    model: Any
    seconds: float


def fit(model: Any, *arrays: np.ndarray) -> Fitted:
    """Fit, and keep the time it took."""
    start = time.perf_counter()
    model.fit(*arrays)
    return Fitted(model, time.perf_counter() - start)


class Section(NamedTuple):
    title: str  # the claim
    answer: str  # in a sentence
    body: str  # Markdown: how it was measured, a table, the findings


class Study:
    """The data, the judge, and what more than one section needs."""

    def __init__(self, folder: Path) -> None:
        self.data = load()
        self.judge = Judge(self.data)
        self.folder = folder

    @cached_property
    def by_variance(self) -> dict[Variance, Fitted]:
        """The autoencoder with each kind of variance, all else by default."""
        return {
            kind: fit(
                VAETransformer(noise_variance=kind, random_state=0, device="cpu"),
                self.data.X_train,
            )
            for kind in VARIANCES
        }

    def samples(self, kind: Variance = "feature") -> np.ndarray:
        return self.by_variance[kind].model.sample(self.judge.n_drawn, random_state=1)

    def means(self, kind: Variance = "feature") -> np.ndarray:
        """E[x|z] at the z of the samples."""
        return self.by_variance[kind].model.sample(self.judge.n_drawn, mean=True, random_state=1)

    def log_p(self, model: Any, **given: Any) -> np.ndarray:
        """Of the held-out rows, in nats."""
        return np.asarray(model.score_samples(self.data.X_test, n_draws=N_DRAWS, **given))

    def draw(self, name: str, panels: Mapping[str, np.ndarray]) -> str:
        """A picture with a panel for each group of rows; gives the Markdown that shows it."""
        path = self.folder / f"{name}.png"
        draw(panels, path)
        return f"![From left to right: {', '.join(panels)}]({self.folder.name}/{path.name})"


# 1. Samples and means


def noise(study: Study) -> Section:
    """Samples against means."""
    judge, real = study.judge, study.data.X_test
    drawn = drawn_rows(study)
    told = {name: judge.telling(rows) for name, rows in drawn.items()}
    by_trees = {name: judge.auc_of_trees(rows) for name, rows in drawn.items()}
    rows = [["held-out rows", f"{sharpness(real):.1f}", "", "", ""]]
    for name, x in drawn.items():
        accuracy, auc = told[name].accuracy.mean(), told[name].auc.mean()
        numbers = f"{accuracy:.3f}", f"{auc:.3f}", f"{by_trees[name]:.3f}"
        rows.append([name, f"{sharpness(x):.1f}", *numbers])
    samples, means = drawn["samples, feature"], drawn["means, feature"]
    answer = (
        f"Samples have {sharpness(samples) / sharpness(real):.0%} of the sharpness of real rows, "
        f"means {sharpness(means) / sharpness(real):.0%}; a classifier tells samples from real "
        f"rows with AUC {told['samples, feature'].auc.mean():.2f}, means with "
        f"{told['means, feature'].auc.mean():.2f}."
    )
    body = f"""\
A sample is z from p(z), then x from p(x|z). Most code shows E[x|z] and calls that a sample.

- *Sharpness* is the root mean square of the discrete Laplacian over the inner pixels, in grey
  levels. Edges raise it and blur lowers it, but noise raises it too.
- *Accuracy* and *AUC* are of support vectors (RBF kernel) that try to tell the held-out rows from
  as many drawn ones, in five-fold cross-validation; means over {N_SETS} sets of drawn rows. 0.5 is
  chance. In the last column are extremely randomised trees, on the first set.
- Means have the jitter of the data added, for without it a classifier looks at nothing else.
- Training rows stand for a perfect model.

{table(["rows, noise_variance", "sharpness", "accuracy", "AUC", "AUC of trees"], rows)}

Of the default, `noise_variance="feature"`:

{bullets(findings_on_noise(study, drawn, told, by_trees))}"""
    return Section("Samples are noisy, not blurry", answer, body)


def drawn_rows(study: Study) -> dict[str, np.ndarray]:
    """All that is to be told from held-out rows."""
    drawn = {"training rows": study.data.X_train[: 2 * len(study.data.X_test)]}
    for kind in VARIANCES:
        drawn[f"samples, {kind}"] = study.samples(kind)
        drawn[f"means, {kind}"] = jittered(study.means(kind))
    drawn["means, feature, no jitter"] = study.means()
    drawn["samples at z from q(z), feature"] = samples_of_posteriors(study)
    return drawn


def samples_of_posteriors(study: Study) -> np.ndarray:
    """x from p(x|z) at z from q(z), the posteriors of training rows, in place of p(z)."""
    random = np.random.default_rng(1)
    X, model = study.data.X_train, study.by_variance["feature"].model
    mean, std = model.posterior(X[random.integers(len(X), size=study.judge.n_drawn)])
    x = model.inverse_transform(random.normal(mean, std))
    return random.normal(x, np.sqrt(model.noise_variance_))


def findings_on_noise(
    study: Study,
    drawn: Mapping[str, np.ndarray],
    told: Mapping[str, Telling],
    by_trees: Mapping[str, float],
) -> list[str]:
    samples, means = drawn["samples, feature"], drawn["means, feature"]
    real = study.data.X_test
    energy = curvature(real).mean()
    sharper = Gain.unpaired(curvature(samples), curvature(real))
    blurred = Gain.unpaired(curvature(real), curvature(means))
    auc = {name: each.auc for name, each in told.items()}
    noisy = Gain.paired(auc["means, feature"], auc["samples, feature"])
    prior = Gain.paired(auc["samples, feature"], auc["samples at z from q(z), feature"])
    gap = study.by_variance["feature"].model.marginal_kl(study.data.X_train)
    least = min(auc for name, auc in by_trees.items() if name != "training rows")
    part_of_noise = 1 - curvature(study.means()).mean() / curvature(samples).mean()
    return [
        f"{judged(sharper.mean > -2 * sharper.error)} Samples are not blurry: the mean squared "
        f"Laplacian of held-out rows is {energy:.0f} squared grey levels, theirs {sharper:+.0f} to "
        "that.",
        f"{blurred.verdict} Means are blurry: {-blurred:+.0f} to that. So {part_of_noise:.0%} of "
        "what makes samples sharp is noise, pixel by pixel, and not edges.",
        f"{noisy.verdict} Means are easier to tell from real rows than samples: AUC {noisy:+.3f}.",
        f"{prior.verdict} Part of what gives samples away is the prior, not the noise: with z from "
        "q(z), the posteriors of training rows, in place of p(z) the AUC changes by "
        f"{-prior:+.3f}, to {auc['samples at z from q(z), feature'].mean():.3f}. "
        f"KL[q(z) || p(z)] is {gap:.1f} nats.",
        f"{judged(least < 0.95)} Samples pass for real with any classifier: the least AUC of the "
        f"trees is {least:.3f}. They look at one pixel at a time. Of the real ones "
        f"{piled_up(real):.0%} are black or white, give or take the jitter, of the sampled ones "
        f"{piled_up(samples):.0%}; a normal p(x|z) cannot pile up at a value.",
    ]


# 2. The variance of p(x|z)


def variance(study: Study) -> Section:
    """Learned variances against a unit one."""
    data = study.data
    log_p = {kind: study.log_p(model) for kind, (model, _) in study.by_variance.items()}
    right = {
        kind: linear_classifier()
        .fit(model.transform(data.X_train), data.y_train)
        .predict(model.transform(data.X_test))
        == data.y_test
        for kind, (model, _) in study.by_variance.items()
    }
    rows = [
        [
            str(kind),
            f"{log_p[kind].mean():.1f}",
            f"{told_by_code(model):.1f}",
            f"{model.n_active_components_}",
            f"{right[kind].mean():.3f}",
            f"{sharpness(study.samples(kind)):.1f}",
            f"{sharpness(study.means(kind)):.1f}",
            f"{seconds:.1f}",
        ]
        for kind, (model, seconds) in study.by_variance.items()
    ]
    nats = Gain.paired(log_p["feature"], log_p[1.0])
    features = Gain.paired(right["feature"], right[1.0])
    answer = (
        f"A learned variance for each pixel scores {nats:+.1f} nats a row against a unit one; a "
        f"linear classifier on the features is right {right['feature'].mean():.1%} of the time, "
        f"with the unit variance {right[1.0].mean():.1%}."
    )
    header = ["noise_variance", "log p(x)", "KL", "active", "accuracy"]
    header += ["sharpness of samples", "of means", "fit, s"]
    panels = {
        f"noise_variance={kind!r}": study.judge.for_display(study.samples(kind))
        for kind in VARIANCES
    }
    body = f"""\
`noise_variance=1.0`, in units of standardised columns, is what code does that trains on the
squared error plus KL. *KL* is how much information about a row z carries, in nats; *active* are
components above 0.01 nats; *accuracy* is of a linear classifier on the features; *sharpness* as
above.

{table(header, rows)}

{bullets(findings_on_variance(study, log_p, nats, features))}

{study.draw("variances", panels)}

Samples: the first {N_SHOWN}, none left out, in the order of the digits a classifier reads."""
    return Section("Learn the variance: squared error is a unit variance in disguise", answer, body)


def told_by_code(model: Any) -> float:
    """How much information about a row z carries, in nats."""
    return float(model.kl_per_component_.sum())


def linear_classifier() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def findings_on_variance(
    study: Study, log_p: Mapping[Variance, np.ndarray], nats: Gain, features: Gain
) -> list[str]:
    told, told_less = (told_by_code(study.by_variance[kind].model) for kind in ("feature", 1.0))
    decoder = Gain.paired(log_p["decoder"], log_p["feature"])
    real, samples = sharpness(study.data.X_test), sharpness(study.samples(1.0))
    means, unit_means = sharpness(study.means()), sharpness(study.means(1.0))
    return [
        f"{nats.verdict} A learned variance for each pixel scores better than a unit one: "
        f"{nats:+.1f} nats a row.",
        f"{decoder.verdict} One for every row and pixel, from the decoder, scores better still: "
        f"{decoder:+.1f} nats.",
        f"{judged(told_less < told)} With a unit variance z carries less: {told_less:.1f} "
        f"nats in place of {told:.1f}. Detail drowns in the noise the model believes in.",
        f"{judged(unit_means < means)} So its means are blurrier: sharpness {unit_means:.1f} in "
        f"place of {means:.1f}.",
        f"{judged(samples > 1.2 * real)} Its samples are far too noisy: sharpness {samples:.1f}, "
        f"where held-out rows have {real:.1f}. Little wonder that such code shows means.",
        f"{features.verdict} Features classify better with a learned variance: accuracy "
        f"{features:+.3f}.",
    ]


# 3. Bounds


class Weighted(NamedTuple):
    """A model trained with a number of importance samples, and its held-out figures."""

    model: Any
    seconds: float
    log_p: np.ndarray
    elbo: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """KL[q(z|x) || p(z|x)] of each row, in nats."""
        return self.log_p - self.elbo

    def row(self) -> list[str]:
        model = self.model
        return [
            f"{model.n_components}",
            f"{model.n_importance_samples}",
            f"{model.batch_size}",
            f"{model.n_iter_}",
            f"{1 + np.argmax(model.validation_scores_)}",
            f"{self.seconds:.1f}",
            f"{self.log_p.mean():.2f}",
            f"{self.gap.mean():.2f}",
            f"{model.n_active_components_}",
            f"{told_by_code(model):.1f}",
        ]


def importance(study: Study) -> Section:
    """Importance-weighted bounds against the ELBO, at the same cost."""
    results = {
        n_components: {n: weighted(study, n_components, n) for n in IMPORTANCE_SAMPLES}
        for n_components in (2, 8)
    }
    rows = [result.row() for by_draws in results.values() for result in by_draws.values()]
    gains = {
        n_components: {
            n: Gain.paired(result.log_p, by_draws[1].log_p)
            for n, result in by_draws.items()
            if n > 1
        }
        for n_components, by_draws in results.items()
    }
    said = {
        n_components: ", ".join(f"{gain:+.2f} with {n} draws" for n, gain in by_draws.items())
        for n_components, by_draws in gains.items()
    }
    answer = "At the cost of the ELBO, in nats a row: " + "; ".join(
        f"at {n_components} components {text}" for n_components, text in said.items()
    )
    header = [
        "components",
        "draws",
        "batch",
        "epochs",
        "best",
        "fit, s",
        "log p(x)",
        "gap",
        "active",
    ]
    body = f"""\
That more draws make the bound tighter is a theorem (Burda, Grosse and Salakhutdinov, 2016). They
also cost more. Here every model has {EVALUATIONS_OF_A_ROW} decoder evaluations for each training
row and {EVALUATIONS_OF_A_STEP} in each step: draws x epochs and draws x batch are constant, and so
is the number of steps, to rounding. Random starts, a cosine schedule, no early end; the weights
that are best by their own bound on validation rows are kept, those of the
*best* epoch. *Gap* is log p(x) less the ELBO,
whatever was trained: how far q(z|x) is from the posterior.

{table([*header, "KL"], rows)}

{bullets(findings_on_importance(results, gains))}"""
    return Section("The importance-weighted bound trains the better model", answer + ".", body)


def weighted(study: Study, n_components: int, n_samples: int) -> Weighted:
    n_epochs = EVALUATIONS_OF_A_ROW // n_samples
    model = VAETransformer(
        n_components,
        n_importance_samples=n_samples,
        batch_size=EVALUATIONS_OF_A_STEP // n_samples,
        max_iter=n_epochs,
        n_iter_no_change=n_epochs,
        learning_rate="cosine",
        init="random",
        random_state=0,
        device="cpu",
    )
    with warnings.catch_warnings():
        # That some could go on for longer is the point: the cost is given.
        warnings.simplefilter("ignore", ConvergenceWarning)
        _, seconds = fit(model, study.data.X_train)
    X = study.data.X_test
    return Weighted(
        model,
        seconds,
        study.log_p(model),
        model.elbo(X, n_draws=N_DRAWS).elbo,
    )


def findings_on_importance(
    results: Mapping[int, Mapping[int, Weighted]],
    gains: Mapping[int, Mapping[int, Gain]],
) -> list[str]:
    active = [[r.model.n_active_components_ for r in each.values()] for each in results.values()]
    findings = [
        f"{gain.verdict} At {n_components} components {n} draws train a better model than the "
        f"ELBO does: {gain:+.2f} nats a row."
        for n_components, by_draws in gains.items()
        for n, gain in by_draws.items()
    ]
    for n_components, by_draws in results.items():
        least, most = by_draws[IMPORTANCE_SAMPLES[0]], by_draws[IMPORTANCE_SAMPLES[-1]]
        gap = Gain.paired(most.gap, least.gap)
        findings.append(
            f"{gap.verdict} The weighted bound leaves q(z|x) further from the posterior: gap "
            f"{gap:+.1f} nats at {n_components} components, {IMPORTANCE_SAMPLES[-1]} draws "
            "against 1."
        )
    more_active = judged(any(max(row) > row[0] for row in active))
    return [*findings, f"{more_active} More draws keep more components active."]


# 4. Labels


class Labelled(NamedTuple):
    """A pair of models, without labels and with, and their held-out figures."""

    model: ConditionalVAE
    without: np.ndarray  # log p(x) of the VAETransformer
    summed: np.ndarray  # log p(x) of the ConditionalVAE
    given: np.ndarray  # log p(x|c)
    right: np.ndarray  # whether p(c|x) is largest at the row's label
    telling_without: Telling  # of samples of the VAETransformer
    telling: Telling  # of samples of the ConditionalVAE, labels at random
    samples: np.ndarray  # share read as the label asked for, by label
    means: np.ndarray

    def row(self) -> list[str]:
        return [
            f"{self.model.n_components}",
            *(f"{log_p.mean():.1f}" for log_p in (self.without, self.summed, self.given)),
            f"{self.right.mean():.3f}",
            f"{self.samples.mean():.3f}",
            f"{self.samples.min():.3f}",
            f"{self.means.mean():.3f}",
            f"{self.telling_without.auc.mean():.3f}",
            f"{self.telling.auc.mean():.3f}",
        ]


def condition(study: Study) -> Section:
    """With labels and without."""
    data, judge = study.data, study.judge
    results = [labelled(study, n_components) for n_components in (4, 8)]
    read = judge.digits.score(data.X_test, data.y_test)
    linear = linear_classifier().fit(data.X_train, data.y_train).predict(data.X_test)
    small, large = results
    header = ["components", "log p(x), no labels", "labels summed out", "log p(x given c)"]
    header += ["accuracy", "as asked", "worst label", "means as asked", "AUC, no labels", "AUC"]
    answer = (
        f"At {small.model.n_components} components the mixture of ten labels scores "
        f"{Gain.paired(small.summed, small.without):+.1f} nats a row against one model of all, at "
        f"{large.model.n_components} {Gain.paired(large.summed, large.without):+.1f}; it "
        f"classifies {small.right.mean():.1%} and {large.right.mean():.1%} of held-out digits "
        "correctly, and "
        f"{small.samples.mean():.1%} and {large.samples.mean():.1%} of its samples are read as "
        "the label asked for."
    )
    body = f"""\
`ConditionalVAE` models p(x|c), c the label; with labels unknown it sums them out, and p(c|x) is
`condition_proba`. *Accuracy* is of the likeliest label of held-out rows. Samples are read by
support vectors trained on real rows, which read {read:.3f} of the held-out rows correctly: shares
that are read *as asked*, of {judge.n_drawn // 10} samples of each label. *AUC* is that of section
1, of samples of the model without labels and of this one's with labels at random.

{table(header, [result.row() for result in results])}

{bullets([finding for result in results for finding in findings_on_labels(result)])}
{bullets(findings_on_classifiers(results, linear == data.y_test))}

{draw_labels(study, small.model)}

A label each row, unselected, with {small.model.n_components} components: held-out rows, samples,
and means at the same z."""
    return Section("A label makes the better model, and draws what one asks for", answer, body)


def labelled(study: Study, n_components: int) -> Labelled:
    data, judge = study.data, study.judge
    plain = VAETransformer(n_components, random_state=0, device="cpu").fit(data.X_train)
    model = ConditionalVAE(n_components, random_state=0, device="cpu")
    model.fit(data.X_train, data.y_train)
    asked = np.repeat(model.classes_, judge.n_drawn // len(model.classes_))

    def obeyed(rows: np.ndarray) -> np.ndarray:
        return (judge.digits.predict(rows) == asked).reshape(len(model.classes_), -1).mean(1)

    return Labelled(
        model,
        study.log_p(plain),
        study.log_p(model),
        study.log_p(model, condition=data.y_test),
        model.classes_[model.condition_proba(data.X_test).argmax(1)] == data.y_test,
        judge.telling(plain.sample(judge.n_drawn, random_state=1)),
        judge.telling(model.sample(judge.n_drawn, random_state=1)),
        obeyed(model.sample(condition=asked, random_state=1)),
        obeyed(jittered(model.sample(condition=asked, mean=True, random_state=1))),
    )


def findings_on_labels(result: Labelled) -> list[str]:
    at = f"At {result.model.n_components} components"
    given = Gain.paired(result.given, result.without)
    summed = Gain.paired(result.summed, result.without)
    told = Gain.paired(result.given, result.summed)
    drawn = Gain.paired(result.telling_without.auc, result.telling.auc)
    most = np.log(len(result.model.classes_))
    return [
        f"{given.verdict} {at} a row is more probable given its label than under the model "
        f"without: {given:+.1f} nats.",
        f"{summed.verdict} {at} so it is with the label summed out: {summed:+.1f} nats.",
        f"{judged(told.mean <= most + 2 * told.error)} {at} the label tells {told:.2f} nats, no "
        f"more than the {most:.2f} there are in ten equal classes.",
        f"{drawn.verdict} {at} samples are harder to tell from real rows than those of the model "
        f"without labels: AUC {-drawn:+.3f}.",
    ]


def findings_on_classifiers(results: Sequence[Labelled], linear: np.ndarray) -> list[str]:
    best = max(results, key=lambda result: result.right.mean())
    gain = Gain.paired(best.right, linear)
    few, many = results
    drawn = Gain.unpaired(few.samples, many.samples)
    return [
        f"{gain.verdict} p(c|x) classifies better than a logistic regression of all pixels "
        f"({linear.mean():.3f}): at its best, {best.model.n_components} components, accuracy "
        f"{gain:+.3f}.",
        f"{drawn.verdict} Fewer components draw better digits: {few.model.n_components} in place "
        f"of {many.model.n_components} change the share of samples read as asked by {drawn:+.3f} "
        "(error over the labels).",
    ]


def draw_labels(study: Study, model: ConditionalVAE) -> str:
    asked = np.repeat(model.classes_, N_PICTURES)
    real = [study.data.X_test[study.data.y_test == c][:N_PICTURES] for c in model.classes_]
    panels = {
        "Held-out rows": np.concatenate(real),
        "Samples given the label": model.sample(condition=asked, random_state=1),
        "Means given the label": model.sample(condition=asked, mean=True, random_state=1),
    }
    return study.draw("labels", panels)


# 5. Adversaries


class Compared(NamedTuple):
    """All that is measured of one source of rows."""

    rows: np.ndarray
    telling: Telling
    likeness: Likeness
    digits: np.ndarray  # as the classifier reads them

    @property
    def shares(self) -> np.ndarray:
        """Of the ten digits."""
        return np.bincount(self.digits, minlength=10) / len(self.digits)

    @property
    def is_rarest(self) -> np.ndarray:
        return self.digits == self.shares.argmin()

    def row(self, name: str) -> list[str]:
        entropy = -np.sum(self.shares * np.log(np.maximum(self.shares, 1e-12)))
        return [
            name,
            f"{sharpness(self.rows):.1f}",
            *(f"{each.mean():.3f}" for each in (*self.telling, *self.likeness)),
            f"{self.shares.min():.3f}",
            f"{entropy:.2f}",
        ]


def adversary(study: Study) -> Section:
    """Samples and means against a generative adversarial network."""
    data, judge = study.data, study.judge
    gans = {
        f"GAN samples, rate {rate}, seed {seed}": fit(
            GAN(GAN_COMPONENTS, n_steps=GAN_STEPS, learning_rate=rate, jitter=JITTER, seed=seed),
            data.X_train,
        )
        for rate, seed in GANS
    }
    drawn = {
        "training rows": data.X_train[: 2 * len(data.X_test)],
        "VAE samples": study.samples(),
        "VAE means": jittered(study.means()),
        "VAE samples, decoder": study.samples("decoder"),
        **{name: gan.model.sample(judge.n_drawn, seed=1) for name, gan in gans.items()},
    }
    compared = {name: judge.compare(rows) for name, rows in drawn.items()}
    samples, means = compared["VAE samples"], compared["VAE means"]
    # By both virtues, to be fair.
    hardest = min(gans, key=lambda name: compared[name].telling.auc.mean())
    widest = max(gans, key=lambda name: compared[name].likeness.coverage.mean())
    gan, wide = compared[hardest], compared[widest]
    seconds = ", ".join(f"{gan.seconds:.0f}" for gan in gans.values())
    answer = (
        f"A classifier tells VAE samples from real rows with AUC {samples.telling.auc.mean():.2f}, "
        f"means with {means.telling.auc.mean():.2f}, and samples of the GAN it finds hardest with "
        f"{gan.telling.auc.mean():.2f}. Samples cover {samples.likeness.coverage.mean():.0%} of "
        f"the held-out rows, means {means.likeness.coverage.mean():.0%}, and those of the GAN that "
        f"covers most {wide.likeness.coverage.mean():.0%}."
    )
    header = ["rows", "sharpness", "accuracy", "AUC", "precision", "recall", "coverage"]
    panels = {
        "Held-out rows": judge.for_display(data.X_test),
        "VAE samples": judge.for_display(samples.rows),
        "VAE means": judge.for_display(study.means(), like=samples.rows),
        "GAN samples": judge.for_display(gan.rows),
    }
    body = f"""\
The GAN has a generator with the hidden layers of the VAE's decoder and {GAN_COMPONENTS} components
(the VAE {VAETransformer().n_components}), a discriminator as large, the non-saturating loss, Adam
with betas (0.5, 0.999), a gradient penalty (R1) and averaged weights. It knows the jitter: noise of
that size is added to what it generates. Its rates and seeds are in the table; each had {GAN_STEPS}
steps of 128 rows ({seconds} s), where the VAE's fit took
{study.by_variance["feature"].seconds:.0f} s. Penalty, components, steps and rates come from a short
search by the figures below, which the VAE was not given.

*Sharpness*, *accuracy* and *AUC* are those of section 1. In {N_PRINCIPAL} principal components of
the training rows: *precision* is the share of drawn rows within the neighbourhood
({N_NEIGHBOURS_RECALL} nearest) of a held-out row, *recall* that of held-out rows within the
neighbourhood of a drawn one (Kynkäänniemi et al., 2019), and *coverage* that of held-out rows
with a drawn one in their own neighbourhood ({N_NEIGHBOURS_COVERAGE} nearest; Naeem et al., 2020).
Scattered rows raise recall, not coverage. *Rarest* is the share of the rarest digit among
{judge.n_drawn}, as a classifier reads them, *entropy* that of the ten shares, in nats (at most
{np.log(10):.2f}).

{table([*header, "rarest", "entropy"], [each.row(name) for name, each in compared.items()])}

Against the GAN that is hardest to tell from held-out rows
({hardest.removeprefix("GAN samples, ")}):

{bullets(findings_on_gan(samples, means, gan))}

Against the GAN that covers most ({widest.removeprefix("GAN samples, ")}):

{bullets(findings_on_gan(samples, means, wide))}

{study.draw("rows", panels)}

The first {N_SHOWN} of each, none left out, in the order of the digits a classifier reads."""
    return Section("A VAE's samples are blurrier than a GAN's, a GAN misses more", answer, body)


def findings_on_gan(samples: Compared, means: Compared, gan: Compared) -> list[str]:
    blurrier_means = Gain.unpaired(curvature(gan.rows), curvature(means.rows))
    blurrier = Gain.unpaired(curvature(gan.rows), curvature(samples.rows))
    told = Gain.paired(samples.telling.auc, gan.telling.auc)
    told_means = Gain.paired(means.telling.auc, gan.telling.auc)
    precision = Gain.paired(gan.likeness.precision, samples.likeness.precision)
    recall = Gain.paired(samples.likeness.recall, gan.likeness.recall)
    coverage = Gain.paired(samples.likeness.coverage, gan.likeness.coverage)
    recall_means = Gain.paired(gan.likeness.recall, means.likeness.recall)
    coverage_means = Gain.paired(gan.likeness.coverage, means.likeness.coverage)
    rarest = Gain.unpaired(samples.is_rarest, gan.is_rarest)
    return [
        f"{blurrier_means.verdict} Means are blurrier than the GAN's samples: mean squared "
        f"Laplacian by {-blurrier_means:+.0f} squared grey levels.",
        f"{blurrier.verdict} So are the VAE's samples, their noise included: {-blurrier:+.0f}.",
        f"{told.verdict} Samples are easier to tell from real rows than the GAN's: AUC "
        f"{told:+.3f}. {told_means.verdict} Means are: {told_means:+.3f}.",
        f"{precision.verdict} More of the GAN's samples are near real rows: precision "
        f"{precision:+.3f} against the VAE's samples.",
        f"{recall.verdict} The GAN misses more of the data than the VAE's samples do, by recall: "
        f"{recall:+.3f} for the VAE. {coverage.verdict} By coverage: {coverage:+.3f}.",
        f"{recall_means.verdict} Means miss more than the GAN, by recall: {recall_means:+.3f} for "
        f"the GAN. {coverage_means.verdict} By coverage: {coverage_means:+.3f}.",
        f"{rarest.verdict} The GAN neglects a digit more: the share of the rarest is "
        f"{gan.shares.min():.3f}, in the VAE's samples {rarest:+.3f} to that.",
    ]


# The page


def introduction(study: Study, sections: Sequence[Section]) -> str:
    data = study.data
    answers = "\n".join(
        filled(f"{i}. *{section.title}?* {section.answer}")
        for i, section in enumerate(sections, start=1)
    )
    return f"""\
# Claims in numbers

What lecture notes say about variational autoencoders, tested on scikit-learn's handwritten digits:
{len(data.X_train)} rows to fit, {len(data.X_test)} held out, {data.X_train.shape[1]} pixels with
grey levels from 0 to 16, and normal noise of standard deviation {JITTER} on each, without which
whole numbers have no density. `make claims` writes this page: every figure and every verdict.

{answers}

A claim **holds**, or **does not hold**, where a difference is larger than two standard errors, and
is **undecided** otherwise; where no error is given the verdict compares two numbers. "±" is one
standard error, over the held-out rows or over the sets of drawn rows, which share their held-out
rows. It does not say how much another training, or other data, would change. Models have their
default parameters,
{VAETransformer().n_components} components among them, unless a section says otherwise.
Log-likelihoods are of held-out rows, in nats a row, with {N_DRAWS} draws of z. Seeds are fixed.
Seconds are of the machine that wrote the page: one thread, {platform.machine()}, torch
{torch.__version__}, scikit-learn {sklearn.__version__}."""


def judged(holds: bool) -> str:
    return "**Holds.**" if holds else "**Does not hold.**"


def bullets(findings: Sequence[str]) -> str:
    return "\n".join(filled(f"- {finding}") for finding in findings)


def filled(item: str) -> str:
    """Lines of a list's item, indented as Markdown has it."""
    indent = " " * (item.index(" ") + 1)
    return textwrap.fill(
        item, 99, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def wrapped(page: str) -> str:
    """Paragraphs filled; headings, lists, tables and pictures as they are."""
    blocks = page.split("\n\n")
    is_text = [block[0].isalpha() or block[0] in "*`" for block in blocks]
    return "\n\n".join(
        textwrap.fill(block, 99, break_long_words=False, break_on_hyphens=False) if fill else block
        for block, fill in zip(blocks, is_text, strict=True)
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown that reads well as plain text: the first column to the left, numbers right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def draw(panels: Mapping[str, np.ndarray], path: Path) -> None:
    """Panels side by side, each of N_SHOWN rows as pictures."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3.2 * len(panels), 5.5), facecolor="white")
    for ax, (title, rows) in zip(axes, panels.items(), strict=True):
        ax.imshow(mosaic(rows), cmap="gray_r", vmin=0, vmax=16, interpolation="nearest")
        ax.set_title(title, fontsize=13, pad=8)
        ax.set_axis_off()
    figure.tight_layout(w_pad=1.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches="tight", pad_inches=0.15)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--output",
        type=Path,
        help="file for the page; its pictures go to a folder of that name without .md "
        "(default: the page is only printed, pictures go to claims/)",
    )
    path = parser.parse_args().output
    folder = Path("claims") if path is None else path.with_suffix("")
    start = time.perf_counter()
    # Small networks: one thread is the fastest, and sums in one order.
    torch.set_num_threads(1)

    study, sections, texts = Study(folder), [], []
    for i, make in enumerate((noise, variance, importance, condition, adversary), start=1):
        section = make(study)
        sections.append(section)
        texts.append(
            wrapped(f'## {i}. "{section.title}"\n\n**{section.answer}**\n\n{section.body}')
        )
        print(texts[-1] + "\n", flush=True)
    page = "\n\n".join([wrapped(introduction(study, sections)), *texts]) + "\n"
    if path is not None:
        path.write_text(page, encoding="utf-8")
    print(f"Pictures: {folder}. Seconds in total: {time.perf_counter() - start:.0f}.")


if __name__ == "__main__":
    main()
