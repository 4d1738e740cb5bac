"""
Digits in a plane
=================

A :class:`~skvae.VAETransformer` with two components lays handwritten digits out in a plane, and
its decoder turns every place of that plane into a picture. PCA does the same with a straight
plane. How much of a digit does each plane show?
"""

# %%
# Data
# ----
# Pixels are whole numbers from 0 to 16. Whole numbers have no density: a peak on each of them
# makes :math:`\log p(x)` as large as one likes. A little noise gives pixels a density.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from skvae import VAETransformer
from skvae.plotting import LatentSpaceDisplay, ManifoldDisplay

X, y = load_digits(return_X_y=True)
X = X + np.random.default_rng(0).normal(scale=0.3, size=X.shape)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

vae = VAETransformer(n_components=2, random_state=0).fit(X_train)
pca = PCA(n_components=2).fit(X_train)
std = np.sqrt(pca.explained_variance_)  # of PCA's components: the axes get one unit

# %%
# Where held-out digits lie
# -------------------------
# A point is the mean of :math:`q(z|x)`, the ellipse around it its standard deviations: where
# ellipses of several digits overlap, the model does not tell these apart. PCA has no spread.

fig, axes = plt.subplots(1, 2, figsize=(12, 5.6), layout="constrained")
LatentSpaceDisplay.from_estimator(vae, X_test, y_test, names="median", ax=axes[0])
LatentSpaceDisplay.from_posterior(pca.transform(X_test) / std, y=y_test, names="median", ax=axes[1])
for ax, title in zip(axes, ["VAETransformer", "PCA"], strict=True):
    ax.set_title(title)
    ax.set_aspect("equal", adjustable="datalim")

# %%
# What is decoded in between
# --------------------------
# The grid goes through the quantiles of :math:`p(z)`: each cell stands for the same share of all
# digits. :meth:`~skvae.plotting.ManifoldDisplay.from_decoder` takes any function from z to x, so
# that PCA can be shown by the same means.

fig, axes = plt.subplots(1, 2, figsize=(12, 6), layout="constrained")
ManifoldDisplay.from_estimator(vae, image_shape=(8, 8), ax=axes[0])
ManifoldDisplay.from_decoder(
    lambda Z: pca.inverse_transform(Z * std), 2, image_shape=(8, 8), ax=axes[1]
)
for ax, title in zip(axes, ["VAETransformer", "PCA"], strict=True):
    ax.set_title(title)

# %%
# In numbers
# ----------
# Whether neighbours in the plane are the same digit, and :math:`\log p(x)` of held-out rows, which
# both models give in nats of the same pixels.

accuracy, nats = {}, {}
for name, model in {"VAE": vae, "PCA": pca}.items():
    neighbours = KNeighborsClassifier(n_neighbors=10).fit(model.transform(X_train), y_train)
    accuracy[name] = neighbours.score(model.transform(X_test), y_test)
    nats[name] = model.score(X_test)

print(
    f"Finding: ten neighbours in the plane classify {accuracy['VAE']:.0%} of the held-out digits "
    f"correctly with the VAE, {accuracy['PCA']:.0%}\nwith PCA; log p(x) is {nats['VAE']:.1f} nats "
    f"a digit under the VAE and {nats['PCA']:.1f} under PCA."
)
plt.show()
