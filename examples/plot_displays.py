"""
Every Display
=============

The seven Displays of :mod:`skvae.plotting`, in scikit-learn's manner: ``from_estimator`` computes
and draws, ``ax=`` says where, and what was drawn is kept as attributes. First on images, the
handwritten digits; then on a table with names and units of its own, behind a scaler in a Pipeline.
"""

# %%
# How training went
# -----------------
# :class:`~skvae.plotting.LossCurveDisplay`: the bound in nats a row, and the best epoch.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits, load_wine
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvae import ConditionalVAE, VAETransformer
from skvae.plotting import (
    ComponentDisplay,
    LatentSpaceDisplay,
    LossCurveDisplay,
    ManifoldDisplay,
    ReconstructionDisplay,
    SampleDisplay,
    TraversalDisplay,
)

X, y = load_digits(return_X_y=True)
# Whole numbers have no density; with a little noise the pixels have one.
X = X + np.random.default_rng(0).normal(scale=0.3, size=X.shape)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
shape = (8, 8)

vae = VAETransformer(n_components=8, random_state=0).fit(X_train)
_ = LossCurveDisplay.from_estimator(vae)

# %%
# What a component does
# ---------------------
# :class:`~skvae.plotting.TraversalDisplay`: one component goes from low to high, the others stay
# at 0.

_ = TraversalDisplay.from_estimator(vae, image_shape=shape)

# %%
# What is kept of a row
# ---------------------
# :class:`~skvae.plotting.ReconstructionDisplay`: held-out rows, what the model expects where they
# lie in latent space, and a draw there, noise included.

_ = ReconstructionDisplay.from_estimator(vae, X_test, image_shape=shape)

# %%
# What the model draws
# --------------------
# :class:`~skvae.plotting.SampleDisplay`: samples, and means at the same z. Of a conditional model
# it has :ref:`a line for each label <sphx_glr_gallery_plot_conditional_digits.py>`.

_ = SampleDisplay.from_estimator(vae, image_shape=shape)

# %%
# Where rows lie, and what lies in between
# ----------------------------------------
# :class:`~skvae.plotting.LatentSpaceDisplay` and :class:`~skvae.plotting.ManifoldDisplay` of two
# components, drawn side by side.

plane = VAETransformer(n_components=2, random_state=0).fit(X_train)
fig, axes = plt.subplots(1, 2, figsize=(12, 5.8), layout="constrained")
LatentSpaceDisplay.from_estimator(plane, X_test, y_test, names="median", ax=axes[0])
_ = ManifoldDisplay.from_estimator(plane, image_shape=shape, ax=axes[1])

# %%
# A table in a Pipeline
# ---------------------
# The Displays take a Pipeline as it is: rows go through the steps before the VAE, and what is
# decoded comes back through them, in the units of the table. Points are coloured by labels or by
# numbers.

wine = load_wine(as_frame=True)
cultivar = wine.target.map({k: f"cultivar {k + 1}" for k in range(3)}).rename("wine")
pipeline = make_pipeline(StandardScaler(), VAETransformer(n_components=4, random_state=0))
pipeline.fit(wine.data)

fig, axes = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
LatentSpaceDisplay.from_estimator(pipeline, wine.data, cultivar, ax=axes[0])
_ = LatentSpaceDisplay.from_estimator(
    pipeline, wine.data, wine.data["alcohol"], spread="cross", ax=axes[1]
)

# %%
# A column stands for the row where rows are no images.

_ = ManifoldDisplay.from_estimator(pipeline, feature="alcohol")

# %%
# Reconstructions and traversals have a panel for each row or component, with the columns along it.

_ = ReconstructionDisplay.from_estimator(pipeline, wine.data)

# %%

_ = TraversalDisplay.from_estimator(pipeline, n_steps=5)

# %%
# Samples of a table are shown in two of its columns, with the data behind them. None of these
# columns is ever negative, so their likelihood is lognormal: a gaussian would draw negative
# colours.

given = ConditionalVAE(n_components=2, likelihood="lognormal", random_state=0)
given.fit(wine.data, cultivar)
_ = SampleDisplay.from_estimator(given, wine.data, features=("alcohol", "color_intensity"))

# %%
# How much each component carries
# -------------------------------
# :class:`~skvae.plotting.ComponentDisplay` is to a VAE what the scree plot is to PCA. Sixteen
# components are more than these thirteen columns need: the last ones stay below the dotted line of
# 0.01 nats, which a logarithmic axis shows best.

wide = VAETransformer(n_components=16, random_state=0).fit(wine.data)
display = ComponentDisplay.from_estimator(wide)
_ = display.ax_.set(yscale="log", ylim=(1e-4, 10))

# %%
# In numbers
# ----------
# What the pictures are drawn from is public: here the components of two of the models.

found = []
for rows, model in {"digits": vae, "wines": wide}.items():
    kl = model.kl_per_component_
    found.append(
        f"of {len(kl)} components of {rows} {model.n_active_components_} are in use; they carry "
        f"{kl.sum():.1f} nats, the first {kl[0]:.1f}"
    )
print(f"Finding: {found[0]};\n{found[1]}.")
plt.show()
