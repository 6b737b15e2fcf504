"""Class clustering (Musgrave et al., 2022): do the target features fall into the groups that the predictions name?"""

from __future__ import annotations

import warnings

import numpy as np

from raytl.evaluation.validators.base import validator


@validator("class-clustering", "unlabelled_features", "unlabelled_probabilities")
def class_clustering(features: np.ndarray, probabilities: np.ndarray) -> float:
    """Adjusted mutual information of the predictions and k-means seeded at the predicted classes' centres, <= 1.

    Classes that no image is predicted to be in get no cluster. One class for all is 0, not the perfect agreement that
    the formula would see.
    """
    from sklearn.cluster import KMeans  # a second of import, which processes that only serve do without
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import adjusted_mutual_info_score

    predicted = probabilities.argmax(axis=1)
    occurring = np.unique(predicted)
    if len(occurring) < 2:
        return 0.0
    unit = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    centres = np.stack([unit[predicted == label].mean(axis=0) for label in occurring])
    with warnings.catch_warnings():
        # Of features that are all alike there are fewer clusters than classes; the score says so.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = KMeans(len(occurring), init=centres, n_init=1).fit_predict(unit)
    return float(adjusted_mutual_info_score(predicted, clusters))
