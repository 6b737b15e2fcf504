from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from raytl.tasks import Preprocessing, Setting, Task, demo_task
from raytl.tasks.demo import LETTERS, printed_digits, printed_letters, textures

DOMAINS = [printed_digits, printed_letters, textures]


@pytest.fixture(scope="module")
def task() -> Task:
    return demo_task(0)


def pixels(images) -> np.ndarray:
    return np.stack([np.asarray(item.open()).ravel() for item in images.items])


def test_has_the_roles_and_sizes_that_it_is_described_with(task: Task) -> None:
    assert task.data.setting is Setting.SEMI_SUPERVISED
    assert task.data.channels == 1
    assert task.data.classes == tuple("0123456789")
    assert task.data.target is not None
    assert set(task.data.target.counts().values()) == {5}
    assert len(task.data.unlabelled or ()) == 1147
    assert len(task.test or ()) == 600
    assert list(task.data.source_domains) == ["printed-digits", "printed-letters", "textures"]
    assert task.data.joinable == ("printed-digits",)
    assert task.problems == []


def test_is_made_of_the_handwritten_digits_and_the_last_600_are_sealed() -> None:
    task = demo_task(1)
    originals = np.rint(load_digits().images.reshape(1797, -1) * 255 / 16)
    assert task.test is not None
    np.testing.assert_array_equal(pixels(task.test.open()), originals[1197:])
    pool = {row.tobytes() for row in originals[:1197].astype(np.uint8)}
    found = [row.tobytes() for row in np.concatenate([pixels(task.data.target), pixels(task.data.unlabelled)])]
    assert set(found) == pool
    assert len(found) == len(pool)


def test_a_seed_draws_the_labels_and_nothing_else(task: Task) -> None:
    same, other = demo_task(0), demo_task(1)
    assert same.data.fingerprint == task.data.fingerprint
    assert task.data.target is not None
    assert other.data.target is not None
    assert other.data.target.fingerprint != task.data.target.fingerprint
    for name, domain in task.data.source_domains.items():
        assert other.data.source_domains[name].fingerprint == domain.fingerprint


@pytest.mark.parametrize("domain", DOMAINS)
def test_source_domains_are_white_on_black_32_pixels_and_the_same_each_time(domain) -> None:
    images = domain()
    tensor = images.tensor(Preprocessing(size=32, channels=1, mean=(0.5,), std=(0.5,)))
    assert tuple(tensor.shape[1:]) == (1, 32, 32)
    assert 1500 <= len(images) <= 2600
    assert len(set(images.counts().values())) == 1
    assert len({item.digest for item in images.items}) == len(images)
    assert domain.__wrapped__().fingerprint == images.fingerprint
    if domain is not textures:
        values = tensor.float()
        assert values[:, :, [0, -1], :].mean() < values[:, :, 8:24, 8:24].mean() / 3  # ink is white, in the middle


def test_glyphs_are_those_of_their_labels() -> None:
    """Blanks, boxes for missing characters or symbols in their places could not be told apart like this."""
    for images, least in ((printed_digits(), 0.9), (printed_letters(), 0.75)):
        values = pixels(images) / 255.0
        order = np.random.default_rng(0).permutation(len(values))
        train, test = order[: len(order) * 3 // 4], order[len(order) * 3 // 4 :]
        gap = (values[test] ** 2).sum(1)[:, None] - 2 * values[test] @ values[train].T + (values[train] ** 2).sum(1)
        assert (images.labels[train][gap.argmin(1)] == images.labels[test]).mean() > least
    assert printed_letters().classes == tuple(LETTERS)
