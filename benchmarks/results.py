"""What the benchmarks share: a file of measurements that a later run goes on with, and tables."""

from __future__ import annotations

import argparse
import ast
import json
import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class Task(Protocol):
    """A NamedTuple that says what to measure, in words and whole numbers."""

    _fields: tuple[str, ...]

    def _asdict(self) -> dict[str, Any]: ...


class Measurements:
    """Rows in a file of JSON lines, one for each task.

    A row has the fields of its task and those of what was measured, or "error". Of two rows
    of one task the later counts. A task that ended in an error is not done. Files of `known` rows
    are read before, and never written to.
    """

    def __init__(self, path: Path, task_type: type[Any], *known: Path):
        self.path = path
        self.task_type = task_type
        self._rows: dict[Any, dict[str, Any]] = {}
        for file in filter(Path.exists, (*known, path)):
            for line in file.read_text(encoding="utf-8").splitlines():
                self._keep(json.loads(line))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows.values())

    def has(self, task: Task) -> bool:
        return "error" not in self._rows.get(task, {"error": "not tried"})

    def add(self, row: dict[str, Any]) -> None:
        self._keep(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _keep(self, row: dict[str, Any]) -> None:
        self._rows[self.task_type(*(row[name] for name in self.task_type._fields))] = row


def measure_all(
    tasks: Iterable[Any],
    measure: Callable[[Any], NamedTuple],
    measurements: Measurements,
    n_jobs: int,
) -> None:
    """Measure what has not been, in `n_jobs` processes of one thread each."""
    todo = [task for task in tasks if not measurements.has(task)]
    measurements.path.parent.mkdir(parents=True, exist_ok=True)
    # Spawned processes read this before they import numpy and torch.
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(n_jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(attempt, measure, task) for task in todo]
        try:
            for n_done, future in enumerate(as_completed(futures), 1):
                row = future.result()
                measurements.add(row)
                values = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values())
                print(f"{n_done}/{len(todo)}", *values, file=sys.stderr, flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Called where nothing was done before; a forked process would begin with this one's peak."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def attempt(measure: Callable[[Any], NamedTuple], task: Task) -> dict[str, Any]:
    """A row; a model that fails is a result too, and no reason to stop the others."""
    try:
        return task._asdict() | measure(task)._asdict()
    except Exception as error:
        return task._asdict() | {"error": f"{type(error).__name__}: {error}"}


def setting(text: str) -> tuple[str, Any]:
    """`name=value` of a command line; a value that is no Python literal is a string."""
    name, _, value = text.partition("=")
    if not value:
        raise ValueError(text)  # argparse makes a message of it
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def add_options(parser: argparse.ArgumentParser, results: str) -> None:
    """Of a benchmark whose measurements are kept in a file, and of our model's name in it."""
    add = parser.add_argument
    add("--results", type=Path, default=results, help="default: %(default)s")
    add("--set", type=setting, action="append", default=[], help="name=value, for ours")
    add("--label", default="", help="a further part of the name of ours")
    add("--jobs", type=int, default=1, help="processes of one thread each (default: 1)")
    add("--report", action="store_true", help="the report alone, of what has been measured")
    add("--output", type=Path, help="file for the Markdown that is printed")


def name_of(settings: dict[str, Any], label: str) -> str:
    """Of our model in the tables and among the keys: with what makes it differ from the default."""
    values = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    return "VAETransformer" + (f"({values})" if values else "") + (f" {label}" if label else "")


def markdown(
    header: Sequence[str], formats: Sequence[str], rows: Iterable[Iterable[Any]], n_words: int
) -> str:
    """A table that reads well as plain text too; an empty cell for None and NaN.

    The first `n_words` columns are words; numbers stand to the right.
    """
    cells = [
        ["" if value is None or value != value else form.format(value) for form, value in pairs]
        for pairs in (zip(formats, row, strict=True) for row in rows)
    ]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]

    def line(values: Sequence[str]) -> str:
        padded = [
            value.ljust(width) if i < n_words else value.rjust(width)
            for i, (value, width) in enumerate(zip(values, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if i < n_words else "-" * (width - 1) + ":" for i, width in enumerate(widths)
    ]
    return "\n".join([line(header), line(rule), *map(line, cells)])


def cores() -> str:
    """Those of this machine, with the instructions that torch uses: ratios hang on them."""
    import torch

    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{os.cpu_count()} cores ({platform.machine()}, {instructions})"


def counted(n: int, noun: str) -> str:
    """ "1 turn", "3 turns"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def publish(text: str, output: Path | None) -> None:
    """Print a report, and write it to a file if one is wanted."""
    print(text, end="")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")


def status_mib(name: str, pid: int | str = "self") -> float:
    """What Linux says of a process, "VmHWM" for instance; 0 of one that is ending."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return int(values.get(name, "0 kB").split()[0]) / 1024
