"""
Two laboratories, one table
===========================

Half of the rows were measured in laboratory A and half in B, whose instruments have another gain
and another offset in every column. A :class:`~skvae.ConditionalVAE` that is given the laboratory
learns what does not depend on it: decoded as of A, rows from B can be compared with those from A.
When that works, and when it takes away more than the laboratory.
"""

# %%
# A simulated batch effect
# ------------------------
# The table of breast cancers is real, the effect is ours, so that the truth is known. Malignant
# rows may have the same share in both laboratories, as if patients had been assigned at random, or
# not, as if one of them were a hospital.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_breast_cancer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvae import ConditionalVAE

truth, y = load_breast_cancer(return_X_y=True)  # y is 0 for malignant
mean, std = truth.mean(axis=0), truth.std(axis=0)


def measured(part_of_malignant, part_of_benign):
    """The table as measured, and where each row was: these parts of the classes went to B."""
    rng = np.random.default_rng(0)
    in_b = rng.random(len(y)) < np.where(y == 0, part_of_malignant, part_of_benign)
    gain = np.exp(rng.normal(scale=0.3, size=truth.shape[1]))
    offset = rng.normal(scale=0.7, size=truth.shape[1]) * std
    as_in_b = mean + (truth - mean) * gain + offset
    return np.where(in_b[:, None], as_in_b, truth), np.where(in_b, "B", "A")


# %%
# Two ways to harmonise
# ---------------------
# The simple one: standardise each laboratory by itself. The other: encode every row with its own
# laboratory, decode it as of A, and keep the residual, which is noise to the model.


def standardised(X, batch):
    X = X.copy()
    to = X[batch == "A"].mean(axis=0), X[batch == "A"].std(axis=0)
    of_b = X[batch == "B"]
    X[batch == "B"] = to[0] + (of_b - of_b.mean(axis=0)) / of_b.std(axis=0) * to[1]
    return X


def decoded_as_of_a(X, batch):
    cvae = ConditionalVAE(random_state=0).fit(X, condition=batch)
    Z = cvae.transform(X, condition=batch)
    change = cvae.inverse_transform(Z, condition=np.full(len(X), "A"))
    change -= cvae.inverse_transform(Z, condition=batch)
    return X + change  # rows from A stay as they are


# %%
# What is left of the laboratory, and of the tumour
# -------------------------------------------------
# A random forest tries to recognise the laboratory (an area under the ROC curve of 0.5 is chance),
# and a linear classifier that has learned benign from malignant in A is used in B. The truth,
# without any effect, is judged too.


def judged(X, batch):
    """How well laboratories are recognised, accuracy in B of what A learned, error in B."""
    forest = RandomForestClassifier(random_state=0)
    laboratory = cross_val_score(forest, X, batch, scoring="roc_auc", cv=5).mean()
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    linear.fit(X[batch == "A"], y[batch == "A"])
    accuracy = linear.score(X[batch == "B"], y[batch == "B"])
    distance = np.sqrt(np.mean(((X - truth) / std)[batch == "B"] ** 2))
    return laboratory, accuracy, distance


parts = {"equal shares of classes": (0.5, 0.5), "unequal shares": (0.7, 0.3)}
ways = {
    "as measured": lambda X, batch: X,
    "standardised": standardised,
    "ConditionalVAE": decoded_as_of_a,
    "truth": lambda X, batch: truth,
}
tables, verdicts = {}, {}
for design, of_classes in parts.items():
    X, batch = measured(*of_classes)
    tables[design] = {way: harmonise(X, batch) for way, harmonise in ways.items()}
    verdicts[design] = {way: judged(of, batch) for way, of in tables[design].items()}
    print(f"{design:24}  laboratory (AUC)  from A to B (accuracy)  distance from truth")
    for way, (laboratory, accuracy, distance) in verdicts[design].items():
        print(f"  {way:22}  {laboratory:16.2f}  {accuracy:22.3f}  {distance:19.2f}")

# %%
# Before and after
# ----------------
# Two linear discriminants: along x that of the classes in the truth, along y that of the
# laboratories as measured. Equal shares of classes in both laboratories. The first panel has axes
# of its own, as the effect is many times larger than what is left of it.

X, batch = measured(*parts["equal shares of classes"])
of_classes = LinearDiscriminantAnalysis().fit(truth, y)
of_laboratories = LinearDiscriminantAnalysis().fit(X, batch)
fig, axes = plt.subplots(1, 4, figsize=(13, 4), layout="constrained")
for ax, way in zip(axes, ways, strict=True):
    if way not in ("as measured", "standardised"):
        ax.sharex(axes[1])
        ax.sharey(axes[1])
    table = tables["equal shares of classes"][way]
    across, upwards = (lda.transform(table)[:, 0] for lda in (of_classes, of_laboratories))
    for label, name, color in [(0, "malignant", "C3"), (1, "benign", "C0")]:
        for laboratory, marker in [("A", "o"), ("B", "x")]:
            rows = (y == label) & (batch == laboratory)
            look = {"s": 18, "marker": marker, "color": color, "alpha": 0.6}
            ax.scatter(across[rows], upwards[rows], **look, label=f"{laboratory}, {name}")
    ax.set(title=way, xlabel="discriminant of the classes")
axes[0].set_ylabel("discriminant of the laboratories")
_ = fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

# %%
# In both designs
# ---------------
# The batch alone does not say what belongs to a laboratory and what to its patients: where the
# shares of the classes differ, making the laboratories alike takes away some of the class too.

fig, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained", sharey=True)
for i, (design, marker) in enumerate(zip(parts, "os", strict=True)):
    for j, ax in enumerate(axes):
        at = [-k + 0.12 * (1 - 2 * i) for k in range(len(ways))]
        values = [verdicts[design][way][j] for way in ways]
        ax.plot(values, at, marker, color=f"C{i}", ms=9, label=design)
axes[0].set_yticks([-k for k in range(len(ways))], ways)
axes[0].axvline(0.5, color="0.7", ls=":", zorder=0)
axes[0].set_xlabel("laboratory recognised (AUC)")
axes[1].set_xlabel("learned in A, used in B (accuracy)")
axes[1].legend(frameon=False, loc="lower left")
for ax in axes:
    ax.grid(axis="y", color="0.93")

equal, unequal = (verdicts[design] for design in parts)
print(
    "Finding: with equal shares of classes the ConditionalVAE takes the AUC for the laboratory\n"
    f"from {equal['as measured'][0]:.2f} to {equal['ConditionalVAE'][0]:.2f} (standardising: to "
    f"{equal['standardised'][0]:.2f}) and the accuracy in B from {equal['as measured'][1]:.1%} to "
    f"{equal['ConditionalVAE'][1]:.1%}\n(to {equal['standardised'][1]:.1%}; the truth: "
    f"{equal['truth'][1]:.1%}). With unequal shares that accuracy goes from\n"
    f"{unequal['as measured'][1]:.1%} to {unequal['ConditionalVAE'][1]:.1%} "
    f"(to {unequal['standardised'][1]:.1%}; the truth: {unequal['truth'][1]:.1%})."
)
plt.show()
