"""What each component does to a row while the others stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from skvae.plotting._axes import (
    checked_image_shape,
    dress_panel,
    label_middle,
    limits_of,
    merged,
    name_columns,
    pyplot,
    several_axes,
    show_images,
    single_axes,
)
from skvae.plotting._model import Model, as_array, position_of, repeated

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
        feature_names: Sequence[str] | None = None,
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
        self.image_, self.lines_, self.colorbar_ = None, [], None
        n_shown, n_steps, n_features = self.decoded.shape
        image_shape = checked_image_shape(self.image_shape, n_features)
        names = self.component_names
        names = [f"component {j}" for j in range(n_shown)] if names is None else names
        if image_shape is not None:
            ax = single_axes(ax, caller, (2.1 + 0.7 * n_steps, 0.8 + 0.7 * n_shown))
            self.image_ = show_images(
                ax, self.decoded, image_shape, limits_of(self.decoded),
                imshow_kwargs, x_labels=[f"{v:g}" for v in self.values.round(2)], y_labels=names,
            )  # fmt: skip
            ax.set_xlabel("value of the component (standard deviations of the prior)")
            self.axes_ = np.array([ax], dtype=object)
        else:
            axes = several_axes(
                ax, caller, n_shown, 1, figsize=(7.5, 1.4 + 1.4 * n_shown), sharex=True, sharey=True
            )
            self.axes_ = axes[:, 0]
            self._plot_lines(names, cmap, line_kwargs)
        self.ax_ = self.axes_[0]
        self.figure_ = self.ax_.figure
        return self

    def _plot_lines(
        self, names: Sequence[str], cmap: Any, line_kwargs: Mapping[str, Any] | None
    ) -> None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        n_features = len(self.base)
        scale = 1.0 if self.scale is None else self.scale
        colors = ScalarMappable(Normalize(self.values.min(), self.values.max()), cmap)
        for panel, name, steps in zip(self.axes_, names, self.decoded, strict=True):
            lines = []
            for value, x in zip(self.values, steps, strict=True):
                # Dashed below the middle: to be told apart in grey as well.
                look = {"color": colors.to_rgba(value), "linewidth": 1.4}
                look["linestyle"] = "--" if value < 0 else "-"
                lines += panel.plot((x - self.base) / scale, **merged(look, line_kwargs))
            self.lines_.append(lines)
            dress_panel(panel, name, n_features)
        name_columns(self.axes_[-1], self.feature_names, n_features)
        unit = "change" if self.scale is None else "change (standard deviations)"
        label_middle(self.axes_, unit)
        self.colorbar_ = self.axes_[0].figure.colorbar(
            colors, ax=list(self.axes_), label="value of the component"
        )

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        components: Sequence[int | str] | None = None,
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
            VAE if all have ``inverse_transform``; otherwise it is shown as the VAE sees it.
        components : sequence of int or str, default=None
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
        model = Model.of(estimator, step)
        if components is None:
            components = model.active[:_MOST_COMPONENTS]
        positions = model.positions(components)

        def decode(Z: np.ndarray) -> np.ndarray:
            return model.decode(Z, repeated(condition, len(Z)))

        names = model.component_names
        display = cls._of(
            decode, len(names), positions, z, n_steps, reach, image_shape,
            [names[j] for j in positions],
        )  # fmt: skip
        if display.image_shape is None:
            given = repeated(condition, _N_DRAWS)
            display.scale = model.sample(_N_DRAWS, given, random_state=0).std(axis=0)
            display.scale[display.scale == 0] = 1
        display.feature_names = model.feature_names(len(display.base))
        return display.plot(ax=ax, cmap=cmap, imshow_kwargs=imshow_kwargs, line_kwargs=line_kwargs)

    @classmethod
    def from_decoder(
        cls,
        decode: Callable[[np.ndarray], Any],
        n_components: int,
        *,
        components: Sequence[int] | None = None,
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
        components : sequence of int, default=None
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
        every = [f"component {j}" for j in range(n_components)]
        if components is None:
            components = range(min(n_components, _MOST_COMPONENTS))
        positions = [position_of(component, every, "component") for component in components]
        return cls._of(
            decode, n_components, positions, z, n_steps, reach, image_shape,
            [every[j] for j in positions],
        ).plot(ax=ax, cmap=cmap, imshow_kwargs=imshow_kwargs, line_kwargs=line_kwargs)  # fmt: skip

    @classmethod
    def _of(
        cls,
        decode: Callable[[np.ndarray], Any],
        n_components: int,
        positions: Sequence[int],
        z: Any,
        n_steps: int,
        reach: float,
        image_shape: Sequence[int] | None,
        component_names: Sequence[str],
    ) -> TraversalDisplay:
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
        rows = as_array(decode(np.vstack([z, Z.reshape(-1, n_components)])))
        return cls(
            decoded=rows[1:].reshape(len(positions), n_steps, -1),
            base=rows[0],
            values=values,
            image_shape=checked_image_shape(image_shape, rows.shape[1]),
            component_names=component_names,
        )
