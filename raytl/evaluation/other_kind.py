"""How far a source domain is heard where the images that the model will meet are of another kind than the labelled."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from raytl.evaluation.apartness import are_apart
from raytl.evaluation.chance import beyond_chance
from raytl.evaluation.probes import fit_logistic

FAVOURED = 0.75
"""Share of the layers that learned from a source domain too, in a head for images of another kind.

Folds hold out images like those that taught: by them the layers that know these alone are right (a stain, a camera, a
light that only they have), and how far a domain was heard hung on how the images fell into folds. On six tasks of
another session, laboratory or camera, with 47 to 178 labels and twelve domains, with and without moments, a share of
0.75 was worth up to 16 points and cost at most 2. It is given where the domain's labels are known to be right: to no
domain with all its labels exchanged, and to four heads of one with two classes exchanged, none of them worse for it.
"""


def least_share(
    features: Tensor,
    labels: np.ndarray,
    classes: int,
    unlabelled: Tensor,
    *,
    target: np.ndarray,
    views: np.ndarray,
    groups: tuple[np.ndarray | None, np.ndarray | None],
) -> float:
    """:data:`FAVOURED` where the unlabelled images are of another kind and the domain knows the target's labels, or 0.

    features: (n, d) of the labelled images and (m, d) of the unlabelled ones, behind the last stage; labels: (n,) in
    [0, classes). target: bool (n,), which are the target's, the others being the domain's; views: bool (n,), which of
    all are augmented versions of others, by which nothing is told. groups: of the target's images as they are, and of
    the unlabelled ones.

    The domain knows them where a probe of its images alone is right of the target's more often than chance has it: one
    of other labels is not, nor one of which the features carry nothing over. That it is right of some classes and wrong
    of others, the head's own layers tell (:data:`raytl.evaluation.head_probes.CONTRADICTED`).
    """
    own = target & ~views
    seen, asked = _rows(features, own), labels[own]
    abroad = fit_logistic(_rows(features, ~target), labels[~target], classes, max_folds=1)
    if not beyond_chance(abroad.logits(seen).argmax(axis=1), asked, classes):
        return 0.0
    met = unlabelled.cpu().numpy()
    named = fit_logistic(seen, asked, classes, max_folds=1).logits(met).argmax(axis=1)
    return FAVOURED if are_apart(seen, met, (asked, named), groups) else 0.0


def _rows(features: Tensor, which: np.ndarray) -> np.ndarray:
    return np.asarray(features[torch.as_tensor(which, device=features.device)].cpu().numpy())
