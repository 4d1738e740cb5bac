"""
A table with missing cells
==========================

Cells of a clinical table are taken out at random and filled again: by the mean of their column, by
neighbours, by one regression for each column, and by :class:`~skvae.impute.VAEImputer`. A single
value does not say how certain it is. Multiple imputations, drawn by
:meth:`~skvae.VAETransformer.sample_missing`, do; here it can be checked how far they are right.
"""

# %%
# A tenth, three tenths, half of the cells
# ----------------------------------------
# Neighbours and regressions depend on units, so all four get standardised columns.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_breast_cancer
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.preprocessing import StandardScaler

from skvae.impute import VAEImputer

X = StandardScaler().fit_transform(load_breast_cancer().data)
imputers = {
    "SimpleImputer": SimpleImputer(),
    "KNNImputer": KNNImputer(),
    # The ten rounds of the default may be over before it has settled.
    "IterativeImputer": IterativeImputer(max_iter=100, random_state=0),
    "VAEImputer": VAEImputer(random_state=0),
}
shares = [0.1, 0.3, 0.5]
u = np.random.default_rng(0).random(X.shape)
errors = {name: [] for name in imputers}
for share in shares:
    is_missing = u < share
    incomplete = np.where(is_missing, np.nan, X)
    for name, imputer in imputers.items():
        off = imputer.fit_transform(incomplete) - X
        errors[name].append(np.sqrt(np.mean(off[is_missing] ** 2)))

fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
looks = ["k:", "C2^-.", "C1s--", "C0o-"]
for (name, of), look in zip(errors.items(), looks, strict=True):
    ax.plot(shares, of, look, label=name)
ax.set(
    xlabel="share of cells that are missing", ylabel="root mean square error (standard deviations)"
)
ax.set_xticks(shares, [f"{share:.0%}" for share in shares])
ax.set_ylim(0)
_ = ax.legend(frameon=False)

# %%
# How sure is it?
# ---------------
# The fitted model draws the missing cells a hundred times, given the cells that are there. Where
# the copies differ the model is unsure. If it knows how unsure it should be, the error of the
# imputed value is as large as the spread of the copies, at every size of it, and intervals between
# quantiles of the copies hold the true value as often as they promise. Half of the cells are
# missing.

vae = imputers["VAEImputer"].estimator_
copies = np.array(vae.sample_missing(incomplete, 100, random_state=0))[:, is_missing]
true, mean, spread = X[is_missing], copies.mean(axis=0), copies.std(axis=0)

groups = np.array_split(np.argsort(spread), 10)
spreads = [np.sqrt(np.mean(spread[group] ** 2)) for group in groups]
found = [np.sqrt(np.mean((mean[group] - true[group]) ** 2)) for group in groups]
promised = np.linspace(0.1, 0.9, 9)
quantiles = np.quantile(copies, [(1 - promised) / 2, (1 + promised) / 2], axis=0)
held = np.mean((quantiles[0] <= true) & (true <= quantiles[1]), axis=1)

fig, axes = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
axes[0].plot(spreads, found, "C0o")
axes[0].set(xlabel="spread of the copies", ylabel="error", title="Tenths of the cells, by spread")
axes[1].plot(promised, held, "C0o")
axes[1].set(xlabel="promised", ylabel="held", title="Intervals around the median")
for ax, top in zip(axes, [1.1 * max(spreads + found), 1], strict=True):
    ax.plot([0, top], [0, top], color="0.6", ls=":", zorder=0)
    ax.set(aspect="equal", xlim=(0, top), ylim=(0, top))

# %%
# What the copies are for: fit what you want to know on each of them, and add the variance between
# the answers to that within them (Rubin's rules). Points above the line at the left, and below it
# at the right, are cells of which the model is too sure. Both can be above: a few large errors
# raise the root mean square at the left, while most errors are smaller than the intervals allow
# for.

ratio = np.sqrt(np.mean((mean - true) ** 2) / np.mean(spread**2))
sentences = []
for k, share in enumerate(shares):
    first, *others = sorted(list(imputers)[1:], key=lambda name: errors[name][k])
    behind = ", ".join(f"{name} {errors[name][k]:.2f}" for name in others)
    sentences.append(f"{first} with {share:.0%} missing ({errors[first][k]:.2f}; {behind})")
print(
    "Finding: the smallest error is that of\n" + ",\n".join(sentences) + ".\n"
    f"The error of VAEImputer is {ratio:.2f} times the spread of the copies; intervals that\n"
    f"promise to hold 90% of the missing cells hold {held[-1]:.0%}, those that promise half "
    f"{held[4]:.0%}."
)
plt.show()
