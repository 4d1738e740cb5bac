"""What a prompt, a notebook and a first import show."""

import subprocess
import sys
from email.message import Message
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from sklearn.pipeline import make_pipeline

import skvae
from skvae import _docs
from skvae.impute import VAEImputer
from skvae.model_selection import GridSearchCV, RandomizedSearchCV

REFERENCE = Path(__file__).parents[1] / "docs" / "api" / "index.md"
VAE = skvae.VAETransformer()
ESTIMATORS = [
    VAE, skvae.ConditionalVAE(), VAEImputer(), GridSearchCV(VAE, {}), RandomizedSearchCV(VAE, {}),
]  # fmt: skip


@pytest.fixture
def declare(monkeypatch):
    """Have the metadata of the project say this of addresses."""

    def of(*lines):
        message = Message()
        for line in lines:
            message["Project-URL"] = line
        monkeypatch.setattr(_docs, "metadata", lambda name: message)
        _docs.site.cache_clear()

    yield of
    _docs.site.cache_clear()


FRESH = """
import sys, skvae

names = "impute", "model_selection", "plotting"
modules = [f"skvae.{name}" for name in names]
assert not {*modules} & {*sys.modules}
for name, module in zip(names, modules):
    assert getattr(skvae, name) is sys.modules[module], name
    for other in names:  # that one brings another is not the same as asking for it
        sys.modules.pop(f"skvae.{other}", None)
        vars(skvae).pop(other, None)
extras = {"matplotlib", "onnx", "skl2onnx", "onnxruntime", "skvae.onnx"}
assert not extras & {*sys.modules}, extras & {*sys.modules}
"""


def test_a_fresh_process_imports_what_it_is_asked_for():
    """``import skvae`` is enough, and costs nothing that is not used; extras are not needed.

    One process for all of it: most of its time goes into the import of torch.
    """
    subprocess.run([sys.executable, "-c", FRESH], check=True)


def test_completion_offers_what_is_public():
    public = {*skvae.__all__, "impute", "model_selection", "plotting"}
    assert set(dir(skvae)) == public
    assert all(hasattr(skvae, name) for name in public)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'skvae' has no attribute 'VAE'"):
        _ = skvae.VAE


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_html_leads_to_the_page_of_the_reference(declare, estimator):
    """To a page that the site has, for the estimator and for each of its parameters."""
    declare("Source, https://example.org/code", "Documentation, https://example.org/docs/")
    link = estimator._get_doc_link()
    folder, _, page = link.rpartition("/")
    assert folder == "https://example.org/docs/api/generated"
    assert f"   {page.removesuffix('.html')}\n" in REFERENCE.read_text(encoding="utf-8")
    html = make_pipeline(estimator)._repr_html_()
    assert f'href="{link}"' in html
    name = "n_components" if hasattr(estimator, "n_components") else "estimator"
    assert f"{link}#:~:text={name}" in html


def test_html_without_an_address_has_no_link(declare, monkeypatch):
    declare("Source, https://example.org/code")
    assert VAE._get_doc_link() == ""
    assert "href=" not in VAE._repr_html_()

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(_docs, "metadata", missing)
    _docs.site.cache_clear()
    assert VAE._get_doc_link() == ""


@pytest.mark.parametrize("estimator", [skvae.VAETransformer, skvae.ConditionalVAE])
def test_a_wrong_parameter_is_told_of_the_class_that_was_called(estimator):
    with pytest.raises(TypeError, match=rf"{estimator.__name__}\.__init__.*'latent_dim'"):
        estimator(latent_dim=2)


def test_both_estimators_have_the_same_defaults():
    """Each has a constructor of its own, and so a list of them."""
    conditional = skvae.ConditionalVAE().get_params()
    assert conditional.pop("condition_columns") is None
    assert conditional == VAE.get_params()
