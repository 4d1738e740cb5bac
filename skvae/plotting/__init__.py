"""Pictures of a fitted model, in the manner of scikit-learn's Displays.

A Display holds arrays: ``from_estimator`` computes them, ``plot`` draws them. matplotlib
is imported only then: ``pip install 'skvae[plot]'``.
"""

from skvae.plotting._components import ComponentDisplay
from skvae.plotting._latent_space import LatentSpaceDisplay
from skvae.plotting._loss_curve import LossCurveDisplay

__all__ = [
    "ComponentDisplay",
    "LatentSpaceDisplay",
    "LossCurveDisplay",
]
