"""scikit-learn's own checks, with no failure expected (law 8)."""

from functools import partial

import pytest
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
    ConditionalVAE(**SMALL),
    ConditionalVAE(noise_variance="shared", n_importance_samples=2, **SMALL),
]


@parametrize_with_checks(ESTIMATORS)
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
    partial(checks.check_array_api_input_and_values, array_namespace="array_api_strict"),
    partial(checks.check_array_api_input_and_values, array_namespace="torch"),
]


@pytest.mark.parametrize("check", MORE, ids=lambda c: getattr(c, "__name__", repr(c)))
@pytest.mark.parametrize("estimator", [ESTIMATORS[0], ESTIMATORS[6]], ids=lambda e: type(e).__name__)
def test_more_checks(estimator, check):
    check(type(estimator).__name__, estimator)
