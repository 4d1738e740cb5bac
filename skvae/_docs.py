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


N_COMPONENTS = """\
    n_components : int, default=8
        Number of latent components. May exceed the number of columns of X."""

PARAMETERS = """\
    likelihood : str, mapping or list of (str, columns), default="gaussian"
        Distribution p(x|z) of the columns: one name for all of them, or names with the
        columns they apply to. Results are always in the units of X.

        - "gaussian": real values; columns are standardised internally.
        - "student_t": the same with heavy tails. The degrees of freedom are learned,
          between 2.1 and 1000, per column or as `noise_variance` says.
        - "lognormal": positive values, whose logarithm is gaussian.
        - "bernoulli": values in [0, 1]. A value strictly between them is the probability of
          a bit that is drawn afresh in every training step, and is scored by its expected
          log density.
        - "categorical": values of any type, one of those seen in `fit` or declared by a
          category dtype (pandas) or Enum (polars); for others see `handle_unknown`.
        - "poisson", "negative_binomial": counts. The variance of the latter is
          mean + mean^2 / r; r is learned, at most 10,000, per column or as
          `noise_variance` says. The encoder sees log(1 + x), centred.

        Names with columns are a mapping, ``{"poisson": ["visits"], "categorical": [0, 3]}``,
        or a list of pairs, with columns as in `ColumnTransformer`: names, positions,
        slices, boolean masks, or a callable such as `make_column_selector`. All columns
        have to be named, unless ``"remainder"`` gives a likelihood, or "auto", for the
        others. Columns used as the condition are never modelled, even if they are named
        here.

        "auto" goes by dtypes: categories, strings and objects are categorical, bools
        bernoulli, floats gaussian. Integers are negative_binomial, which has the Poisson
        distribution as its limit, if none is negative and they vary at least as much as
        counts do (their variance is not below the mean by more than chance); otherwise
        gaussian. `likelihoods_` has the result. Sampled numbers are not restricted to the
        observed range; name a suitable likelihood for a bounded column.

        With a mapping, a list, "auto" or "categorical", X may hold strings, and a model
        fitted on a DataFrame (pandas or polars) returns rows as DataFrames with its columns
        and dtypes. A draw has values that X could have: a category, a whole number. A mean
        is the most probable category or bool, and the expected value of a number: a float,
        for integers too.

    handle_unknown : {"error", "missing"}, default="error"
        How to treat a category of X that was not seen in `fit`: raise an error, or treat
        the cell as missing.

    exposure : {"total"} or None, default=None
        "total": the rates of counts are relative to the total of their row, such as the
        length of a document or the library size of a cell. A row with twice the total is
        expected to have twice the counts, and no component has to represent the size of a
        row: the encoder sees log(1 + x m / total), where m is the mean total of the rows of
        `fit`, and the rate of a count is total / m times what the decoder gives. All counts
        of a row make up its total, and none may be missing. Scores are then
        log p(x | total). `sample`, and `inverse_transform` with ``mean=False``, draw totals
        from those of the training rows; means are given at the mean total.

    noise_variance : {"feature", "shared", "decoder"} or float, default="feature"
        Variance of the gaussian (or lognormal) p(x|z): one learned for each column
        ("feature", as in factor analysis), one for all ("shared", as in probabilistic
        PCA), one for every row and column from the decoder ("decoder"), or this number
        (1.0: the squared-error VAE). Numbers, and what "shared" shares, are in units of
        standardised columns. No variance falls below 1e-6 of its column's; numbers are
        at least 1e-5. The scale and degrees of freedom of student_t and the r of
        negative_binomial are treated likewise; if a number is given, they are learned for
        each column. With several likelihoods, "shared" means one for all columns of each.

    beta : float, default=1.0
        Weight of KL[q(z|x) || p(z)] in the bound. A larger weight gives fewer and more
        independent components, a smaller one better reconstructions.

    n_importance_samples : int, default=1
        Draws of z for the bound. One gives the ELBO; more give the importance-weighted
        bound (IWAE), with the doubly reparameterised gradient (DReG) for the encoder.

    hidden_layer_sizes : int or sequence of int, default=(128, 128)
        Hidden layers of the encoder, from X to z; the decoder has them in reverse. With
        () the model is linear: factor analysis or probabilistic PCA.

    activation : {"silu", "relu", "tanh", "gelu", "elu"}, default="silu"
        Activation of the hidden layers.

    dropout : float, default=0.0
        Fraction of hidden units set to zero at random in each training step.

    alpha : float, default=0.0
        Decoupled weight decay (AdamW) of the weights, not the biases.

    learning_rate : {"adaptive", "cosine", "constant"}, default="adaptive"
        Schedule of the learning rate. "adaptive" multiplies it by 0.3 whenever the bound
        (on the validation rows, if there are any) has not improved for half of
        `n_iter_no_change` epochs; "cosine" lets it fall to 0 over `max_iter` epochs.

    learning_rate_init : float, default=1e-3
        Initial learning rate of Adam.

    batch_size : "auto" or int, default="auto"
        Number of rows in each training step. "auto" is the largest power of two, from 16
        to 128, with which an epoch has more than 16 steps (128 from 2,049 rows to train
        on); in `partial_fit` it is 128.

    max_iter : int, default=500
        Maximum number of epochs, i.e. passes over the training rows, those after early
        stopping included.

    early_stopping : bool, default=True
        Hold out `validation_fraction` of the rows, stop when the bound on them has not
        improved by more than `tol` for `n_iter_no_change` epochs, and go back to the
        best weights; these are then trained on all rows, those held out included, for
        as large a share of the epochs that it took to find them as those rows are of
        the others (by default a ninth; within `max_iter`; not with `warm_start`, as the
        next fit needs rows to stop by). If False, train on all rows for all `max_iter`
        epochs and keep the last weights; unlike in `MLPClassifier` the training loss
        then stops nothing, and `tol` and `n_iter_no_change` govern only
        ``learning_rate="adaptive"`` and the convergence warning. Fits with fewer than
        20 rows hold none out, and are trained as with False.

    validation_fraction : float, default=0.1
        Fraction of rows held out for validation.

    n_iter_no_change : int, default=30
        Number of epochs without improvement after which early stopping ends training.

    tol : float, default=1e-3
        Smallest improvement of the bound that counts, in nats per row.

    n_init : int, default=1
        Number of starts of each kind. They are trained together, and the one with the
        best validation bound (training bound without validation rows) is kept; see `init`
        for the choice between kinds.

    init : {"both", "pca", "factor_analysis", "random"}, default="both"
        "pca" starts at the components of PCA and, for each column, the variance they
        leave; "factor_analysis" at the linear model of maximum likelihood; in both the
        networks beside the linear model start silent (where the variance is shared or
        given, both are probabilistic PCA). "random" starts at random networks and the
        column means. "both" trains from PCA and from factor analysis; the start at PCA
        gives the better features, and is kept unless its validation bound ends below that
        of factor analysis itself. With likelihoods other than gaussian, lognormal and
        student_t, "both" is "pca", of the columns as the encoder sees them (of counts the
        logarithms of 1 + x); a bernoulli likelihood for all columns has the random start
        alone.

    warm_start : bool, default=False
        Whether `fit` continues from the weights, optimiser state, scales and component
        order of the last fit. Set it before the first: a fit without it ends by training
        on the validation rows too, which leaves no unseen ones for later early stopping.
        Give an int for `random_state`, so that every fit holds out the same rows.

    random_state : int, RandomState instance or None, default=None
        Seed of the validation split, the starts, the order of rows and all noise.

    device : str or torch.device, default="auto"
        "cpu", "cuda", "cuda:1"; "auto" uses a GPU if there is one.

    verbose : bool or int, default=False
        Print the bound every ten epochs; larger numbers print more often."""

ATTRIBUTES = """\
    kl_per_component_ : ndarray of shape (n_components,)
        KL[q(z_j|x) || p(z_j)] in nats, averaged over the rows of the last fit: how much
        a component tells about a row. Largest first after a first fit, whose order
        `warm_start` and `partial_fit` keep.

    n_active_components_ : int
        Number of components whose `kl_per_component_` exceeds 0.01 nats.

    likelihoods_ : list of str
        The likelihood of each modelled column, as named or as "auto" found it.

    noise_variance_ : ndarray of shape (n_modelled_features,)
        Variance of x given z in squared units of X, averaged over the rows of the last fit,
        in the order of `likelihoods_`. 0 for constant columns, NaN for other categorical
        ones. Columns named in `condition_columns` are not modelled and have no entry. Not
        set if all columns that vary are bernoulli.

    n_iter_ : int
        Number of epochs run by the start that was kept, up to early stopping; those on all
        rows after it are not counted.

    loss_curve_ : list of float
        Negative training bound of each epoch, in nats per row and in the units of X. With
        `beta` != 1 the bound includes `beta`, and is then not comparable with `score`.

    validation_scores_ : list of float
        Validation bound after each epoch (not negated), likewise. Empty without
        validation rows.

    best_validation_score_ : float or None
        Best validation bound: that of the weights that early stopping went back to, at
        least that of the start. None without validation rows.

    device_ : str
        Device on which the model was trained and is stored.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns seen in `fit`. Only set if they are all strings."""

REFERENCES = """\
    .. [1] D. P. Kingma and M. Welling, "Auto-Encoding Variational Bayes",
       ICLR 2014.
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
