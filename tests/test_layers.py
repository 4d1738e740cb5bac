"""The layers of the house: each module imports only its own layer and those below."""

import ast
import sys
from pathlib import Path

import pytest

import skvae

PACKAGE = Path(skvae.__file__).parent

LAYERS = {
    "_likelihoods": 0,
    "_bounds": 0,
    "_linear_start": 1,
    "_networks": 0,
    "_adam": 0,
    "_cuda_graph": 0,
    "_rows": 0,
    "_memory": 0,
    "_joint": 1,
    "_vae": 1,
    "_gradient": 1,
    "_run": 2,
    "_packs": 2,
    "_training": 2,
    "_inference": 2,
    "_proposals": 2,
    "_sklearn": 3,
    "_codec": 3,
    "_conditions": 3,
    "_checks": 3,
    "_frames": 3,
    "_reading": 3,
    "_messages": 3,
    "_families": 3,
    "_schema": 3,
    "_docs": 3,
    "_version": 3,
    "_fitted": 3,
    "_state": 3,
    "_starts": 3,
    "_preparing": 3,
    "_fitting": 3,
    "_verdict": 3,
    "_answers": 3,
    "_threads": 0,
    "_epochs": 3,
    "_deferred": 3,
    "_base": 3,
    "_transformer": 3,
    "_conditional": 3,
    "model_selection": 4,
    "impute": 4,
    "onnx": 4,
    "plotting": 4,  # a folder has one layer
}


def imported(source):
    """Dotted names of all that a module imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ("skvae." if node.level else "") + (node.module or "")
            yield from (f"{package.rstrip('.')}.{alias.name}" for alias in node.names)


def imports_of(module):
    """Of a file, or of all files of a folder."""
    folder = sorted((PACKAGE / module).rglob("*.py"))
    files = folder or [PACKAGE / f"{module}.py"]
    return [name for path in files for name in imported(path.read_text())]


def test_every_module_has_a_layer():
    modules = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in PACKAGE.rglob("*.py")}
    assert modules - {"__init__"} == set(LAYERS)


def test_the_reader_sees_every_kind_of_import():
    source = (
        "import a.b\nfrom c import d as e\ndef f():\n    from . import _g\n    from ._h import i"
    )
    assert sorted(imported(source)) == ["a.b", "c.d", "skvae._g", "skvae._h.i"]


@pytest.mark.parametrize("module", LAYERS)
def test_imports_point_down(module):
    """Own layer or lower; the lowest imports nothing local."""
    local = {name.split(".")[1] for name in imports_of(module) if name.split(".")[0] == "skvae"}
    assert local <= set(LAYERS)
    layer = LAYERS[module]
    assert not local or layer > 0
    assert all(LAYERS[name] <= layer for name in local)


@pytest.mark.parametrize("module", [name for name, layer in LAYERS.items() if layer < 3])
def test_the_core_knows_torch_alone(module):
    """Neither scikit-learn nor numpy nor scipy in layers 0 to 2, nor anything else."""
    outside = {name.split(".")[0] for name in imports_of(module)} - sys.stdlib_module_names
    counts = {"threadpoolctl"} if module == "_threads" else set()  # the threads of torch
    assert outside <= {"torch", "skvae", *counts}


@pytest.mark.parametrize("module", ["__init__", *LAYERS])
def test_private_names_of_sklearn_come_through_one_door(module):
    parts = [name.split(".") for name in imports_of(module)]
    private = [p for p in parts if p[0] == "sklearn" and any(x.startswith("_") for x in p)]
    assert not private or module == "_sklearn"
