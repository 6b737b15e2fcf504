"""What else can be asked about a prediction: classifiers of labelled images that are solved for in a moment.

A network that is wrong is often sure of it. Whoever judges the same image by other means is wrong elsewhere, and where
the two disagree, one of them is. It is the agreement of several heads (arXiv 2404.01542) with judges that need none of
the network: kernel ridge regressions on thumbnails whatever the light, on the edges in them, and on statistics of the
image. Beside that, how far an image is from all that have labels.
"""

from __future__ import annotations

import numpy as np

OPINIONS = 6
"""Numbers that are told of an image."""
NEIGHBOURS = 5
_CELLS = 4_000_000
_RIDGE, _SHARPNESS, _WIDTH = 0.1, 4.0, 0.5
_MOST_STATISTIC = 5.0


class SecondOpinions:
    """Asks labelled images.

    thumbnails: (n, t), square ones row by row; statistics: (n, s), both of labelled images; labels: (n,) of so many
    classes. None of the images asked about is among them, or was made from one. At least one image.
    """

    def __init__(self, thumbnails: np.ndarray, statistics: np.ndarray, labels: np.ndarray, classes: int) -> None:
        self._thumbnails = thumbnails.astype(np.float64)
        statistics = statistics.astype(np.float64)
        self._centre, self._scale = statistics.mean(axis=0), statistics.std(axis=0) + 1e-3
        self._statistics = self._standardised(statistics)
        described = (_shapes(self._thumbnails), self._statistics, _edges(self._thumbnails))
        self._judges = [_KernelRidge(rows, labels, classes) for rows in described]

    def about(
        self, probabilities: np.ndarray, chosen: np.ndarray, thumbnails: np.ndarray, statistics: np.ndarray
    ) -> np.ndarray:
        """Of each image (m, :data:`OPINIONS`).

        Log-odds of the chosen label by the model; log distances to the nearest labelled images, of thumbnails and of
        statistics; log-odds of the chosen label by each of the others.
        probabilities: (m, k); chosen: (m,) predicted labels; thumbnails: (m, t); statistics: (m, s).
        """
        told = np.empty((len(chosen), OPINIONS))
        step = max(1, _CELLS // max(1, self._thumbnails.size))
        for start in range(0, len(chosen), step):
            rows = slice(start, start + step)
            seen, label = thumbnails[rows].astype(np.float64), chosen[rows]
            found = self._standardised(statistics[rows].astype(np.float64))
            p = np.clip(probabilities[rows][np.arange(len(label)), label].astype(np.float64), 1e-6, 1 - 1e-4)
            told[rows, 0] = np.log(p / (1 - p))
            told[rows, 1] = np.log(_distances(seen, self._thumbnails) + 1e-3)
            told[rows, 2] = np.log(_distances(found, self._statistics) + 1e-2)
            for number, asked in enumerate((_shapes(seen), found, _edges(seen))):
                told[rows, 3 + number] = self._judges[number].log_odds(asked, label)
        return told

    def _standardised(self, statistics: np.ndarray) -> np.ndarray:
        found = (statistics - self._centre) / self._scale
        return np.asarray(np.clip(found, -_MOST_STATISTIC, _MOST_STATISTIC))


class _KernelRidge:
    """Regression on the labels with a Gaussian kernel."""

    def __init__(self, rows: np.ndarray, labels: np.ndarray, classes: int) -> None:
        self._rows = rows
        apart = _squares(rows, rows)
        self._usual = float(np.median(apart)) or float(apart.mean()) or 1.0
        wanted = np.eye(classes)[labels] - 1 / classes
        self._solved = np.linalg.solve(self._kernel(apart) + _RIDGE * np.eye(len(rows)), wanted)

    def log_odds(self, rows: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Of these labels, (m,)."""
        scores = _SHARPNESS * self._kernel(_squares(rows, self._rows)) @ self._solved
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        p = np.clip(shares[np.arange(len(label)), label] / shares.sum(axis=1), 1e-3, 1 - 1e-3)
        return np.asarray(np.log(p / (1 - p)))

    def _kernel(self, squares: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(-squares / (_WIDTH * self._usual)))


def _shapes(thumbnails: np.ndarray) -> np.ndarray:
    """Thumbnails whatever the light and the contrast."""
    rows = thumbnails - thumbnails.mean(axis=1, keepdims=True)
    return np.asarray(rows / (rows.std(axis=1, keepdims=True) + 0.05))


def _edges(thumbnails: np.ndarray) -> np.ndarray:
    """Differences of neighbouring pixels, alike strong in all images."""
    side = round(thumbnails.shape[1] ** 0.5)
    pixels = thumbnails.reshape(-1, side, side)
    rows = [np.diff(pixels, axis=axis).reshape(len(pixels), -1) for axis in (1, 2)]
    found = np.concatenate(rows, axis=1)
    return np.asarray(found / (np.sqrt((found**2).mean(axis=1, keepdims=True)) + 0.02))


def _distances(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    """To the nearest known ones, (m,)."""
    count = min(NEIGHBOURS, len(known))
    return np.asarray(np.sqrt(np.partition(_squares(rows, known), count - 1, axis=1)[:, :count].mean(axis=1)))


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean squared differences (m, n)."""
    found = (a**2).mean(1)[:, None] + (b**2).mean(1)[None, :] - 2 * (a @ b.T) / a.shape[1]
    return np.asarray(np.maximum(found, 0.0))
