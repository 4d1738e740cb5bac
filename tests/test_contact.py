"""What a prompt, a notebook and a first import show."""

import subprocess
import sys

import pytest

import skvae


@pytest.mark.parametrize("name", ["impute", "model_selection", "plotting"])
def test_submodules_come_when_they_are_asked_for(name):
    """``import skvae`` is enough, and costs nothing that is not used."""
    code = (
        "import sys, skvae\n"
        f"assert 'skvae.{name}' not in sys.modules\n"
        f"assert skvae.{name} is sys.modules['skvae.{name}']\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_completion_offers_what_is_public():
    public = {*skvae.__all__, "impute", "model_selection", "plotting"}
    assert set(dir(skvae)) == public
    assert all(hasattr(skvae, name) for name in public)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'skvae' has no attribute 'VAE'"):
        _ = skvae.VAE
