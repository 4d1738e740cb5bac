"""What each component does to a row while the others stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_scalar

from skvae.plotting._axes import (
    Names,
    center_and_scale,
    checked_image_shape,
    draw_panels,
    limits_of,
    mosaic_size,
    pyplot,
    show_images,
    single_axes,
)
from skvae.plotting._model import Function, Model, as_array, repeated

# Rows of the picture where the user does not say which components to show.
_MOST_COMPONENTS = 10

# Draws of x for the deviations of columns.
_N_DRAWS = 1000


class TraversalDisplay:
    """E[x|z] as one component goes from low to high and the others keep their place.

    Images have a line for each component. Other rows have a panel for each, with a curve
    over the columns for every step: the change from E[x|z] at the place itself, in
    standard deviations that the column has under the model.

    Use `from_estimator` or `from_decoder`; all parameters are kept as attributes.

    Parameters
    ----------
    decoded : ndarray of shape (n_shown, n_steps, n_features)
        E[x|z] for each component shown and step.

    base : ndarray of shape (n_features,)
        E[x|z] at the place itself.

    values : ndarray of shape (n_steps,)
        Of the component, in standard deviations of p(z).

    scale : ndarray of shape (n_features,), default=None
        What changes are shown in units of, where rows are no images.

    image_shape : tuple of int, default=None
        (height, width) or (height, width, 3) of the image that a row is.

    feature_names : ndarray of shape (n_features,), default=None
        Names of the columns.

    component_names : sequence of n_shown str, default=None
        Names of the components.

    Attributes
    ----------
    axes_ : ndarray of Axes of shape (n_panels,)
        A single one for images.
    ax_ : Axes
        The first of them.
    figure_ : matplotlib Figure
    image_ : AxesImage or None
    lines_ : list of list of Line2D
        Of the steps, for each component; empty for images.
    colorbar_ : Colorbar or None

    See Also
    --------
    ManifoldDisplay : Two components at once.
    ComponentDisplay : How much each component tells.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skvae import VAETransformer
    >>> from skvae.plotting import TraversalDisplay
    >>> X = load_wine(as_frame=True).data
    >>> vae = VAETransformer(n_components=2, random_state=0).fit(X)
    >>> display = TraversalDisplay.from_estimator(vae, n_steps=5)
    >>> display.decoded.shape, display.values
    ((2, 5, 13), array([-2., -1.,  0.,  1.,  2.]))
    """

    def __init__(
        self,
        *,
        decoded: np.ndarray,
        base: np.ndarray,
        values: np.ndarray,
        scale: np.ndarray | None = None,
        image_shape: Sequence[int] | None = None,
        feature_names: Names | None = None,
        component_names: Sequence[str] | None = None,
    ) -> None:
        self.decoded = decoded
        self.base = base
        self.values = values
        self.scale = scale
        self.image_shape = image_shape
        self.feature_names = feature_names
        self.component_names = component_names

    def plot(
        self,
        ax: Any = None,
        *,
        cmap: Any = "coolwarm",
        imshow_kwargs: Mapping[str, Any] | None = None,
        line_kwargs: Mapping[str, Any] | None = None,
    ) -> TraversalDisplay:
        """Draw the steps.

        Parameters
        ----------
        ax : matplotlib Axes or array of n_shown Axes, default=None
            None makes a new figure. Where rows are no images, a single one is divided.
        cmap : str or Colormap, default="coolwarm"
            Of the steps, where rows are no images.
        imshow_kwargs : dict, default=None
            For ``Axes.imshow``.
        line_kwargs : dict, default=None
            For ``Axes.plot``.

        Returns
        -------
        display : TraversalDisplay
        """
        caller = f"{type(self).__name__}.plot"
        pyplot(caller)
        self.lines_: list[Any] = []
        self.image_ = self.colorbar_ = None
        n_shown, n_steps, n_features = self.decoded.shape
        image_shape = checked_image_shape(self.image_shape, n_features)
        names = self.component_names
        names = [f"component {j}" for j in range(n_shown)] if names is None else names
        if image_shape is not None:
            width, height = mosaic_size(image_shape, n_shown, n_steps, 0.7)
            ax = single_axes(ax, caller, (2.1 + max(width, 2.4), 0.8 + height))
            self.image_ = show_images(
                ax, self.decoded, image_shape, limits_of(self.decoded),
                imshow_kwargs, x_labels=[f"{v:g}" for v in self.values.round(2)], y_labels=names,
            )  # fmt: skip
            ax.set_xlabel("value of the component\n(standard deviations of the prior)")
            self.axes_ = np.array([ax], dtype=object)
        else:
            self._plot_lines(ax, caller, names, cmap, line_kwargs)
        self.ax_ = self.axes_[0]
        self.figure_ = self.ax_.figure
        return self

    def _plot_lines(
        self,
        ax: Any,
        caller: str,
        names: Sequence[str],
        cmap: Any,
        line_kwargs: Mapping[str, Any] | None,
    ) -> None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        changes = (self.decoded - self.base) / (1.0 if self.scale is None else self.scale)
        colors = ScalarMappable(Normalize(self.values.min(), self.values.max()), cmap)
        looks = [
            # Dashed below the middle: to be told apart in grey as well.
            {"color": color, "linewidth": 1.4, "linestyle": "--" if value < 0 else "-"}
            for value, color in zip(self.values, colors.to_rgba(self.values), strict=True)
        ]
        curves = [list(zip(steps, looks, strict=True)) for steps in changes]
        unit = "change" if self.scale is None else "change (standard deviations)"
        self.axes_, self.lines_ = draw_panels(
            ax, caller, names, curves, self.feature_names, unit, line_kwargs
        )
        self.colorbar_ = self.axes_[0].figure.colorbar(
            colors, ax=list(self.axes_), label="value of the component"
        )

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        components: Sequence[int | str] | int | str | None = None,
        z: Any = None,
        n_steps: int = 9,
        reach: float = 2.0,
        image_shape: Sequence[int] | None = None,
        condition: Any = None,
        step: str | None = None,
        ax: Any = None,
        cmap: Any = "coolwarm",
        imshow_kwargs: Mapping[str, Any] | None = None,
        line_kwargs: Mapping[str, Any] | None = None,
    ) -> TraversalDisplay:
        """Decode the steps; no rows are needed.

        Parameters
        ----------
        estimator : VAETransformer, ConditionalVAE or Pipeline
            Fitted. In a Pipeline, what is decoded goes back through the steps before the
            VAE, from the last, as far as their ``inverse_transform`` can undo them.
        components : int, str or sequence of them, default=None
            By position, or by name as in ``get_feature_names_out``; None takes those in
            use, ten at most.
        z : array-like of shape (n_components,), default=None
            The place to start from, a row of ``transform`` for instance; None is 0, the
            middle of p(z).
        n_steps : int, default=9
        reach : float, default=2.0
            Steps go from -reach to reach, in standard deviations of p(z).
        image_shape : tuple of int, default=None
            (height, width) or (height, width, 3), where a row is an image.
        condition : label, number, tuple or DataFrame of one row, default=None
            That of a ConditionalVAE, for all steps; None averages over labels.
        step : str, default=None
            Which step of a Pipeline; None is the last that is a VAE.
        ax, cmap, imshow_kwargs, line_kwargs
            As in `plot`.

        Returns
        -------
        display : TraversalDisplay
        """
        pyplot(f"{cls.__name__}.from_estimator")
        return cls._of(
            Model.of(estimator, step), components, z, n_steps, reach, image_shape, condition
        ).plot(ax=ax, cmap=cmap, imshow_kwargs=imshow_kwargs, line_kwargs=line_kwargs)

    @classmethod
    def from_decoder(
        cls,
        decode: Callable[[np.ndarray], Any],
        n_components: int,
        *,
        components: Sequence[int] | int | None = None,
        z: Any = None,
        n_steps: int = 9,
        reach: float = 2.0,
        image_shape: Sequence[int] | None = None,
        ax: Any = None,
        cmap: Any = "coolwarm",
        imshow_kwargs: Mapping[str, Any] | None = None,
        line_kwargs: Mapping[str, Any] | None = None,
    ) -> TraversalDisplay:
        """Decode the steps with any function, for instance that of a whitened PCA.

        Parameters
        ----------
        decode : callable
            From z, of shape (n_rows, n_components), to x, of shape (n_rows, n_features).
        n_components : int
        components : int or sequence of int, default=None
            None takes the first ten.
        z, n_steps, reach, image_shape
            As in `from_estimator`.
        ax, cmap, imshow_kwargs, line_kwargs
            As in `plot`.

        Returns
        -------
        display : TraversalDisplay
        """
        pyplot(f"{cls.__name__}.from_decoder")
        return cls._of(
            Function(decode, n_components), components, z, n_steps, reach, image_shape
        ).plot(ax=ax, cmap=cmap, imshow_kwargs=imshow_kwargs, line_kwargs=line_kwargs)

    @classmethod
    def _of(
        cls,
        source: Model | Function,
        components: Sequence[int | str] | int | str | None,
        z: Any,
        n_steps: int,
        reach: float,
        image_shape: Sequence[int] | None,
        condition: Any = None,
    ) -> TraversalDisplay:
        n_components = source.n_components
        check_scalar(n_steps, "n_steps", Integral, min_val=1)
        positions = source.positions(
            source.active[:_MOST_COMPONENTS] if components is None else components
        )
        z = np.zeros(n_components) if z is None else as_array(z).astype(np.float64)
        if z.shape != (n_components,):
            raise ValueError(
                f"z has the shape {z.shape}; it is one place of {n_components} components, for "
                "instance a row of transform(X)."
            )
        if not positions:
            raise ValueError("components is empty; a traversal needs one at least.")
        values = np.linspace(-reach, reach, n_steps)
        Z = np.tile(z, (len(positions), n_steps, 1))
        for i, position in enumerate(positions):
            Z[i, :, position] = values
        Z = np.vstack([z, Z.reshape(-1, n_components)])
        decoded = source.decode(Z, repeated(condition, len(Z)))
        draws = []
        if image_shape is None:  # what changes are in units of
            draws = source.draws(_N_DRAWS, repeated(condition, _N_DRAWS))
        _, [rows, *drawn], names = source.shown(None, decoded, *draws)
        return cls(
            decoded=rows[1:].reshape(len(positions), n_steps, -1),
            base=rows[0],
            values=values,
            scale=center_and_scale(drawn[0])[1] if drawn else None,
            image_shape=checked_image_shape(image_shape, rows.shape[1]),
            feature_names=names,
            component_names=[source.component_names[j] for j in positions],
        )
