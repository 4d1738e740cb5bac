"""Axes and the pictures in them: what all Displays share of matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

# The grey of the lines between the images of a mosaic, and of pixels that are missing.
_LINES = "0.8"

# One for each category, so that they can be told apart without colours.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")

# Entries of a legend above one another, and how many a figure makes room for.
_MOST_LINES, _MOST_ENTRIES = 20, 40

# Keywords of artists that say the same as others, or do not go with them.
_CLASHES = {"c": ("color",), "color": ("c",), "norm": ("vmin", "vmax")}

#: Names of columns: those that a user gives, or an array of text.
Names = Sequence[str] | np.ndarray


def pyplot(caller: str) -> ModuleType:
    """matplotlib.pyplot, or an error that says where to get it."""
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{caller} draws with matplotlib, which is not installed: pip install matplotlib."
        ) from error
    return plt


def merged(
    defaults: Mapping[str, Any], given: Mapping[str, Any] | None, artist: str
) -> dict[str, Any]:
    """Keywords of an artist: the user's before ours, under any of their names."""
    from matplotlib import cbook, collections, image, lines, patches

    kinds = {
        "bar": patches.Patch,
        "collection": collections.Collection,
        "image": image.AxesImage,
        "line": lines.Line2D,
    }
    own = cbook.normalize_kwargs(dict(given or {}), kinds[artist])
    taken = {other for name in own if own[name] is not None for other in _CLASHES.get(name, ())}
    ours = cbook.normalize_kwargs(dict(defaults), kinds[artist])
    return {**{name: value for name, value in ours.items() if name not in taken}, **own}


def shade(ax: Any, share: float) -> tuple[float, ...]:
    """A colour between the paper of the axes, 0, and the ink of the style in use, 1."""
    from matplotlib import rcParams
    from matplotlib.colors import to_rgb, to_rgba

    faces = (ax.get_facecolor(), rcParams["figure.facecolor"], "white")
    paper = next(face for face in map(to_rgba, faces) if face[3])  # no face is transparent
    mixed = share * np.array(to_rgb(rcParams["text.color"])) + (1 - share) * np.array(paper[:3])
    return tuple(mixed.tolist())


def look_of(i: int, colors: Sequence[Any]) -> dict[str, Any]:
    """Colour and marker of category i: no two of the first hundred share both."""
    n_colors = len(colors)
    marker = _MARKERS[(i + i // n_colors) % len(_MARKERS)]
    return {"color": colors[i % n_colors], "marker": marker}


def integer_axis(ax: Any) -> None:
    """Ticks along x at whole numbers, one of them at least."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def literal(text: Any) -> str:
    """A user's name for matplotlib, which takes what is between two dollars for a formula."""
    return str(text).replace("$", r"\$")


def legend_beside(ax: Any, artists: Sequence[Any], title: str | None = None) -> Any:
    """A legend right of the axes where a layout makes room for it, else inside.

    Of these artists whatever their labels, and of others in the axes that have one.
    """
    others = [each for each in ax.get_legend_handles_labels()[0] if each not in artists]
    handles = [*others, *artists]
    n_entries = len(handles)
    look: dict[str, Any] = {
        "title": title,
        "handletextpad": 0.2,
        "ncols": max(1, -(-n_entries // _MOST_LINES)),
    }
    is_laid_out = ax.figure.get_layout_engine() is not None
    if is_laid_out:
        look |= {"bbox_to_anchor": (1.01, 1), "borderaxespad": 0, "frameon": False}
    # matplotlib 3.9 leaves out what begins with "_" even here: texts come afterwards.
    legend = ax.legend(
        handles, ["-"] * n_entries, loc="upper left" if is_laid_out else "best", **look
    )
    for text, artist in zip(legend.get_texts(), handles, strict=True):
        text.set_text(artist.get_label())
    if is_laid_out:  # or it would take all of the axes' room
        legend.set_in_layout(n_entries <= _MOST_ENTRIES)
    return legend


def single_axes(ax: Any, caller: str, figsize: tuple[float, float] | None = None) -> Any:
    """The axes that were given, also as an array of one, or those of a new figure."""
    plt = pyplot(caller)
    if ax is None:
        return plt.subplots(figsize=figsize, layout="constrained")[1]
    given = _given_axes(ax, caller)
    if given.size != 1:
        raise ValueError(f"ax holds {given.size} axes; {caller} needs a single one.")
    return given.item()


def _given_axes(ax: Any, caller: str) -> np.ndarray:
    """A user's ax as an array, of Axes alone."""
    from matplotlib.axes import Axes

    given = np.asarray(ax, dtype=object)
    for each in given.flat:
        if not isinstance(each, Axes):
            raise TypeError(
                f"{caller} draws on Axes of matplotlib, or an array of them; ax has a "
                f"{type(each).__name__}."
            )
    return given


def several_axes(
    ax: Any,
    caller: str,
    n_rows: int,
    n_columns: int,
    *,
    figsize: tuple[float, float],
    **shared: Any,
) -> np.ndarray:
    """A grid of axes ``(n_rows, n_columns)``: new ones, those given, or a given one divided.

    One panel of a grid that was made here stands for all of it.
    """
    plt = pyplot(caller)
    if ax is None:
        look = {"figsize": figsize, "squeeze": False, "layout": "constrained", **shared}
        return _together(plt.subplots(n_rows, n_columns, **look)[1])
    given = _given_axes(ax, caller)
    if given.ndim:
        if given.size != n_rows * n_columns:
            raise ValueError(
                f"ax holds {given.size} axes; {caller} needs {n_rows * n_columns}, "
                f"{n_rows} x {n_columns}, or a single one to divide."
            )
        return given.reshape(n_rows, n_columns)
    ax = given.item()
    panels = getattr(ax, "_skvae_panels", None)
    if panels is not None and panels.shape == (n_rows, n_columns):
        return np.asarray(panels)
    place = ax.get_subplotspec()
    if place is None:
        raise ValueError(
            f"{caller} divides the axes it is given into {n_rows * n_columns}, which only those "
            "of plt.subplots or a GridSpec can be. Pass one of these, or an array of "
            f"{n_rows * n_columns} axes."
        )
    if panels is not None or not ax.axison:
        raise ValueError(
            f"{caller} divides the axes it is given, and these have been divided before, are one "
            "of such a division, or have no axis. Pass new ones, or ax=display.axes_ to draw into "
            "the same panels."
        )
    ax.set_axis_off()
    current = ax.figure.gca()
    axes = place.subgridspec(n_rows, n_columns).subplots(squeeze=False, **shared)
    ax.figure.sca(current)  # the user's, as before
    return _together(axes)


def _together(panels: np.ndarray) -> np.ndarray:
    """Panels that know of each other."""
    for panel in panels.flat:
        panel._skvae_panels = panels
    return panels


def checked_image_shape(image_shape: Any, n_features: int) -> tuple[int, ...] | None:
    """(height, width) or (height, width, 3), if it holds so many numbers."""
    if image_shape is None:
        return None
    shape = tuple(int(side) for side in image_shape) if np.ndim(image_shape) == 1 else ()
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise ValueError(
            f"image_shape={image_shape!r} must be (height, width), or (height, width, 3) for "
            "images in colour."
        )
    if min(shape) < 1 or int(np.prod(shape)) != n_features:
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


def mosaic_size(
    image_shape: tuple[int, ...], n_rows: int, n_columns: int, side: float
) -> tuple[float, float]:
    """Inches (width, height) of a mosaic whose images have the area of squares of that side."""
    height, width = image_shape[:2]
    stretch = float(np.clip(np.sqrt(width / height), 0.5, 2))
    return side * n_columns * stretch, side * n_rows / stretch


def centres(n: int, side: int, gap: int) -> np.ndarray:
    """Where the middles of n images are along a mosaic."""
    return gap + (side + gap) * np.arange(n) + (side - 1) / 2


def limits_of(rows: np.ndarray) -> tuple[float, float]:
    """The range of nearly all values: a few extreme ones would take the contrast from the rest."""
    seen = rows[np.isfinite(rows)]
    low, high = np.percentile(seen, [0.5, 99.5]) if len(seen) else (0, 1)
    return float(low), float(high)


def center_and_scale(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of columns, of the cells that are not missing.

    A column without any, or with one value, has the centre 0 or that value and the scale 1.
    """
    seen = np.ma.masked_invalid(rows)
    center, scale = np.ma.filled(seen.mean(axis=0), 0.0), np.ma.filled(seen.std(axis=0), 1.0)
    return center, np.where(scale == 0, 1.0, scale)


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
        {"cmap": "gray_r", "vmin": low, "vmax": high, "interpolation": "nearest"}, given, "image"
    )
    if image.ndim == 3:  # colours have no scale of their own
        low, high = keywords.get("vmin", low), keywords.get("vmax", high)
        image = np.clip((image - low) / ((high - low) or 1.0), 0, 1)
        image = np.where(np.isnan(image), float(_LINES), image)
        of_a_scale = ("cmap", "norm", "vmin", "vmax")
        keywords = {k: v for k, v in keywords.items() if k not in of_a_scale}
    else:
        keywords["cmap"] = colormaps.get_cmap(keywords["cmap"]).with_extremes(bad=_LINES)
    artist = ax.imshow(image, **keywords)
    gap = gap_of(image_shape)
    side, size = points_of(ax, image.shape)
    widest = max((width_of(label, size) for label in x_labels), default=0.0)
    x_labels = _thinned(x_labels, side * (image_shape[1] + gap), widest)
    y_labels = _thinned(y_labels, side * (image_shape[0] + gap), size)
    ax.set_xticks(centres(len(x_labels), image_shape[1], gap), x_labels)
    ax.set_yticks(centres(len(y_labels), image_shape[0], gap), y_labels)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if y_labels:
        ax.set_anchor("W")  # or a layout would leave them too little room
    return artist


def points_of(ax: Any, shape: tuple[int, ...]) -> tuple[float, float]:
    """Of an image of that shape: the side of its pixels, and the size of tick labels beside it."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties

    box = ax.get_window_extent()
    # As its sides keep their ratio.
    side = min(box.width / shape[1], box.height / shape[0]) * 72 / ax.figure.dpi
    return side, FontProperties(size=rcParams["xtick.labelsize"]).get_size_in_points()


def width_of(label: str, size: float) -> float:
    """About how wide a text is, with a gap to the next one, in the unit of its size."""
    return 0.62 * size * len(label) + 2


def _thinned(labels: Sequence[str], room: float, need: float) -> list[str]:
    """As many of the labels as have room, at equal distances, with the middle one."""
    step, middle = max(1, int(np.ceil(need / room))), len(labels) // 2
    return [label if (i - middle) % step == 0 else "" for i, label in enumerate(labels)]


def draw_panels(
    ax: Any,
    caller: str,
    titles: Sequence[str],
    curves: Sequence[Sequence[tuple[np.ndarray, dict[str, Any]]]],
    names: Names | None,
    unit: str,
    given: Mapping[str, Any] | None,
) -> tuple[np.ndarray, list[list[Any]]]:
    """A panel for each title, with curves over the columns of a table.

    ``curves[i]`` holds for each of them its values ``(n_columns,)`` and its look.
    """
    n_panels, n_columns = len(titles), len(curves[0][0][0])
    shown = column_names(names, n_columns)
    room = 0.3 if _are_short(shown) else 0.3 + min(1.5, 0.055 * max(map(len, shown)))
    figsize = (7.5, max(3.0, 0.8 + 1.4 * n_panels) + room)
    axes = several_axes(ax, caller, n_panels, 1, figsize=figsize, sharex=True, sharey=True)[:, 0]
    # A line over one column has no length.
    point = {"marker": "_", "markersize": 16, "markeredgewidth": 2} if n_columns == 1 else {}
    lines: list[list[Any]] = []
    for panel, title, those in zip(axes, titles, curves, strict=True):
        lines.append([])
        for values, look in those:
            lines[-1] += panel.plot(values, **merged({**point, **look}, given, "line"))
        panel.set_title(title, loc="left", fontsize="small", pad=2)
        panel.grid(axis="x" if are_few(n_columns) else "y", color=shade(panel, 0.07))
        panel.set_axisbelow(True)
    _name_columns(axes[-1], shown)
    axes[n_panels // 2].set_ylabel(unit, y=0.5 if n_panels % 2 else 1.0)
    return axes, lines


def are_few(n_columns: int) -> bool:
    """Whether the columns of a table can be told apart along an axis."""
    return n_columns <= 32


def column_names(names: Any, n_columns: int) -> np.ndarray:
    """Of columns, as an array of text; x0, x1, ... where they have none."""
    if names is None or len(names) != n_columns:
        names = [f"x{i}" for i in range(n_columns)]
    return np.array([str(name) for name in names], dtype=object)


def _are_short(names: Names) -> bool:
    """Whether names have room side by side, or are not written at all."""
    return not are_few(len(names)) or max(map(len, names)) * len(names) <= 60


def _name_columns(ax: Any, names: Names) -> None:
    """Columns of a table along the x axis: by name, or only by number if they are many."""
    if not are_few(len(names)):
        ax.set_xlabel("column")
        return
    slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    look = {} if _are_short(names) else slanted
    ax.set_xticks(range(len(names)), list(map(literal, names)), **look)
