"""
Digits on demand, and counterfactuals
=====================================

A :class:`~skvae.ConditionalVAE` is given the label: its decoder draws the digit that is asked for,
and its components carry what the label does not say, such as slant, width and stroke. So a digit
can be encoded with its own label and decoded with another: the same hand, another digit.
"""

# %%
# What would this hand have written?
# ----------------------------------
# ``transform(X, condition=y)`` encodes, ``inverse_transform(Z, condition=other)`` is the
# counterfactual. Four components: what is left of a digit once its label is known.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.svm import SVC

from skvae import ConditionalVAE
from skvae.plotting import SampleDisplay

X, y = load_digits(return_X_y=True)
# Whole numbers have no density; with a little noise the pixels have one.
X = X + np.random.default_rng(0).normal(scale=0.3, size=X.shape)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

cvae = ConditionalVAE(n_components=4, random_state=0).fit(X_train, y_train)
Z = cvae.transform(X_test, condition=y_test)

# Every held-out digit as each of the ten: (10, n_rows, 64).
counterfactuals = np.stack(
    [cvae.inverse_transform(Z, condition=np.full(len(Z), digit)) for digit in range(10)]
)

# %%
# One digit of each kind: at the left as it was written, then as all ten. The frame is around its
# own.

of_each = [np.flatnonzero(y_test == digit)[0] for digit in range(10)]
around = {"left": 0.06, "right": 0.98, "bottom": 0.02, "top": 0.94, "hspace": 0.08, "wspace": 0.08}
fig, axes = plt.subplots(10, 11, figsize=(6.8, 6.4), gridspec_kw=around)
for line, row in zip(axes, of_each, strict=True):
    pictures = [X_test[row], *counterfactuals[:, row]]
    for ax, picture, digit in zip(line, pictures, [None, *range(10)], strict=True):
        ax.imshow(picture.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=digit == y_test[row], color="C3", linewidth=2)
    box = line[0].get_position()  # the digit as written stands apart
    line[0].set_position([box.x0 - 0.025, box.y0, box.width, box.height])
axes[0, 0].set_title("written")
for digit in range(10):
    axes[0, digit + 1].set_title(digit)

# %%
# Drawn at random
# ---------------
# Without a row to start from, z is drawn from its prior. Samples have the noise of the pixels,
# means are without it.

_ = SampleDisplay.from_estimator(cvae, image_shape=(8, 8))

# %%
# Is it the right digit, in the same hand?
# ----------------------------------------
# A support vector classifier of real digits reads the counterfactuals. What the hand keeps is
# measured by slant: the regression of a stroke's horizontal place on its vertical one. Slant
# differs between digits, so it is compared within each pair of labels, then averaged.


def slant(x):
    """Shift to the right, in pixels, for each pixel upwards; of every row."""
    ink = x.reshape(-1, 8, 8).clip(0)
    up, right = 3.5 - np.arange(8)[:, None], np.arange(8) - 3.5
    total = ink.sum(axis=(1, 2))
    mean_up, mean_right = ((ink * place).sum(axis=(1, 2)) / total for place in (up, right))
    d_up, d_right = up - mean_up[:, None, None], right - mean_right[:, None, None]
    return (ink * d_up * d_right).sum(axis=(1, 2)) / (ink * d_up**2).sum(axis=(1, 2))


reader = SVC().fit(X_train, y_train)
is_other = np.arange(10)[:, None] != y_test  # (10, n_rows)
asked = np.broadcast_to(np.arange(10)[:, None], is_other.shape)
read = reader.predict(counterfactuals.reshape(-1, 64)).reshape(is_other.shape)
read_as_asked = np.mean(read[is_other] == asked[is_other])

slants = np.stack([slant(pictures) for pictures in counterfactuals])
written = slant(X_test)
kept = np.array(
    [
        [
            np.corrcoef(written[y_test == own], slants[other, y_test == own])[0, 1]
            for own in range(10)
        ]
        for other in range(10)
    ]
)

fig, ax = plt.subplots(figsize=(6.2, 5), layout="constrained")
image = ax.imshow(kept, vmin=0, vmax=1, origin="lower")
ax.set(xlabel="written digit", ylabel="asked for", xticks=range(10), yticks=range(10))
_ = fig.colorbar(image, label="correlation of slants")

# %%
# The components need not carry the label, which the decoder is given anyway. A linear classifier on
# Z says how much of it is left.

left = cross_val_score(LogisticRegression(max_iter=1000), Z, y_test, cv=5).mean()
others = kept[~np.eye(10, dtype=bool)].mean()
print(
    f"Finding: {read_as_asked:.0%} of the counterfactuals are read as the digit that was asked "
    f"for; their slant has a\ncorrelation of {others:.2f} with that of the digit they come from. "
    f"From the components alone a\nlinear classifier recognises {left:.0%} of the digits; 10% "
    "would be chance."
)
plt.show()
