"""Information maximisation (Musgrave et al., 2022): sure of each target image, diverse over all of them."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.validators.base import validator
from raytl.evaluation.validators.entropies import mutual_information


@validator("information-maximisation", "unlabelled_probabilities", every_epoch=True)
def information_maximisation(probabilities: np.ndarray) -> float:
    """Entropy of the mean prediction minus the mean entropy, in [0, log k].

    Assumes about uniform target classes; where their frequencies are known, ``frequency-match`` does not have to.
    """
    return mutual_information(probabilities)
