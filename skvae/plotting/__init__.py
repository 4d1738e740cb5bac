"""Pictures of a fitted model, in the manner of scikit-learn's Displays.

A Display holds arrays: ``from_estimator`` computes them, ``plot`` draws them. matplotlib
is imported only then, and has to be installed. Rows of X are shown by their numbers
alone: columns that are categories, or the condition of a ConditionalVAE, are left out.
"""

from skvae.plotting._components import ComponentDisplay
from skvae.plotting._latent_space import LatentSpaceDisplay
from skvae.plotting._loss_curve import LossCurveDisplay
from skvae.plotting._manifold import ManifoldDisplay
from skvae.plotting._reconstruction import ReconstructionDisplay
from skvae.plotting._samples import SampleDisplay
from skvae.plotting._traversal import TraversalDisplay

__all__ = [
    "ComponentDisplay",
    "LatentSpaceDisplay",
    "LossCurveDisplay",
    "ManifoldDisplay",
    "ReconstructionDisplay",
    "SampleDisplay",
    "TraversalDisplay",
]
