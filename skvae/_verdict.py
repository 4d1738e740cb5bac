"""What is to be doubted of a fit: the warnings that it deserves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from skvae._preparing import Job
from skvae._training import Trained

if TYPE_CHECKING:
    from skvae._base import BaseVAE

#: A component whose KL is below this many nats a row tells nothing.
ACTIVE_NATS = 0.01


def doubts(estimator: BaseVAE, job: Job, best: Trained, *, is_interrupted: bool) -> Iterator[str]:
    """None, one or two doubts of an estimator whose fitted attributes are by ``best``."""
    is_over = not job.request.is_partial  # which is not the end of anything
    architecture, rate = best.model.architecture, estimator.learning_rate_init
    if is_interrupted:
        yield (
            f"Training was interrupted after {estimator.n_iter_} epochs; the estimator holds the "
            "best weights so far."
        )
        return
    if not best.is_finite:
        yield (
            "The training bound stopped being finite in epoch "
            f"{len(best.training_bounds) + 1}; the estimator holds the best weights before it. "
            f"Lower learning_rate_init (now {rate:g}), or check X for extreme values."
        )
    elif _is_untrained(job, best):
        yield (
            "Training never improved on its random start (validation bound "
            f"{estimator.best_validation_score_:.4g} nats per row, finally "
            f"{estimator.validation_scores_[-1]:.4g}), so the features carry no information. "
            f"Lower learning_rate_init (now {rate:g}), check X for columns with extreme values in "
            "a few rows, or use more rows."
        )
    elif best.is_improving and is_over and len(best.training_bounds) >= job.run.max_iter:
        yield (
            f"Stopped after max_iter={estimator.max_iter} epochs while the bound was still "
            "improving. Increase max_iter or learning_rate_init."
        )
    if is_over and estimator.n_active_components_ == 0 and architecture.n_features:
        remedy = "increase max_iter"
        other = []  # what is not so already
        if estimator.init in ("pca", "random") and architecture.likelihood != "bernoulli":
            other.append("init='factor_analysis'")
        if architecture.noise != "feature":
            other.append("noise_variance='feature'")
        if other:
            remedy += f", use {' or '.join(other)}"
        yield (
            f"All {estimator.n_components} components collapsed: none carries more than "
            f"{ACTIVE_NATS:g} nats about a row, so the features carry no information. Lower "
            f"beta (now {estimator.beta:g}), {remedy}; or the columns of X are independent, and "
            "there is nothing to find."
        )


def _is_untrained(job: Job, best: Trained) -> bool:
    """Whether a random start was the best. A linear one is a model already, that is none."""
    is_random = job.methods == ("random",) and best.model.architecture.n_features > 0
    return is_random and best.has_validation and best.bound <= best.start_bound
