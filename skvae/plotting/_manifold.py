"""What the model decodes over the plane of two components."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from scipy.special import ndtri
from sklearn.utils import check_scalar

from skvae.plotting._axes import (
    centres,
    checked_image_shape,
    gap_of,
    limits_of,
    literal,
    merged,
    mosaic_size,
    points_of,
    pyplot,
    show_images,
    single_axes,
    width_of,
)
from skvae.plotting._model import Function, Model, position_of, repeated


class ManifoldDisplay:
    """E[x|z] on a grid over two components, the others at 0.

    The grid goes through the quantiles of the normal distribution, so that every cell
    holds the same share of p(z) along each axis. Rows are shown as images, or by one
    feature of theirs.

    Use `from_estimator` or `from_decoder`; all parameters are kept as attributes.

    Parameters
    ----------
    decoded : ndarray of shape (n_grid, n_grid, n_features)
        E[x|z]: the first axis goes along the second component, the second along the
        first, as rows and columns of a picture whose origin is below.

    quantiles : ndarray of shape (n_grid,)
        Where the grid is, in standard deviations of p(z).

    image_shape : tuple of int, default=None
        (height, width) or (height, width, 3) of the image that a row is.

    feature : int, default=None
        The column that is shown where rows are no images.

    feature_name : str, default=None
        Its name.

    component_names : sequence of 2 str, default=("component 0", "component 1")
        Labels of the axes.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    image_ : AxesImage
    colorbar_ : Colorbar or None
        For a feature.

    See Also
    --------
    TraversalDisplay : One component at a time.
    LatentSpaceDisplay : Where rows lie in this plane.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skvae import VAETransformer
    >>> from skvae.plotting import ManifoldDisplay
    >>> X = load_wine(as_frame=True).data
    >>> vae = VAETransformer(n_components=2, random_state=0).fit(X)
    >>> display = ManifoldDisplay.from_estimator(vae, feature="alcohol")
    >>> display.decoded.shape, display.colorbar_.ax.get_ylabel()
    ((40, 40, 13), 'E[alcohol | z]')
    """

    def __init__(
        self,
        *,
        decoded: np.ndarray,
        quantiles: np.ndarray,
        image_shape: Sequence[int] | None = None,
        feature: int | None = None,
        feature_name: str | None = None,
        component_names: Sequence[str] = ("component 0", "component 1"),
    ) -> None:
        self.decoded = decoded
        self.quantiles = quantiles
        self.image_shape = image_shape
        self.feature = feature
        self.feature_name = feature_name
        self.component_names = component_names

    def plot(
        self, ax: Any = None, *, imshow_kwargs: Mapping[str, Any] | None = None
    ) -> ManifoldDisplay:
        """Draw the grid.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a new figure.
        imshow_kwargs : dict, default=None
            For ``Axes.imshow``.

        Returns
        -------
        display : ManifoldDisplay
        """
        n_grid = len(self.quantiles)
        image_shape = checked_image_shape(self.image_shape, self.decoded.shape[2])
        figsize = (6.2, 5.0)
        if image_shape is not None:
            width, height = mosaic_size(image_shape, n_grid, n_grid, 5.4 / n_grid)
            figsize = (0.8 + width, 0.6 + height)
        ax = single_axes(ax, f"{type(self).__name__}.plot", figsize)
        self.ax_, self.figure_, self.colorbar_ = ax, ax.figure, None
        if image_shape is not None:
            upwards = self.decoded[::-1]
            limits = limits_of(self.decoded)
            self.image_ = show_images(ax, upwards, image_shape, limits, imshow_kwargs)
            gap = gap_of(image_shape)
            x = centres(n_grid, image_shape[1], gap)
            y = centres(n_grid, image_shape[0], gap)[::-1]
        else:
            values = self.decoded[:, :, self.feature]
            look = {"cmap": "viridis", "origin": "lower", "interpolation": "nearest"}
            self.image_ = ax.imshow(values, **merged(look, imshow_kwargs, "image"))
            self.colorbar_ = ax.figure.colorbar(
                self.image_, ax=ax, label=f"E[{literal(self.feature_name)} | z]"
            )
            x = y = np.arange(n_grid)
        most = self.quantiles.max()
        ticks = np.array([0.5, 1, 2] if most >= 2 else [0.5, 1, 1.5])
        side, size = points_of(ax, self.image_.get_array().shape)
        gap = np.ptp(np.interp(ticks[-2:], self.quantiles, x))
        if side * gap < width_of("1.5", size):  # or half of -1 and of -1.5
            ticks = ticks[ticks == 1]
        ticks = ticks[ticks <= most]
        ticks = np.concatenate([-ticks[::-1], [0], ticks])
        ax.set_xticks(np.interp(ticks, self.quantiles, x), [f"{tick:g}" for tick in ticks])
        ax.set_yticks(np.interp(ticks, self.quantiles, y), [f"{tick:g}" for tick in ticks])
        ax.set(xlabel=self.component_names[0], ylabel=self.component_names[1])
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        components: Sequence[int | str] | None = None,
        image_shape: Sequence[int] | None = None,
        feature: int | str | None = None,
        n_grid: int | None = None,
        condition: Any = None,
        step: str | None = None,
        ax: Any = None,
        imshow_kwargs: Mapping[str, Any] | None = None,
    ) -> ManifoldDisplay:
        """Decode a grid; no rows are needed.

        Parameters
        ----------
        estimator : VAETransformer, ConditionalVAE or Pipeline
            Fitted. In a Pipeline, what is decoded goes back through the steps before the
            VAE, from the last, as far as their ``inverse_transform`` can undo them.
        components : pair of int or str, default=None
            Along x and y, by position or by name as in ``get_feature_names_out``; None
            takes the first two.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, 3), where a row is an image.
        feature : int or str, default=None
            The column to show otherwise, by position or name.
        n_grid : int, default=None
            Steps along each axis; None is 15 for images, 40 for a feature.
        condition : label, number, tuple or DataFrame of one row, default=None
            That of a ConditionalVAE, for all of the grid; None averages over labels.
        step : str, default=None
            Which step of a Pipeline; None is the last that is a VAE.
        ax, imshow_kwargs
            As in `plot`.

        Returns
        -------
        display : ManifoldDisplay
        """
        pyplot(f"{cls.__name__}.from_estimator")
        source = Model.of(estimator, step)
        return cls._of(source, components, image_shape, feature, n_grid, condition).plot(
            ax=ax, imshow_kwargs=imshow_kwargs
        )

    @classmethod
    def from_decoder(
        cls,
        decode: Callable[[np.ndarray], Any],
        n_components: int,
        *,
        components: Sequence[int] | None = None,
        image_shape: Sequence[int] | None = None,
        feature: int | None = None,
        n_grid: int | None = None,
        ax: Any = None,
        imshow_kwargs: Mapping[str, Any] | None = None,
    ) -> ManifoldDisplay:
        """Decode the grid with any function, for instance that of a whitened PCA.

        Parameters
        ----------
        decode : callable
            From z, of shape (n_rows, n_components), to x, of shape (n_rows, n_features).
        n_components : int
        components : pair of int, default=None
            Along x and y; None takes the first two.
        image_shape, feature, n_grid
            As in `from_estimator`.
        ax, imshow_kwargs
            As in `plot`.

        Returns
        -------
        display : ManifoldDisplay

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from sklearn.decomposition import PCA
        >>> from skvae.plotting import ManifoldDisplay
        >>> pca = PCA(2, whiten=True).fit(load_digits().data)
        >>> display = ManifoldDisplay.from_decoder(
        ...     pca.inverse_transform, 2, image_shape=(8, 8), n_grid=7)
        >>> display.decoded.shape
        (7, 7, 64)
        """
        pyplot(f"{cls.__name__}.from_decoder")
        source = Function(decode, n_components)
        return cls._of(source, components, image_shape, feature, n_grid).plot(
            ax=ax, imshow_kwargs=imshow_kwargs
        )

    @classmethod
    def _of(
        cls,
        source: Model | Function,
        components: Sequence[int | str] | None,
        image_shape: Sequence[int] | None,
        feature: int | str | None,
        n_grid: int | None,
        condition: Any = None,
    ) -> ManifoldDisplay:
        n_components = source.n_components
        components = (0, 1) if components is None else components
        positions = source.positions(components) if n_components > 1 else [0, 0]
        if len(positions) != 2 or positions[0] == positions[1]:
            raise ValueError(
                f"components={components!r} of {n_components}; the plane needs two different "
                "ones. One alone is for TraversalDisplay."
            )
        if (image_shape is None) == (feature is None):
            raise ValueError(
                "either image_shape=(height, width) or feature=, a column by name or position, "
                f"says what of x to show; got image_shape={image_shape!r}, feature={feature!r}."
            )
        if n_grid is None:
            n_grid = 15 if feature is None else 40
        check_scalar(n_grid, "n_grid", Integral, min_val=1)
        quantiles = ndtri((np.arange(n_grid) + 0.5) / n_grid)
        grid = np.zeros((n_grid, n_grid, n_components))
        grid[:, :, positions[0]] = quantiles
        grid[:, :, positions[1]] = quantiles[:, None]
        Z = grid.reshape(-1, n_components)
        decoded = source.decode(Z, repeated(condition, len(Z)))
        _, [rows], names = source.shown(None, decoded)
        if feature is not None:
            feature = position_of(feature, names, "feature")
        return cls(
            decoded=rows.reshape(n_grid, n_grid, -1),
            quantiles=quantiles,
            image_shape=checked_image_shape(image_shape, rows.shape[1]),
            feature=feature,
            feature_name=None if feature is None else names[feature],
            component_names=[source.component_names[j] for j in positions],
        )
