"""The gallery's examples as sphinx-gallery reads them; building the docs runs them."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

import pytest

import skvae.plotting

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("plot_*.py"))


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def source(request):
    return request.param.read_text(encoding="utf-8")


def test_there_is_a_gallery():
    assert len(EXAMPLES) >= 8


def test_it_has_a_title(source):
    docstring = ast.get_docstring(ast.parse(source))
    title, underline, blank, text = docstring.splitlines()[:4]
    assert title
    assert underline == "=" * len(title)
    assert not blank
    assert text


def test_sections_are_underlined(source):
    """A title with a line of another length is a warning of docutils, or no title."""
    lines = source.splitlines()
    for above, line in pairwise(lines):
        if line.startswith("# --"):
            assert len(line) == len(above), above


def test_the_finding_is_computed(source):
    """Each prints its finding, with numbers in it that the script has found."""
    prints = [node for node in calls(source) if ast.unparse(node.func) == "print"]
    findings = [node for node in prints if "Finding: " in ast.unparse(node)]
    assert len(findings) == 1
    assert any(isinstance(part, ast.FormattedValue) for part in ast.walk(findings[0]))


def test_it_shows_its_figures(source):
    """As a script: on the page they are shown anyway."""
    assert source.rstrip().splitlines()[-1] == "plt.show()"


def test_no_cell_ends_in_a_value(source):
    """The page would show it: <matplotlib.legend.Legend object at 0x7f...>."""
    starts = [i for i, line in enumerate(source.splitlines(), 1) if line.startswith("# %%")]
    body = ast.parse(source).body[1:]
    cells = {sum(node.lineno > start for start in starts): node for node in body}  # the last wins
    for node in cells.values():
        assert not isinstance(node, ast.Expr) or called(node.value) in ("print", "plt.show"), (
            f"line {node.lineno}: {ast.unparse(node)}"
        )


def test_every_display_is_shown():
    source = (FOLDER / "plot_displays.py").read_text(encoding="utf-8")
    drawn = {called(node).partition(".")[0] for node in calls(source)}
    assert set(skvae.plotting.__all__) <= drawn


def calls(source: str) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]


def called(node: ast.expr) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""
