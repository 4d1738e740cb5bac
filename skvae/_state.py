"""The state of an estimator as files have it: sealed by a checksum, and opened with suspicion.

A file that was cut short or in which a byte has changed is not always refused by what reads
it: numbers are as good as others. The checksum is over all that is kept. It finds accidents,
not intentions: who can write a file can write its checksum too.
"""

from __future__ import annotations

import inspect
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.impute import MissingIndicator

from skvae._messages import warn_user
from skvae._version import __version__

_SEAL = ("_class", "_version", "_checksum")


def sealed(estimator: Any, state: dict[str, Any]) -> dict[str, Any]:
    """The state, with what it takes to recognise it."""
    state = {**state, "_class": type(estimator).__name__, "_version": __version__}
    return {**state, "_checksum": checksum(state)}


def opened(estimator: Any, state: Any) -> dict[str, Any]:
    """The state as it was before it was sealed, in memory.

    Raises ValueError where it is damaged, that of another class, or of a newer major version;
    warns of any other version, whose parameters that are not there yet are the default.
    """
    if not isinstance(state, dict) or not all(name in state for name in _SEAL):
        raise damaged(estimator, "it has no checksum")
    saved = state["_version"]
    if _major(saved) > _major(__version__):
        raise ValueError(
            f"this {type(estimator).__name__} was saved by skvae {saved}, and skvae {__version__} "
            f"cannot know what is in it. Install skvae {saved} or newer to load it."
        )
    # Copies: what is read from a memory map must not hang on its file, and torch wants memory
    # that may be written to.
    content: dict[str, Any] = unmapped(state)
    found = content.pop("_checksum")
    if found != checksum(content):
        raise damaged(estimator, "its checksum does not match its content")
    name = content.pop("_class")
    if name != type(estimator).__name__:
        raise damaged(estimator, f"it is that of a {name}")
    if content.pop("_version") != __version__:
        warn_user(
            InconsistentVersionWarning(
                estimator_name=name,
                current_sklearn_version=f"(skvae) {__version__}",
                original_sklearn_version=f"(skvae) {saved}",
            )
        )
        parameters = inspect.signature(type(estimator).__init__).parameters
        defaults = {name: parameter.default for name, parameter in parameters.items()}
        content = {name: defaults[name] for name in type(estimator)._get_param_names()} | content
    return content


def damaged(estimator: Any, finding: str) -> ValueError:
    return ValueError(
        f"this {type(estimator).__name__} cannot be loaded: {finding}. The file is damaged, or "
        "skvae did not write it. Take another copy of it, or fit again."
    )


def unmapped(value: Any) -> Any:
    """A value with its memory maps read into memory; dicts, lists and tuples are new ones."""
    if isinstance(value, np.memmap):
        return np.array(value)
    if type(value) is dict:
        return {name: unmapped(each) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(unmapped(each) for each in value)
    return value


def checksum(value: Any) -> int:
    """CRC-32 of plain data: numbers, strings, arrays, and dicts, lists and tuples of these.

    Of other objects, those that users have for parameters, the type counts alone; but the
    indicator of an imputer is part of what it gives.
    """
    crc = 0
    for part in _bytes_of(value):
        crc = zlib.crc32(part, crc)
    return crc


def _bytes_of(value: Any) -> Iterator[bytes | memoryview]:
    """What tells this value from others, the same on every machine."""
    if isinstance(value, np.memmap):
        value = np.asarray(value)
    yield type(value).__name__.encode()
    if isinstance(value, np.ndarray | np.generic):
        yield from _bytes_of_array(np.asarray(value))
    elif isinstance(value, dict):
        yield from _bytes_of(list(value.items()))
    elif isinstance(value, slice):
        yield from _bytes_of((value.start, value.stop, value.step))
    elif isinstance(value, np.random.RandomState):
        yield from _bytes_of(value.get_state(legacy=False))
    elif isinstance(value, MissingIndicator):
        yield from _bytes_of(vars(value))
    elif isinstance(value, list | tuple):
        yield _length(value)
        for each in value:
            yield from _bytes_of(each)
    elif isinstance(value, float):
        yield b"nan" if value != value else struct.pack("<d", value)
    elif isinstance(value, str | bytes):
        text = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        yield _length(text)
        yield text
    elif isinstance(value, int | range) or value is None:
        yield repr(value).encode()


def _length(value: Any) -> bytes:
    """So that no two parts can be taken for one."""
    return f"[{len(value)}]".encode()


def _bytes_of_array(array: np.ndarray) -> Iterator[bytes | memoryview]:
    if array.dtype.kind in "OT":
        yield str(array.shape).encode()
        for each in array.ravel().tolist():
            yield from _bytes_of(each)
        return
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    yield f"{array.dtype.str}{array.shape}".encode()
    if array.size:
        yield array.reshape(-1).view(np.uint8).data


def _major(version: Any) -> int:
    """The first number of a version; -1 of what is none, which the checksum will tell of."""
    first = str(version).partition(".")[0]
    return int(first) if first.isdecimal() else -1
