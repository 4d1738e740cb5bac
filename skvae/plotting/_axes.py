"""Axes and the pictures in them: what all Displays share of matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

# The grey of the lines between the images of a mosaic.
_LINES = "0.8"


def pyplot(caller: str) -> ModuleType:
    """matplotlib.pyplot, or an error that says where to get it."""
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{caller} draws with matplotlib, which is not installed: pip install matplotlib."
        ) from error
    return plt


def merged(defaults: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Keywords of an artist: the user's before ours, also by their short names."""
    aliases = {"c": "color", "lw": "linewidth", "ls": "linestyle", "ms": "markersize"}
    given = {aliases.get(name, name): value for name, value in (given or {}).items()}
    return {**defaults, **given}


def single_axes(ax: Any, caller: str, figsize: tuple[float, float] | None = None) -> Any:
    """The axes that were given, or those of a new figure."""
    plt = pyplot(caller)
    if ax is None:
        _, ax = plt.subplots(figsize=figsize, layout="constrained")
    return ax


def several_axes(
    ax: Any,
    caller: str,
    n_rows: int,
    n_columns: int,
    *,
    figsize: tuple[float, float],
    **shared: Any,
) -> np.ndarray:
    """A grid of axes ``(n_rows, n_columns)``: new ones, those given, or a given one divided."""
    plt = pyplot(caller)
    if ax is None:
        return plt.subplots(
            n_rows, n_columns, figsize=figsize, squeeze=False, layout="constrained", **shared
        )[1]
    if not hasattr(ax, "get_subplotspec"):
        given = np.asarray(ax, dtype=object)
        if given.size != n_rows * n_columns:
            raise ValueError(
                f"ax holds {given.size} axes; {caller} needs {n_rows * n_columns}, "
                f"{n_rows} x {n_columns}, or a single one to divide."
            )
        return given.reshape(n_rows, n_columns)
    place = ax.get_subplotspec()
    if place is None:
        raise ValueError(
            f"{caller} divides the axes it is given into {n_rows * n_columns}, which only those "
            "of plt.subplots or a GridSpec can be. Pass one of these, or an array of "
            f"{n_rows * n_columns} axes."
        )
    ax.set_axis_off()
    return place.subgridspec(n_rows, n_columns).subplots(squeeze=False, **shared)


def checked_image_shape(image_shape: Any, n_features: int) -> tuple[int, ...] | None:
    """(height, width) or (height, width, 3), if it holds so many numbers."""
    if image_shape is None:
        return None
    shape = tuple(int(side) for side in image_shape)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise ValueError(
            f"image_shape={image_shape!r} must be (height, width), or (height, width, 3) for "
            "images in colour."
        )
    if int(np.prod(shape)) != n_features:
        raise ValueError(
            f"image_shape={image_shape!r} has {int(np.prod(shape))} pixels, but the rows have "
            f"{n_features} columns. A row has to be one image, line by line."
        )
    return shape[:2] if shape[2:] == (1,) else shape


def gap_of(image_shape: tuple[int, ...]) -> int:
    """Pixels of the lines between images."""
    return max(1, round(max(image_shape[:2]) / 16))


def mosaic(rows: np.ndarray, image_shape: tuple[int, ...]) -> np.ndarray:
    """``(R, C, n_features)`` -> one image of R x C images, with NaN where the lines are."""
    n_rows, n_columns = rows.shape[:2]
    gap = gap_of(image_shape)
    height, width = (side + gap for side in image_shape[:2])
    channels = image_shape[2:]
    whole = np.full((n_rows * height + gap, n_columns * width + gap, *channels), np.nan)
    for i in range(n_rows):
        for j in range(n_columns):
            top, left = gap + i * height, gap + j * width
            place = slice(top, top + image_shape[0]), slice(left, left + image_shape[1])
            whole[place] = rows[i, j].reshape(image_shape)
    return whole


def centres(n: int, side: int, gap: int) -> np.ndarray:
    """Where the middles of n images are along a mosaic."""
    return gap + (side + gap) * np.arange(n) + (side - 1) / 2


def limits_of(rows: np.ndarray) -> tuple[float, float]:
    """The range of nearly all values: a few extreme ones would take the contrast from the rest."""
    low, high = np.percentile(rows, [0.5, 99.5])
    return float(low), float(high)


def show_images(
    ax: Any,
    rows: np.ndarray,
    image_shape: tuple[int, ...],
    limits: tuple[float, float],
    given: Mapping[str, Any] | None,
    *,
    x_labels: Sequence[str] = (),
    y_labels: Sequence[str] = (),
) -> Any:
    """Draw ``(R, C, n_features)`` as a mosaic with names beside its rows and columns."""
    from matplotlib import colormaps

    image = mosaic(rows, image_shape)
    low, high = limits
    keywords = merged(
        {"cmap": "gray_r", "vmin": low, "vmax": high, "interpolation": "nearest"}, given
    )
    if image.ndim == 3:  # colours have no scale of their own
        span = (keywords["vmax"] - keywords["vmin"]) or 1.0
        image = np.clip((image - keywords["vmin"]) / span, 0, 1)
        image = np.where(np.isnan(image), float(_LINES), image)
        keywords = {k: v for k, v in keywords.items() if k not in ("cmap", "vmin", "vmax")}
    else:
        cmap = keywords["cmap"]
        cmap = colormaps[cmap] if isinstance(cmap, str) else cmap
        keywords["cmap"] = cmap.with_extremes(bad=_LINES)
    artist = ax.imshow(image, **keywords)
    gap = gap_of(image_shape)
    ax.set_xticks(centres(len(x_labels), image_shape[1], gap), x_labels)
    ax.set_yticks(centres(len(y_labels), image_shape[0], gap), y_labels)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if y_labels:
        ax.set_anchor("W")  # or a layout would leave them too little room
    return artist


def label_middle(axes: Sequence[Any], label: str) -> None:
    """One label for the y axes of a column of panels."""
    n = len(axes)
    axes[n // 2].set_ylabel(label, y=0.5 if n % 2 else 1.0)


def are_few(n_columns: int) -> bool:
    """Whether the columns of a table can be told apart along an axis."""
    return n_columns <= 32


def dress_panel(ax: Any, title: str, n_columns: int) -> None:
    """Of a panel that has rows of a table as lines."""
    ax.set_title(title, loc="left", fontsize="small", pad=2)
    ax.grid(axis="x" if are_few(n_columns) else "y", color="0.93")
    ax.set_axisbelow(True)


def names_or_numbers(names: Sequence[str] | None, n_columns: int) -> Sequence[str]:
    """Of columns; x0, x1, ... where there are no names."""
    return [f"x{i}" for i in range(n_columns)] if names is None else names


def name_columns(ax: Any, names: Sequence[str] | None, n_columns: int) -> None:
    """Columns of a table along the x axis: by name, or only by number if they are many."""
    names = names_or_numbers(names, n_columns)
    if not are_few(n_columns):
        ax.set_xlabel("column")
        return
    is_short = max(map(len, names)) * len(names) <= 60
    ax.set_xticks(
        range(len(names)),
        list(names),
        **({} if is_short else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}),
    )
