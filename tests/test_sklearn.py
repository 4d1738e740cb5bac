"""scikit-learn's own checks, with no failure expected (law 8)."""

import os

import pytest
from sklearn import config_context, get_config
from sklearn.base import clone
from sklearn.utils import estimator_checks as checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from skvae import ConditionalVAE, VAETransformer

SMALL = {"n_components": 2, "hidden_layer_sizes": (16,), "max_iter": 5, "batch_size": 32}

ESTIMATORS = [
    VAETransformer(**SMALL),
    VAETransformer(),
    VAETransformer(noise_variance="shared", early_stopping=False, **SMALL),
    VAETransformer(noise_variance="decoder", init="random", **SMALL),
    VAETransformer(noise_variance=1.0, dropout=0.1, alpha=1e-3, **SMALL),
    VAETransformer(n_importance_samples=3, beta=0.5, learning_rate="cosine", **SMALL),
    VAETransformer(likelihood="auto", **SMALL),
    VAETransformer(likelihood={"student_t": slice(0, 1), "remainder": "auto"}, **SMALL),
    ConditionalVAE(**SMALL),
    ConditionalVAE(likelihood="auto", **SMALL),
    ConditionalVAE(noise_variance="shared", n_importance_samples=2, **SMALL),
]


@parametrize_with_checks(ESTIMATORS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_checks(estimator, check):
    check(estimator)


# Not generated, but run by scikit-learn's own suite.
MORE = [
    checks.check_dataframe_column_names_consistency,
    checks.check_transformer_get_feature_names_out,
    checks.check_transformer_get_feature_names_out_pandas,
    checks.check_get_feature_names_out_error,
    checks.check_param_validation,
    checks.check_set_output_transform,
    checks.check_set_output_transform_pandas,
    checks.check_set_output_transform_polars,
    checks.check_global_output_transform_pandas,
    checks.check_global_set_output_transform_polars,
    checks.check_estimators_partial_fit_n_features,
]
TWO = [ESTIMATORS[0], ESTIMATORS[8]]
TABLES = [ESTIMATORS[6], ESTIMATORS[9]]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
# The set_output checks fit on a DataFrame and transform an array.
@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names")
@pytest.mark.parametrize("check", MORE, ids=lambda check: check.__name__)
@pytest.mark.parametrize("estimator", TWO + TABLES, ids=str)
def test_more_checks(estimator, check):
    check(type(estimator).__name__, clone(estimator))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("namespace", ["numpy", "array_api_strict", "torch"])
@pytest.mark.parametrize("estimator", TWO + TABLES, ids=str)
def test_array_api(estimator, namespace):
    checks.check_array_api_input_and_values(
        type(estimator).__name__, clone(estimator), array_namespace=namespace
    )


def test_array_api_checks_are_not_skipped():
    """scikit-learn skips them in silence where the environment is not prepared."""
    assert os.environ["SCIPY_ARRAY_API"] == "1"
    with config_context(array_api_dispatch=True):
        assert get_config()["array_api_dispatch"]
