"""Threads: one for every operation of torch's, and several side by side."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from threadpoolctl import ThreadpoolController

#: Multiply-adds up to which one thread is quicker than several: the work of each would be over
#: before they have met.
ONE_THREAD_OPERATIONS = 2e7

_T = TypeVar("_T")


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
def _libraries() -> list[Any]:
    """Controllers of all that torch's operations are shared by: of the calling thread alone.

    numpy's BLAS is none of them. It has one number for all threads, which threadpoolctl lets one
    thread set and nobody else put back; nothing here is left to it that takes long.
    """
    found = ThreadpoolController().lib_controllers
    return [*(library for library in found if library.user_api == "openmp"), *_mkl()]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for every operation of this one, and then as many as before."""
    torch.get_num_threads()  # of a new thread torch sets the number when it is first asked
    before = [(library, library.num_threads) for library in _libraries()]
    try:
        for library, _ in before:
            library.set_num_threads(1)
        yield
    finally:
        for library, n in before:
            library.set_num_threads(n)


def side_by_side(
    tasks: Sequence[Callable[[], _T]], n_threads: int, stop: threading.Event
) -> Iterator[_T]:
    """What they return, as it comes; a thread each, and not all of them for each in turn.

    Threads that share the work of every operation have to wait for each other at its end:
    with other processes about, most of the time. Where this is given up, ``stop`` tells those
    that are under way.
    """
    if min(n_threads, len(tasks)) < 2:
        yield from (task() for task in tasks)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _Helpers:
    """Threads that stay, for work that is over before new ones have begun.

    A new thread has memory of its own to fill and libraries to set up, which takes milliseconds.
    """

    def __init__(self) -> None:
        self.forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """A forked process has none of its parent's."""
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, work: Callable[[], None]) -> Future[None]:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(os.cpu_count(), "skvae")
            return self._pool.submit(work)


_helpers = _Helpers()


def share(tasks: Iterable[Callable[[], None]], n_threads: int) -> None:
    """Do all of them; this thread and the others take one after the other, each as one thread."""
    waiting, lock = iter(tasks), threading.Lock()
    is_over = False

    def next_task() -> Callable[[], None] | None:
        with lock:
            return None if is_over else next(waiting, None)

    def work() -> None:
        nonlocal is_over
        try:
            with one_thread():
                while (task := next_task()) is not None:
                    task()
        finally:
            is_over = True  # nothing is left, or is worth doing

    helpers: list[Future[None]] = []
    try:
        with contextlib.suppress(RuntimeError):  # no thread is to be had, as when Python ends
            for _ in range(n_threads - 1):
                helpers.append(_helpers.submit(work))
        work()
    finally:
        is_over = True
        begun = [helper for helper in helpers if not helper.cancel()]
        wait(begun)
    for helper in begun:
        helper.result()  # or its error
