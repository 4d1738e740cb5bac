"""The parts of the two classes' documentation that are the same, and where its pages are."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, metadata


@cache
def site() -> str:
    """Address of the documentation, as the project's metadata declare it; "" if they do not."""
    try:
        declared = metadata("skvae").get_all("Project-URL") or []
    except PackageNotFoundError:  # imported from a folder, and not installed
        return ""
    addresses = dict(line.split(", ", 1) for line in declared)
    return str(addresses.get("Documentation", "")).rstrip("/")


class LinksToDocs:
    """An estimator whose HTML leads to its page of the reference, parameter by parameter.

    scikit-learn asks for both attributes, and draws no link where the template is empty.
    """

    _doc_link_module = "skvae"

    @property
    def _doc_link_template(self) -> str:
        page = "/api/generated/{estimator_module}.{estimator_name}.html"
        return site() + page if site() else ""


PARAMETERS = """\
    n_components : int, default=8
        Number of latent components. May exceed the number of columns of X.

    likelihood : str, dict or list of (str, columns), default="gaussian"
        p(x|z) of every column: one name for all, or names with their columns. All answers
        are in the units of X.

        - "gaussian": real values; columns are standardised inside.
        - "student_t": the same with heavy tails. Degrees of freedom are learned, from 2.1 to
          1000, and come from where `noise_variance` says.
        - "lognormal": positive values, whose logarithm is gaussian.
        - "bernoulli": values in [0, 1]. Strictly between them a value is the probability of
          a bit that is drawn afresh in every training step, and is scored by its expected
          log density.
        - "categorical": values of any type, one of those seen in `fit` or declared by a
          category dtype (pandas) or Enum (polars); for others see `handle_unknown`.
        - "poisson", "negative_binomial": counts. The variance of the latter is
          mean + mean^2 / r with an r that is learned, at most 10,000, from where
          `noise_variance` says. The encoder sees log(1 + x), centred.

        Names with columns are a mapping, ``{"poisson": ["visits"], "categorical": [0, 3]}``,
        or a list of pairs, with columns as `ColumnTransformer` takes them: names,
        positions, slices, boolean masks, or a callable such as `make_column_selector`.
        All columns have to be named, unless ``"remainder"`` names a likelihood, or "auto",
        for the rest. Condition columns are not modelled, whatever names them.

        "auto" goes by dtypes: categories, strings and objects are categorical, bools are
        bernoulli, floats gaussian. Integers are negative_binomial, which has the Poisson
        distribution as its limit, if none is negative and they vary at least as much as
        counts do (their variance is not below the mean by more than chance); else gaussian.
        `likelihoods_` has what was found. Draws of a number are not bounded by what was
        seen: name the likelihood, where a column has limits.

        With a mapping, a list, "auto" or "categorical", X may hold strings; and a model that
        was fitted on a DataFrame (pandas or polars) gives DataFrames of its columns and dtypes
        where it gives rows. A draw has values that could have been in X: a category, a whole
        number. A mean is the likeliest category or bool, and the expected value of a
        number, which for integers lies between them and is a float.

    handle_unknown : {"error", "missing"}, default="error"
        What a category of X is that was not there in `fit`: an error, or a missing cell.

    exposure : {"total"} or None, default=None
        "total": the rates of counts are relative to the total of their row, the length of
        a document or the library size of a cell. A row of twice the total is expected to
        have twice the counts, and components need not tell how long a row is: the encoder
        sees log(1 + x m / total), where m is the mean total of the rows of `fit`, and the
        rate of a count is total / m times what the decoder gives. All counts of a row make
        its total, and none may be missing. Scores are then log p(x | total); `sample`, and
        `inverse_transform` where it draws, take the totals of rows that were there, and
        means are at the mean total.

    noise_variance : {"feature", "shared", "decoder"} or float, default="feature"
        Variance of the gaussian (or lognormal) p(x|z): one learned for each column
        ("feature", as in factor analysis), one for all ("shared", as in probabilistic
        PCA), one for every row and column from the decoder ("decoder"), or this number
        (1.0: the squared-error VAE). Numbers, and what "shared" shares, are in units of
        standardised columns. No variance falls below 1e-6 of its column's; numbers are
        at least 1e-5. The scale and degrees of freedom of student_t and the r of
        negative_binomial come from the same place; "shared" is among the columns of one
        likelihood, and where a number is given these are learned for each column.

    beta : float, default=1.0
        Weight of KL[q(z|x) || p(z)] in the bound. More makes components fewer and more
        independent, less makes reconstructions better.

    n_importance_samples : int, default=1
        Draws of z for the bound: 1 is the ELBO, more the importance-weighted bound
        (IWAE), with the doubly reparameterised gradient (DReG) for the encoder.

    hidden_layer_sizes : tuple of int, default=(128, 128)
        Hidden layers of the encoder, from X to z; the decoder has them in reverse. With
        () the model is linear: factor analysis or probabilistic PCA.

    activation : {"silu", "relu", "tanh", "gelu", "elu"}, default="silu"
        Activation of the hidden layers.

    dropout : float, default=0.0
        Part of the hidden units that is left out at random in each training step.

    alpha : float, default=0.0
        Decoupled weight decay (AdamW) of the weights, not the biases.

    learning_rate : {"adaptive", "cosine", "constant"}, default="adaptive"
        Schedule. "adaptive" multiplies the rate by 0.3 whenever the watched bound has
        not improved for half of `n_iter_no_change` epochs; "cosine" lets it fall to 0
        over `max_iter` epochs.

    learning_rate_init : float, default=1e-3
        Step size of Adam at the beginning.

    batch_size : int, default=128
        Rows of a training step.

    max_iter : int, default=500
        Most epochs, which are passes over the training rows.

    early_stopping : bool, default=True
        Keep `validation_fraction` of the rows apart, stop when the bound on them has not
        improved by `tol` for `n_iter_no_change` epochs, and keep the best weights.
        Fits of fewer than 20 rows keep none apart.

    validation_fraction : float, default=0.1
        Part of the rows for validation.

    n_iter_no_change : int, default=20
        Patience of the early stopping, in epochs.

    tol : float, default=1e-3
        Smallest improvement that counts, in nats a row.

    n_init : int, default=1
        Number of starts of each kind. They are trained together and the one with the
        best validation bound (training bound without early stopping) is kept; see `init`
        for the choice between kinds.

    init : {"both", "pca", "factor_analysis", "random"}, default="both"
        "pca" starts at the components of PCA and, for each column, the variance they
        leave; "factor_analysis" at the linear model of maximum likelihood; both with the
        networks silent beside it (where the variance is shared or given, both are
        probabilistic PCA). "random" starts at random networks and the column means.
        "both" trains from PCA and from factor analysis; from PCA come the better features,
        and it is kept unless its validation bound ends below that of factor analysis
        itself. With likelihoods other than gaussian, lognormal and student_t, "both" is
        "pca", of the columns as the encoder sees them (of counts the logarithms of
        1 + x); a bernoulli likelihood for all columns has the random start alone.

    warm_start : bool, default=False
        Whether `fit` goes on with the weights, optimiser state, scales and order of
        components of the last fit.

    random_state : int, RandomState instance or None, default=None
        Seed of the validation split, the starts, the order of rows and all noise.

    device : str, default="auto"
        "cpu", "cuda", "cuda:1"; "auto" takes a GPU where there is one.

    verbose : bool or int, default=False
        Print the bound every ten epochs; larger numbers print more often."""

ATTRIBUTES = """\
    kl_per_component_ : ndarray of shape (n_components,)
        KL[q(z_j|x) || p(z_j)] in nats, averaged over the rows last trained on: how much
        a component tells about a row. Largest first, after a first fit.

    n_active_components_ : int
        Number of components above 0.01 nats.

    likelihoods_ : list of str
        The likelihood of each column that is modelled, as named or as "auto" found it.

    noise_variance_ : ndarray of shape (n_features,)
        Variance of x given z in squared units of X, averaged over the training rows; 0
        for constant columns, NaN for categories; those of a condition have none. Not for
        likelihood="bernoulli".

    n_iter_ : int
        Epochs of the start that was kept.

    loss_curve_ : list of float
        Minus the training bound of each epoch, in nats a row, in the units of X. Like
        `validation_scores_` it has `beta` in it: with another beta than 1 it cannot be
        compared with `score`.

    validation_scores_ : list of float
        The validation bound after each epoch, likewise. Empty without early stopping.

    best_validation_score_ : float or None
        The validation bound of the weights that were kept. Not below that of the start.

    device_ : str
        Where the model was trained and lives.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns seen in `fit`, where they are all strings."""

REFERENCES = """\
    .. [1] D. P. Kingma and M. Welling, "Auto-Encoding Variational Bayes", ICLR 2014.
    .. [2] Y. Burda, R. Grosse and R. Salakhutdinov, "Importance Weighted Autoencoders",
       ICLR 2016.
    .. [3] G. Tucker, D. Lawson, S. Gu and C. J. Maddison, "Doubly Reparameterized
       Gradient Estimators for Monte Carlo Objectives", ICLR 2019.
    .. [4] M. E. Tipping and C. M. Bishop, "Probabilistic Principal Component Analysis",
       JRSS B, 1999.
    .. [5] P.-A. Mattei and J. Frellsen, "MIWAE: Deep Generative Modelling and Imputation of
       Incomplete Data Sets", ICML 2019.
    .. [6] T. Hesterberg, "Weighted Average Importance Sampling and Defensive Mixture
       Distributions", Technometrics, 1995."""
