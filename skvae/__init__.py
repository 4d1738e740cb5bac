"""Variational autoencoders for people who use scikit-learn."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from skvae._conditional import ConditionalVAE
from skvae._transformer import VAETransformer
from skvae._version import __version__

__all__ = ["ConditionalVAE", "VAETransformer", "__version__"]

_SUBMODULES = ("impute", "model_selection", "plotting")


def __dir__() -> list[str]:
    """What is public: this is what a prompt offers to complete ``skvae.`` with."""
    return sorted([*__all__, *_SUBMODULES])


if not TYPE_CHECKING:  # a type checker would take every name for a module

    def __getattr__(name: str) -> ModuleType:
        """A submodule, imported when it is first asked for, as scikit-learn's are."""
        if name in _SUBMODULES:
            return import_module(f"skvae.{name}")
        hint = ", unless it is imported: import skvae.onnx" if name == "onnx" else ""
        raise AttributeError(f"module 'skvae' has no attribute {name!r}{hint}")
