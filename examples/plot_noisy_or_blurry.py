"""
Noisy or blurry?
================

Samples of a variational autoencoder are said to be blurry. What most code shows, though, are not
samples: it draws z from :math:`p(z)` and shows :math:`E[x|z]`. A sample of the model is a draw x
from :math:`p(x|z)`, noise included. :meth:`~skvae.VAETransformer.sample` gives that, and the mean
with ``mean=True``.
"""

# %%
# The three side by side
# ----------------------
# One seed gives both the same z: what differs between the second panel and the third is the noise.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from skvae import VAETransformer

X, y = load_digits(return_X_y=True)
# Whole numbers have no density; with a little noise the pixels have one.
rng = np.random.default_rng(0)
X = X + rng.normal(scale=0.3, size=X.shape)
X_train, X_test = train_test_split(X, stratify=y, random_state=0)

vae = VAETransformer(random_state=0).fit(X_train)
rows = {
    "digits": X_test,
    "samples": vae.sample(len(X_test), random_state=1),
    # Means get the noise that the data were given, or they could be told by that alone.
    "means": vae.sample(len(X_test), mean=True, random_state=1)
    + rng.normal(scale=0.3, size=X_test.shape),
}
titles = {
    "digits": "held-out digits",
    "samples": r"samples $x \sim p(x\,|\,z)$",
    "means": r"means $\mathrm{E}[x\,|\,z]$ at the same $z$",
}
fig, axes = plt.subplots(1, 3, figsize=(12, 3.7), layout="constrained", gridspec_kw={"wspace": 0.1})
for ax, (name, title) in zip(axes, titles.items(), strict=True):
    tiles = rows[name][:48].reshape(6, 8, 8, 8)  # six lines of eight pictures
    tiles = np.pad(tiles, ((0, 0), (0, 0), (1, 0), (1, 0)), constant_values=3)
    picture = np.pad(tiles.swapaxes(1, 2).reshape(54, 72), ((0, 1), (0, 1)), constant_values=3)
    ax.imshow(picture, cmap="gray_r", vmin=0, vmax=16)
    ax.set_title(title)
    ax.set_axis_off()

# %%
# Where the sharpness is
# ----------------------
# Blur is a lack of high spatial frequencies. The power spectrum of the pictures, averaged over
# rows and directions, shows at which frequencies each of the three has the power of real digits.
# Noise that is independent from pixel to pixel has the same power at all of them.


def spectrum(x):
    """Power at each spatial frequency up to the finest, in squared grey levels."""
    power = (np.abs(np.fft.fft2(x.reshape(-1, 8, 8), norm="ortho")) ** 2).mean(axis=0)
    return np.array([power[frequency == k].mean() for k in cycles])


along = np.abs(np.fft.fftfreq(8, d=1 / 8))  # cycles a picture
frequency = np.rint(np.hypot(along[:, None], along)).clip(max=4)
cycles = np.arange(5)
power = {name: spectrum(x) for name, x in rows.items()}

fig, ax = plt.subplots(figsize=(7, 4.4), layout="constrained")
looks = {"digits": "k-", "samples": "C0o--", "means": "C1s:"}
for name, look in looks.items():
    ax.plot(cycles, power[name], look, label=name)
ax.plot(cycles, power["samples"] - power["means"], "C2^-.", label="samples less means: the noise")
ax.set(
    yscale="log",
    xlabel="spatial frequency (cycles a picture)",
    ylabel="power (squared grey levels)",
)
ax.set_xticks(cycles, ["0", "1", "2", "3", "4+"])
_ = ax.legend(frameon=False)

# %%
# Whether it is the right kind
# ----------------------------
# Noise raises the power too, but pixel by pixel. A classifier that looks at the whole picture tries
# to tell real digits from drawn ones; an area under its ROC curve of 0.5 is chance.


def told_from_digits(x):
    """Area under the ROC curve of support vectors that tell x from held-out digits."""
    both, is_real = np.concatenate([x, X_test]), np.repeat([0, 1], [len(x), len(X_test)])
    svc = make_pipeline(StandardScaler(), SVC())
    cv = StratifiedKFold(shuffle=True, random_state=0)
    return cross_val_score(svc, both, is_real, scoring="roc_auc", cv=cv).mean()


fine = {name: of[3:].mean() / power["digits"][3:].mean() for name, of in power.items()}
auc = {name: told_from_digits(rows[name]) for name in ("samples", "means")}
nearer = min(auc, key=auc.get)
print(
    "Finding: at three cycles a picture and more, samples have "
    f"{fine['samples']:.0%} of the power of real digits,\nmeans {fine['means']:.0%}. The {nearer} "
    "are harder to tell from real digits: a classifier's AUC is\n"
    f"{auc['samples']:.2f} for samples and {auc['means']:.2f} for means."
)
plt.show()
