"""Every block of Python in the pages of docs/ runs, and gives what the page says.

The blocks of a page are one session: what the first defines the last may use.
"""

import doctest
import re
from collections import Counter
from pathlib import Path

import pytest
from sklearn import config_context

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(
    path.relative_to(DOCS).as_posix()
    for path in DOCS.rglob("*.md")
    if path.relative_to(DOCS).parts[0] not in ("gallery",)
)

#: What is no Python: commands and layout. Whatever else a fence begins with is an error.
NOT_PYTHON = {"sh", "text", "bibtex", "{toctree}", "{eval-rst}", "{include}", "{math}"}

#: Blocks that a colon fence makes: their text is Markdown, which has fences of its own.
COLON_BLOCKS = re.compile(r"^:{3,}\{(grid|grid-item-card|note|tip|warning|important)\}", re.M)

#: Blocks that cannot run here, as text; each page has as many as this.
TEXT_BLOCKS = {"searches.md": 1}

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NUMBER = re.compile(r"(?<![\w.])[-+]?\d*\.\d+(?:e[-+]?\d+)?|(?<![\w.])[-+]?\d+(?:\.(?!\d))?(?!\w)")


class Rounded(doctest.OutputChecker):
    """Numbers with decimals may differ by one in the last that the page gives.

    Other processors round otherwise; what a page tells does not hang on that.
    """

    def check_output(self, want, got, optionflags):
        if super().check_output(want, got, optionflags):
            return True
        wanted, given = NUMBER.findall(want), NUMBER.findall(got)
        if len(wanted) != len(given):
            return False
        numbers = iter(zip(wanted, given, strict=True))
        same = all(self._is_near(*pair) for pair in numbers)
        return same and super().check_output(
            NUMBER.sub("#", want), NUMBER.sub("#", got), optionflags
        )

    @staticmethod
    def _is_near(want, got):
        decimals = len(want.split("e")[0].partition(".")[2])
        if not decimals:
            return want == got
        return abs(float(want) - float(got)) < 1.5 * 10.0**-decimals


def fences(text):
    """(language, lines, number of the first line) of every fenced block, and what is left open."""
    found, opened = [], None
    for number, line in enumerate(text.splitlines()):
        mark = re.match(r"\s*(`{3,}|~{3,})\s*(\S*)", line)
        if opened is None and mark:
            opened = mark[1], mark[2], [], number + 1
        elif opened is not None and mark and mark[1].startswith(opened[0]) and not mark[2]:
            found.append(opened[1:])
            opened = None
        elif opened is not None:
            opened[2].append(line)
    return found, opened


def session(text, name):
    """All Python of a page as one doctest, at the lines where it stands."""
    lines = [""] * (len(text.splitlines()) + 1)
    for language, block, first in fences(text)[0]:
        if language == "python":
            lines[first : first + len(block)] = block
    return doctest.DocTestParser().get_doctest("\n".join(lines), {}, name, name, 0)


# Of what the processes of a cluster say while they come and go.
CLUSTER = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=CLUSTER if p == "how_to/cluster.md" else ()) for p in PAGES],
)
def test_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what a page saves
    test = session((DOCS / page).read_text(encoding="utf-8"), page)
    runner = doctest.DocTestRunner(checker=Rounded(), optionflags=FLAGS, verbose=False)
    report = []
    with config_context():  # a page may set sklearn's
        failed, tried = runner.run(test, out=report.append)
    assert not failed, "".join(report)
    assert tried == len(test.examples)


@pytest.mark.parametrize("page", PAGES)
def test_no_block_is_passed_over(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks, opened = fences(text)
    assert opened is None
    n_marks = len(re.findall(r"^\s*(?:```|~~~)", text, re.M))
    assert n_marks == 2 * len(blocks)
    assert len(re.findall(r"^:{3,}\{", text, re.M)) == len(COLON_BLOCKS.findall(text))
    languages = Counter(language for language, _, _ in blocks)
    assert not set(languages) - NOT_PYTHON - {"python"}
    assert languages["text"] == TEXT_BLOCKS.get(page, 0)
    for language, lines, first in blocks:
        # A block is a session from its first line on: nothing in it is only to be looked at.
        assert language != "python" or lines[0].lstrip().startswith(">>> "), f"line {first + 1}"
        is_code = any(">>>" in line for line in lines)
        assert language == "python" or not is_code, f"line {first + 1}"
    # None outside of a block either; and the parser finds all of them.
    assert len(session(text, page).examples) == len(re.findall(r"^\s*>>> ", text, re.M))


def test_there_are_pages():
    """A folder that has moved would pass in silence."""
    assert {"index.md", "guide/elbo.md", "how_to/impute.md", "searches.md"} <= set(PAGES)
    n_blocks = sum(
        language == "python"
        for page in PAGES
        for language, _, _ in fences((DOCS / page).read_text(encoding="utf-8"))[0]
    )
    assert n_blocks > 60


@pytest.mark.parametrize(
    ("want", "got", "is_same"),
    [
        ("-21.3", "-21.4", True),
        ("-21.3", "-21.5", False),
        ("21.3", "-21.3", False),
        ("(178, 2)", "(178, 3)", False),
        ("[1.27 0.96]", "[1.28 0.95]", True),
        ("a 0.5", "b 0.5", False),
        ("PCA -24.1, VAE -18.9", "PCA -24.1, VAE -19.1", False),
    ],
)
def test_numbers_are_compared_as_they_are_printed(want, got, is_same):
    assert Rounded().check_output(f"{want}\n", f"{got}\n", FLAGS) is is_same
