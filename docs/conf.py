"""The site: `make docs` builds it into build/docs, with warnings as errors and no network."""

from __future__ import annotations

import importlib
import inspect
import warnings
from datetime import date
from pathlib import Path

import skvae

ROOT = Path(__file__).parents[1]

project = "skvae"
author = "The skvae developers"
copyright = f"{date.today().year}, {author}. BSD 3-Clause licence"
version = release = skvae.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas are set by a MathJax that is part of the site
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns: list[str] = []
templates_path = ["_templates"]
nitpicky = True  # a name that leads nowhere is an error
nitpick_ignore_regex = [
    # Of other packages: their pages are not fetched.
    ("py:.*", r"(sklearn|numpy|pandas|polars|matplotlib|torch|joblib|scipy|dask|distributed)\..*"),
]

# --- Markdown

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "smartquotes"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# --- the reference

default_role = "literal"  # docstrings have `parameter`
suppress_warnings = ["config.cache"]  # a function is handed to the templates below
autosummary_generate = True
toc_object_entries_show_parents = "hide"
autodoc_typehints = "none"  # the docstrings say it in words
numpydoc_show_class_members = False  # the template of a class lists them
numpydoc_xref_param_type = False


def own_methods(name: str) -> list[str]:
    """The public methods of a class that this package wrote, in the order of their names.

    What scikit-learn's base classes add is told by scikit-learn.
    """
    module, _, cls = name.rpartition(".")
    members = inspect.getmembers(getattr(importlib.import_module(module), cls), callable)
    return [
        method
        for method, function in members
        if not method.startswith("_")
        and getattr(function, "__module__", "").startswith("skvae")
        and inspect.isroutine(function)
    ]


autosummary_context = {"own_methods": own_methods}

# --- the gallery

sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "write_computation_times": False,
    "ignore_pattern": r"^(?!plot_).*\.py$",  # the other scripts are programs
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": 0,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "image_scrapers": ("matplotlib",),
    "matplotlib_animations": False,
    "plot_gallery": True,
}
# Figures are closed by the gallery; a window is asked for by nobody.
warnings.filterwarnings("ignore", message=".*FigureCanvasAgg is non-interactive.*")

# --- how it looks

html_theme = "pydata_sphinx_theme"
html_title = "skvae"
html_static_path = ["_static"]
html_css_files = ["skvae.css"]
html_domain_indices = False
html_show_sourcelink = False
html_copy_source = False
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": "skvae"},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
}
