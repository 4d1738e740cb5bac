"""
Features for a classifier
=========================

What a linear classifier makes of two, four or eight features out of PCA, kernel PCA and a
:class:`~skvae.VAETransformer`, in one Pipeline and on three tables; and, to compare, what it makes
of all columns as they are. The step that reduces is a parameter of the Pipeline, so one search
tries all of them.
"""

# %%
# One Pipeline, one grid
# ----------------------
# The features are scaled once more before the classifier, so that its penalty weighs all alike.
# The means of q(z|x) that ``transform`` gives are never draws: nothing here is random but the
# training.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA, KernelPCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skvae import VAETransformer
from skvae.model_selection import GridSearchCV

tables = {"wine": load_wine(), "breast cancer": load_breast_cancer(), "digits": load_digits()}
sizes = [2, 4, 8]
models = {
    "PCA": PCA(random_state=0),
    "kernel PCA": KernelPCA(kernel="rbf", random_state=0),
    # Less patience than by default, to stay within a minute.
    "VAE": VAETransformer(n_iter_no_change=5, random_state=0),
}
pipeline = Pipeline(
    [
        ("scale", StandardScaler()),
        ("reduce", "passthrough"),
        ("rescale", StandardScaler()),
        ("classify", LogisticRegression(max_iter=1000)),
    ]
)
grid = [{"reduce": [model], "reduce__n_components": sizes} for model in models.values()]
grid.append({"reduce": ["passthrough"]})
folds = StratifiedKFold(n_splits=5, shuffle=True, random_state=0)

accuracy, of_all_columns = {}, {}
for table, bunch in tables.items():
    search = GridSearchCV(pipeline, grid, cv=folds, refit=False).fit(bunch.data, bunch.target)
    scores = np.array([search.cv_results_[f"split{k}_test_score"] for k in range(5)])
    accuracy[table] = scores[:, :-1].reshape(5, len(models), len(sizes))  # folds, models, sizes
    of_all_columns[table] = scores[:, -1].mean()

# %%
# On three tables
# ---------------
# A mark is the mean over the folds, a bar their standard deviation. The dotted line has all
# columns.

fig, axes = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
looks = {"PCA": ("s", "0.45"), "kernel PCA": ("^", "C1"), "VAE": ("o", "C0")}
for ax, (table, scores) in zip(axes, accuracy.items(), strict=True):
    for i, (name, (marker, color)) in enumerate(looks.items()):
        at = np.arange(len(sizes)) + 0.16 * (i - 1)
        mean, std = scores[:, i].mean(axis=0), scores[:, i].std(axis=0)
        ax.errorbar(at, mean, std, fmt=marker, color=color, ms=8, elinewidth=1.5, label=name)
    ax.axhline(of_all_columns[table], color="k", ls=":", label="all columns")
    ax.set(title=f"{table}, {tables[table].data.shape[1]} columns", xlabel="n_components")
    ax.set_xticks(range(len(sizes)), sizes)
axes[0].set_ylabel("held-out accuracy of LogisticRegression")
_ = axes[2].legend(frameon=False, loc="lower right")

# %%
# A mean of five folds may lead by chance. What holds fold by fold, on the same rows, is safer:
# where the VAE's features are better than those of PCA on all folds, and where they are worse.

better, worse, leaders = [], [], []
for table, scores in accuracy.items():
    gained = scores[:, list(models).index("VAE")] - scores[:, list(models).index("PCA")]
    better += [
        f"{table} ({n})" for n, on in zip(sizes, (gained > 0).all(axis=0), strict=True) if on
    ]
    worse += [f"{table} ({n})" for n, on in zip(sizes, (gained < 0).all(axis=0), strict=True) if on]
    best = scores.mean(axis=0).max(axis=1).argmax()
    leaders.append(f"{list(models)[best]} on {table}")

print(
    f"Finding: the best mean accuracy is that of {', '.join(leaders)}.\n"
    f"The VAE's features are better than PCA's on all folds for {', '.join(better) or 'no table'}\n"
    f"and worse on all folds for {', '.join(worse) or 'no table'} (in brackets, n_components)."
)
plt.show()
