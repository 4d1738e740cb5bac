"""
Outliers by likelihood
======================

A row that is improbable under the model is an outlier: ``-score_samples(X)``, the negative
log-likelihood in nats, is the score. Here it is compared with IsolationForest, LocalOutlierFactor
and PCA, which has a likelihood too, on rows of a kind that was not there in training.
"""

# %%
# One digit that nobody has seen
# ------------------------------
# In turn each of the ten digits is the outlier: the models are fitted to two thirds of the nine
# others and score the rest. All four have ``score_samples``, larger where a row is more usual.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvae import VAETransformer

detectors = {
    "VAETransformer": VAETransformer(random_state=0),
    "LocalOutlierFactor": LocalOutlierFactor(novelty=True),
    "PCA": PCA(n_components=8, random_state=0),
    "IsolationForest": IsolationForest(random_state=0),
}


def split(y, odd):
    """Rows to fit, and rows to score: a third of the usual ones and all that are odd."""
    usual = np.random.default_rng(0).permutation(np.flatnonzero(y != odd))
    n_fitted = 2 * len(usual) // 3
    return usual[:n_fitted], np.concatenate([usual[n_fitted:], np.flatnonzero(y == odd)])


def scores(X, y, odd):
    """Of every detector, on the rows to score."""
    fitted, scored = split(y, odd)
    pipelines = {name: make_pipeline(StandardScaler(), model) for name, model in detectors.items()}
    return {name: p.fit(X[fitted]).score_samples(X[scored]) for name, p in pipelines.items()}


X, y = load_digits(return_X_y=True)
# Whole numbers have no density; with a little noise the pixels have one.
X = X + np.random.default_rng(0).normal(scale=0.3, size=X.shape)
found = {odd: scores(X, y, odd) for odd in range(10)}
auc = {
    f"{odd}": {name: roc_auc_score(y[split(y, odd)[1]] != odd, of) for name, of in of_all.items()}
    for odd, of_all in found.items()
}

# %%
# Malignant tumours, where the models know benign ones alone, are a table with unlike columns.

table = load_breast_cancer()
_, scored = split(table.target, 0)
auc["malignant"] = {
    name: roc_auc_score(table.target[scored] != 0, of)
    for name, of in scores(table.data, table.target, 0).items()
}

fig, ax = plt.subplots(figsize=(9, 4.2), layout="constrained")
looks = {
    "VAETransformer": "C0o",
    "LocalOutlierFactor": "C2^",
    "PCA": "ks",
    "IsolationForest": "C1D",
}
places = [*range(10), 11]  # the tumours stand apart
for i, (name, look) in enumerate(looks.items()):
    at = np.add(places, 0.15 * (i - 1.5))  # side by side
    ax.plot(at, [of[name] for of in auc.values()], look, ms=6, alpha=0.8, label=name)
ax.axhline(0.5, color="0.6", ls=":")
ax.set_xticks(places, auc)
ax.set(xlabel="what was not there in training", ylabel="area under the ROC curve")
_ = ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)

# %%
# How the scores lie, and which usual rows look odd
# -------------------------------------------------
# For the digit that the VAE finds best. At the right the usual digits of least likelihood: false
# alarms, and worth a look.

best = max(range(10), key=lambda odd: auc[f"{odd}"]["VAETransformer"])
_, scored = split(y, best)
nats, is_odd = found[best]["VAETransformer"], y[scored] == best
strangest = scored[~is_odd][np.argsort(nats[~is_odd])[:12]]

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", width_ratios=[3, 2])
bins = np.linspace(*np.percentile(nats, [1, 100]), 50)
left.hist(nats[~is_odd], bins, alpha=0.6, density=True, label="usual")
left.hist(nats[is_odd], bins, alpha=0.6, density=True, label=f"the digit {best}")
left.set(xlabel="log p(x) of the scaled pixels (nats)", ylabel="density")
left.legend(frameon=False)
tiles = np.pad(
    X[strangest].reshape(3, 4, 8, 8), ((0, 0), (0, 0), (1, 0), (1, 0)), constant_values=3
)
picture = np.pad(tiles.swapaxes(1, 2).reshape(27, 36), ((0, 1), (0, 1)), constant_values=3)
right.imshow(picture, cmap="gray_r", vmin=0, vmax=16)
right.set_axis_off()
_ = right.set_title("usual, but unlikely")

# %%

mean = {name: np.mean([auc[f"{odd}"][name] for odd in range(10)]) for name in detectors}
wins = sum(max(auc[f"{odd}"], key=auc[f"{odd}"].get) == "VAETransformer" for odd in range(10))


def ranked(of):
    """Names with their numbers, the largest first."""
    return ", ".join(f"{name} {of[name]:.2f}" for name in sorted(of, key=of.get, reverse=True))


print(
    f"Finding: the mean AUC over the ten digits is, the largest first,\n{ranked(mean)};\n"
    f"VAETransformer is the best for {wins} of the ten. On tumours the AUC is\n"
    f"{ranked(auc['malignant'])}."
)
plt.show()
