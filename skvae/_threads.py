"""Threads: one for all operations of small models, of every library that counts its own."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import ThreadpoolController


class _MKL:
    """That inside of torch, which no controller finds.

    Once `torch.set_num_threads` has been called, products take so many threads whatever OpenMP is
    told. This number is the calling thread's own; 0 is none of its own.
    """

    def __init__(self, set_own: Callable[[int], int]) -> None:
        self._set_own = set_own  # gives back what was set before

    @property
    def num_threads(self) -> int:
        found = self._set_own(0)
        self._set_own(found)
        return found

    def set_num_threads(self, n: int) -> None:
        self._set_own(n)


def _mkl() -> list[_MKL]:
    """None where torch is built without it, or does not give the function."""
    with contextlib.suppress(OSError, AttributeError):
        torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return [_MKL(torch_cpu.MKL_Set_Num_Threads_Local)]
    return []


@cache
def _libraries() -> tuple[list[Any], list[Any]]:
    """Controllers of what counts threads for the calling thread alone, and of others."""
    found = ThreadpoolController().lib_controllers
    own = [library for library in found if library.user_api == "openmp"]
    return [*own, *_mkl()], [library for library in found if library not in own]


class _OneThread:
    """One thread for every operation, and then as many as before; trainings may overlap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._before: list[int] = []

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        own, shared = _libraries()
        before = [library.num_threads for library in own]
        with self._lock:
            if not self._n_inside:
                self._before = [library.num_threads for library in shared]
            self._n_inside += 1
        for library in (*own, *shared):
            library.set_num_threads(1)
        try:
            yield
        finally:
            for library, n in zip(own, before, strict=True):
                library.set_num_threads(n)
            with self._lock:
                self._n_inside -= 1
                if not self._n_inside:
                    for library, n in zip(shared, self._before, strict=True):
                        library.set_num_threads(n)


#: A context of one thread.
one_thread = _OneThread()
