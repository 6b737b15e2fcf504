"""Changes that images meet in the world, of any strength: what a model is worth beyond the images it was made with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

Change = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def changed(images: np.ndarray, name: str, strength: float, rng: np.random.Generator) -> np.ndarray:
    """uint8 (n, channels, s, s) under the change ``name`` of :data:`CHANGES`. strength: in [0, 1], 1 is severe."""
    change = CHANGES[name]
    made = [np.clip(change(image.astype(np.float32), strength, rng), 0, 255) for image in images]
    return np.stack(made).astype(np.uint8) if made else images


def _sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _noise(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    return image + rng.normal(0, 60 * s, image.shape)


def _brightness(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    return image + _sign(rng) * 110 * s


def _contrast(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(image.mean() + (image - image.mean()) * (1 - 0.85 * s))


def _gamma(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(255 * (image / 255) ** np.exp(_sign(rng) * 1.1 * s))


def _blur(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    width = s * image.shape[1] / 12
    return np.asarray(ndimage.gaussian_filter(image, (0, width, width)))


def _sampled(image: np.ndarray, matrix: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The image under an affine map about its centre; what comes from outside is its edge."""
    centre = (np.array(image.shape[1:]) - 1) / 2
    offset = centre - matrix @ centre + shift
    return np.stack([ndimage.affine_transform(one, matrix, offset, order=1, mode="nearest") for one in image])


def _turn(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    angle = np.deg2rad(_sign(rng) * 45 * s)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return _sampled(image, turn, np.zeros(2))


def _move(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    way = rng.uniform(-1, 1, 2)
    return _sampled(image, np.eye(2), way / np.abs(way).max() * s * image.shape[1] / 4)


def _zoom(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    return _sampled(image, np.eye(2) * np.exp(_sign(rng) * 0.6 * s), np.zeros(2))


def _hide(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    side = max(1, round(s * 0.5 * image.shape[1]))
    y, x = rng.integers(0, image.shape[1] - side + 1, 2)
    covered = image.copy()
    covered[:, y : y + side, x : x + side] = rng.uniform(0, 255)
    return covered


def _coarsen(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    side = image.shape[1]
    kept = max(2, round(side / (1 + 5 * s)))
    index = np.minimum((np.arange(side) * kept // side) * side // kept + side // kept // 2, side - 1)
    return image[:, index][:, :, index]


def _shade(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    ramp = np.linspace(-1, 1, image.shape[1]) * 130 * s * _sign(rng)
    return np.asarray(image + (ramp[None, :, None] if rng.random() < 0.5 else ramp[None, None, :]))


def _flip(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    """Mirrored; if severely, a quarter turn or upside down."""
    if s <= 0.5:
        return image[:, :, ::-1]
    return np.asarray(np.rot90(image, int(rng.integers(1, 4)), axes=(1, 2)))


def _bend(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    """Each place moved a little, neighbours nearly alike."""
    side = image.shape[1]
    smooth = [ndimage.gaussian_filter(rng.normal(0, 1, (side, side)), side / 8) for _ in range(2)]
    moved = [way / (way.std() + 1e-9) * 0.08 * s * side for way in smooth]
    places = np.mgrid[:side, :side] + np.stack(moved)
    return np.stack([ndimage.map_coordinates(one, places, order=1, mode="nearest") for one in image])


def _cloud(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    """Light and dark places of some size over all of it."""
    side = image.shape[1]
    smooth = ndimage.gaussian_filter(rng.normal(0, 1, (side, side)), rng.uniform(0.5, max(0.6, side / 8)))
    return np.asarray(image + smooth / (smooth.std() + 1e-9) * 60 * s)


def _spots(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    spotted, side = image.copy(), image.shape[1]
    y, x = np.mgrid[:side, :side]
    for _ in range(max(1, round(14 * s))):
        cy, cx = rng.uniform(0, side, 2)
        spotted[:, np.hypot(y - cy, x - cx) < rng.uniform(0.03, 0.12) * side] = rng.uniform(0, 255)
    return spotted


def _scramble(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    """Of sixteen parts some change places: with all of them little is left to be known by."""
    part = image.shape[1] // 4
    if not part:
        return image
    taken = rng.choice(16, max(2, round(16 * s)), replace=False)
    scrambled = image.copy()
    for there, here in zip(taken, np.roll(taken, 1), strict=True):
        (a, b), (c, d) = (divmod(int(place), 4) for place in (there, here))
        scrambled[:, a * part : (a + 1) * part, b * part : (b + 1) * part] = image[
            :, c * part : (c + 1) * part, d * part : (d + 1) * part
        ]
    return scrambled


def _two(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    for number in rng.choice(len(_SINGLE), 2, replace=False):
        image = np.clip(_SINGLE[number](image, s * rng.uniform(0.3, 0.8), rng), 0, 255)
    return image


CHANGES: dict[str, Change] = {
    "noise": _noise,
    "brightness": _brightness,
    "contrast": _contrast,
    "gamma": _gamma,
    "blur": _blur,
    "turn": _turn,
    "move": _move,
    "zoom": _zoom,
    "hide": _hide,
    "coarsen": _coarsen,
    "shade": _shade,
    "flip": _flip,
    "bend": _bend,
    "cloud": _cloud,
    "spots": _spots,
    "scramble": _scramble,
    "two": _two,
}
_SINGLE = [change for name, change in CHANGES.items() if name != "two"]
