"""Variational autoencoders for people who use scikit-learn."""

from skvae._conditional import ConditionalVAE
from skvae._transformer import VAETransformer
from skvae._version import __version__

__all__ = ["ConditionalVAE", "VAETransformer", "__version__"]
