"""
Two laboratories, one table
===========================

Half of the rows were measured in laboratory A and half in B, whose instruments have another gain
and another offset in every column. A :class:`~skvae.ConditionalVAE` that is given the laboratory
learns what does not depend on it: decoded as of A, rows from B can stand beside those from A. When
that works, and when it takes more away than the laboratory.
"""

# %%
# A batch effect made in place
# ----------------------------
# The table of breast cancers is real, the effect is ours, so that the truth is known. ``share`` is
# that of malignant rows in each laboratory: equal, as if patients had been assigned at random, or
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


def measured(part_of_malignant, part_of_benign, seed=0):
    """The table as measured, and where: "B" has these parts of both classes."""
    rng = np.random.default_rng(seed)
    in_b = rng.random(len(y)) < np.where(y == 0, part_of_malignant, part_of_benign)
    gain = np.exp(rng.normal(scale=0.3, size=truth.shape[1]))
    offset = rng.normal(scale=0.7, size=truth.shape[1]) * std
    return np.where(in_b[:, None], mean + (truth - mean) * gain + offset, truth), np.where(
        in_b, "B", "A"
    )


# %%
# Two ways to harmonise
# ---------------------
# The simple one: standardise each laboratory by itself. The other: encode every row with its own
# laboratory, decode it as of A, and keep the residual, which is what the model holds for noise.


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
# A random forest is to tell the laboratories (an area under the ROC curve of 0.5: it cannot), and
# a linear classifier that has learned benign from malignant in A is used in B. The truth, without
# any effect, is judged alongside.


def judged(X, batch):
    """How well laboratories are told, how well what A learned serves B, distance from the truth."""
    forest = RandomForestClassifier(random_state=0)
    telling = cross_val_score(forest, X, batch, scoring="roc_auc", cv=5).mean()
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    linear.fit(X[batch == "A"], y[batch == "A"])
    serving = linear.score(X[batch == "B"], y[batch == "B"])
    distance = np.sqrt(np.mean(((X - truth) / std)[batch == "B"] ** 2))
    return telling, serving, distance


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
    for way, (telling, serving, distance) in verdicts[design].items():
        print(f"  {way:22}  {telling:16.2f}  {serving:22.3f}  {distance:19.2f}")

# %%
# Before and after
# ----------------
# Two linear discriminants: along x the one that tells the classes of the truth, along y the one
# that tells the laboratories as measured. Equal shares of classes in both laboratories.

X, batch = measured(*parts["equal shares of classes"])
of_classes = LinearDiscriminantAnalysis().fit(truth, y)
of_laboratories = LinearDiscriminantAnalysis().fit(X, batch)
fig, axes = plt.subplots(1, 3, figsize=(12, 4.2), sharex=True, sharey=True, layout="constrained")
for ax, way in zip(axes, ["as measured", "ConditionalVAE", "truth"], strict=True):
    table = tables["equal shares of classes"][way]
    across, upwards = (lda.transform(table)[:, 0] for lda in (of_classes, of_laboratories))
    for label, name, color in [(0, "malignant", "C3"), (1, "benign", "C0")]:
        for laboratory, marker in [("A", "o"), ("B", "x")]:
            rows = (y == label) & (batch == laboratory)
            look = {"s": 18, "marker": marker, "color": color, "alpha": 0.6}
            ax.scatter(across[rows], upwards[rows], **look, label=f"{laboratory}, {name}")
    ax.set(title=way, xlabel="what tells the classes")
axes[0].set_ylabel("what tells the laboratories")
_ = axes[2].legend(frameon=False)

# %%
# In both designs
# ---------------
# Nobody can tell what belongs to a laboratory from what belongs to its patients by the batch
# alone: where classes are unequally shared, what makes the laboratories alike takes the class with
# it.

fig, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained", sharey=True)
for i, (design, marker) in enumerate(zip(parts, "os", strict=True)):
    for j, ax in enumerate(axes):
        at = [-k + 0.12 * (1 - 2 * i) for k in range(len(ways))]
        values = [verdicts[design][way][j] for way in ways]
        ax.plot(values, at, marker, color=f"C{i}", ms=9, label=design)
axes[0].set_yticks([-k for k in range(len(ways))], ways)
axes[0].axvline(0.5, color="0.7", ls=":", zorder=0)
axes[0].set_xlabel("how well laboratories are told (AUC)")
axes[1].set_xlabel("learned in A, used in B (accuracy)")
axes[1].legend(frameon=False, loc="lower left")
for ax in axes:
    ax.grid(axis="y", color="0.93")

equal, unequal = (verdicts[design] for design in parts)
print(
    "Finding: with equal shares of classes the ConditionalVAE takes the AUC for the laboratory\n"
    f"from {equal['as measured'][0]:.2f} to {equal['ConditionalVAE'][0]:.2f} (standardising: to "
    f"{equal['standardised'][0]:.2f}) and the accuracy in B from {equal['as measured'][1]:.1%} to "
    f"{equal['ConditionalVAE'][1]:.1%}\n(to {equal['standardised'][1]:.1%}). With unequal shares "
    f"that accuracy goes from {unequal['as measured'][1]:.1%} to "
    f"{unequal['ConditionalVAE'][1]:.1%} (to {unequal['standardised'][1]:.1%})."
)
plt.show()
