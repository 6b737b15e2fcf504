"""What every validator must do."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from raytl.evaluation import Outputs, score_all, validators

N, K = 240, 4


def softmax(z: np.ndarray) -> np.ndarray:
    """Rows (n, k) that sum to 1."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def model(sharpness: float, n: int = N, k: int = K, seed: int = 0) -> Outputs:
    """Clusters in feature space, and predictions that follow them the better, the greater the sharpness."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    features = 6 * np.eye(k)[labels] + rng.normal(size=(n, k))
    logits = sharpness * 6 * np.eye(k)[labels] + rng.normal(size=(n, k))
    p = softmax(logits)
    moved = softmax(logits + rng.normal(size=(n, k)))
    return Outputs(p, labels, p, labels, p, features, moved, class_frequencies=np.full(k, 1 / k))


class ValidatorSuite:
    """For a registered validator; name: the one it is registered under."""

    name: str

    @property
    def entry(self) -> validators.ValidatorEntry:
        """What was registered."""
        return validators.get(self.name)

    def test_prefers_the_better_model(self) -> None:
        """Higher is better."""
        entry = self.entry
        scores = [entry.score(model(sharpness)) for sharpness in (0.1, 0.4, 1.5)]
        assert scores == sorted(scores)
        assert scores[2] > scores[0]

    def test_sees_only_the_inputs_that_it_declares(self) -> None:
        """So that a setting can refuse what it must not see."""
        entry, full = self.entry, model(0.5)
        declared = Outputs(**{field: getattr(full, field) for field in entry.inputs})
        assert entry.score(declared) == entry.score(full)
        assert set(score_all(declared)) >= {self.name}

    def test_is_left_out_where_an_input_is_missing_or_empty(self) -> None:
        """Rather than making up a number."""
        entry, full = self.entry, model(0.5)
        for missing in entry.inputs:
            for absent in (None, getattr(full, missing)[:0]):
                values = {spec.name: getattr(full, spec.name) for spec in fields(full)} | {missing: absent}
                assert self.name not in score_all(Outputs(**values))

    @pytest.mark.parametrize("n", [1, 2, 3, 50])
    @pytest.mark.parametrize("kind", ["one-hot", "uniform", "collapsed", "one class"])
    def test_is_finite_on_degenerate_outputs(self, n: int, kind: str) -> None:
        """Of one image, one class, or a model that says the same of everything."""
        k = 1 if kind == "one class" else 3
        labels = np.arange(n) % k
        p = {"uniform": np.full((n, k), 1 / k), "collapsed": np.eye(k)[np.zeros(n, dtype=int)]}.get(
            kind, np.eye(k)[labels]
        )
        outputs = Outputs(p, labels, p, labels, p.astype(np.float32), np.zeros((n, 4)), p, np.eye(k)[0])
        score = self.entry.score(outputs)
        assert math.isfinite(score)

    def test_touches_only_what_is_known(self) -> None:
        """At least one of the known kinds of labels and images."""
        touches = self.entry.touches
        assert touches
        assert touches <= {"target_labels", "source_labels", "unlabelled"}
