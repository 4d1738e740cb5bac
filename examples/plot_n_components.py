"""
How many components?
====================

Two answers to one search. Each VAE of a Pipeline is scored by the log-likelihood of held-out rows
and by the accuracy of the classifier behind it, over ``n_components`` and five folds; PCA stands
in the same place of the same Pipeline. The search of :mod:`skvae.model_selection` is
scikit-learn's, but trains the VAEs of all candidates and folds at once.
"""

# %%
# The search
# ----------
# A Pipeline has one step that is searched over, and a scorer that asks that step for :math:`\log
# p(x)`. As ``reduce`` itself is a parameter of the Pipeline, one grid has both models.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skvae import VAETransformer
from skvae.model_selection import GridSearchCV

X, y = load_digits(return_X_y=True)
# Whole numbers have no density; with a little noise the pixels have one.
X = X + np.random.default_rng(0).normal(scale=0.3, size=X.shape)

# Less patience than by default, to stay within a minute.
vae = VAETransformer(n_iter_no_change=5, random_state=0)
models = {"PCA": PCA(random_state=0), "VAE": vae}
sizes = [2, 4, 8, 16, 24]


def nats(pipeline, X, y=None):
    """Log-likelihood of a row of scaled pixels under the model in the middle."""
    return pipeline["reduce"].score(pipeline["scale"].transform(X))


pipeline = Pipeline(
    [
        ("scale", StandardScaler()),
        ("reduce", PCA()),
        ("classify", LogisticRegression(max_iter=1000)),
    ]
)
search = GridSearchCV(
    pipeline,
    [{"reduce": [model], "reduce__n_components": sizes} for model in models.values()],
    scoring={"nats": nats, "accuracy": "accuracy"},
    refit=False,
    cv=5,
).fit(X, y)

# %%
# Both scores
# -----------
# A line is the mean over the folds, the band their standard deviation, a ring the best size.


def scores(score):
    """Of every model: an array (n_folds, n_sizes)."""
    results = search.cv_results_
    folds = np.array([results[f"split{k}_test_{score}"] for k in range(search.n_splits_)])
    return dict(zip(models, np.split(folds, len(models), axis=1), strict=True))


likelihood, accuracy = scores("nats"), scores("accuracy")
fig, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
looks = {"PCA": {"color": "0.45", "marker": "s", "ls": "--"}, "VAE": {"color": "C0", "marker": "o"}}
for ax, of_models in zip(axes, [likelihood, accuracy], strict=True):
    for name, folds in of_models.items():
        mean, std = folds.mean(axis=0), folds.std(axis=0)
        best = mean.argmax()
        ax.fill_between(sizes, mean - std, mean + std, color=looks[name]["color"], alpha=0.15, lw=0)
        ax.plot(sizes, mean, label=name, **looks[name])
        ring = {"s": 150, "facecolors": "none", "edgecolors": looks[name]["color"]}
        ax.scatter(sizes[best], mean[best], **ring)
    ax.set(xlabel="n_components", xticks=sizes)
    ax.grid(axis="y", color="0.92")
axes[0].set(title="Likelihood", ylabel="held-out log p(x) (nats a row)")
axes[1].set(title="Features", ylabel="held-out accuracy of LogisticRegression")
_ = axes[1].legend(frameon=False, loc="lower right")

# %%
# A fold is harder or easier for both models: to compare them, look at the difference fold by fold.


def size_of_best(folds):
    return sizes[folds.mean(axis=0).argmax()]


def at(is_so):
    """At which numbers of components, in words."""
    found = [str(size) for size, so in zip(sizes, is_so, strict=True) if so]
    return f"at {', '.join(found)}" if found else "nowhere"


gained = likelihood["VAE"].mean(axis=0).max() - likelihood["PCA"].mean(axis=0).max()
features = accuracy["VAE"] - accuracy["PCA"]
print(
    f"Finding: the likelihood of the VAE is best at {size_of_best(likelihood['VAE'])} components, "
    f"{abs(gained):.0f} nats a row {'above' if gained > 0 else 'below'} PCA's best; its\n"
    f"accuracy at {size_of_best(accuracy['VAE'])}, where it is "
    f"{accuracy['VAE'].mean(axis=0).max():.1%} (PCA: {accuracy['PCA'].mean(axis=0).max():.1%} at "
    f"{size_of_best(accuracy['PCA'])}). On every fold its features classify better than\n"
    f"PCA's {at((features > 0).all(axis=0))}, and worse {at((features < 0).all(axis=0))}."
)
plt.show()
