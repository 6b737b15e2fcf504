"""A bundle's own reference predictions: a few images with what the model answered when it was written.

Whoever loads the bundle can ask it again. Another answer means that labels, preprocessing, weights or the network's
code are no longer those that were tested: then nobody should be answered by it.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raytl.core.errors import UserError

if TYPE_CHECKING:
    from raytl.tasks.images import Images

REFERENCE_FILE = "reference.json"
MOST = 16

# Longer side of a stored image: enough for every step of the preprocessing to have something to do.
_SIDE = 256
_MAX_BYTES = 64 * 2**20
_LEAST = 1e-12


class Answering(Protocol):
    """What can be asked: a :class:`raytl.bundles.predictor.Predictor`, which says more of it."""

    labels: tuple[str, ...]

    @property
    def tolerance(self) -> float:
        """By which the logarithm of a probability may differ, for each unit of one more than its size."""

    def prepare(self, image: bytes, name: str) -> np.ndarray:
        """An encoded image as uint8 (channels, size, size)."""

    def compute(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """Probabilities of the labels, float32 (n, k)."""


class Example(BaseModel):
    """image: PNG in base64. probabilities: of the labels, in the reference's order."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    image: str
    probabilities: tuple[Annotated[float, Field(ge=0, le=1)], ...]


class Reference(BaseModel):
    """Images and answers. labels: what the probabilities belong to, by name: a manifest with others cannot pass."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["raytl-reference"] = "raytl-reference"
    labels: tuple[str, ...]
    examples: tuple[Example, ...] = Field(max_length=MOST)

    @classmethod
    def record(cls, bundle: Answering, images: Sequence[Image.Image]) -> Reference:
        """What the bundle answers for decoded images, of which at most 16 are taken, made at most 256 pixels long."""
        encoded = [_encode(image) for image in images[:MOST]]
        answers = _answers(bundle, encoded)
        return cls(
            labels=bundle.labels,
            examples=tuple(
                Example(image=base64.b64encode(data).decode(), probabilities=tuple(map(float, row)))
                for data, row in zip(encoded, answers, strict=True)
            ),
        )

    @classmethod
    def read(cls, folder: Path) -> Reference | None:
        """That of a bundle's folder; None where it has none, as those of earlier versions. Raises UserError."""
        path = folder / REFERENCE_FILE
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise UserError(f"{path}: is larger than reference predictions can be; export the model again")
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error}); export the model again") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise UserError(f"{path}: is damaged ({first['msg']}); export the model again") from error

    def answered(self, answers: np.ndarray) -> Reference:
        """The same images with other answers: probabilities, (n, k), in the order of the labels here."""
        pairs = zip(self.examples, answers.tolist(), strict=True)
        return Reference(labels=self.labels, examples=tuple(Example(image=e.image, probabilities=p) for e, p in pairs))

    def to_bytes(self) -> bytes:
        """The file's content."""
        return (json.dumps(self.model_dump(mode="json"), allow_nan=False) + "\n").encode()

    def pixels(self, bundle: Answering) -> np.ndarray:
        """The images as the bundle sees them, uint8 (n, channels, size, size). At least one image."""
        return _prepared(bundle, [base64.b64decode(example.image) for example in self.examples])

    def ask(self, bundle: Answering) -> np.ndarray:
        """What a bundle of these labels answers for the images, float32 (n, k), in the order of the labels here."""
        rows = _answers(bundle, [base64.b64decode(example.image) for example in self.examples])
        return rows[:, [bundle.labels.index(label) for label in self.labels]]

    def check(self, bundle: Answering, where: str) -> None:
        """Ask the bundle again.

        where: what to call it in messages. Raises UserError where it answers otherwise than it did.
        """
        if not self.examples:
            return
        if sorted(bundle.labels) != sorted(self.labels):
            raise UserError(
                f"{where}: the labels ({', '.join(bundle.labels)}) are not those of its own reference predictions "
                f"({', '.join(self.labels)}); export the model again"
            )
        now = self.ask(bundle)
        then = np.array([example.probabilities for example in self.examples], dtype=np.float32)
        if then.shape != now.shape:
            raise UserError(f"{where}: its reference predictions are damaged; export the model again")
        wrong = ~close(now, then, bundle.tolerance)
        if wrong.any():
            raise UserError(
                f"{where}: fails its own reference predictions: of {len(wrong)} images that it was written with, it "
                f"answers {int(wrong.sum())} otherwise than it did then (by up to "
                f"{np.nanmax(np.abs(now - then)):.2g} in a probability); export the model again"
            )


def close(now: np.ndarray, then: np.ndarray, tolerance: float) -> np.ndarray:
    """Whether probabilities, (n, k), are what they were, bool (n,). tolerance: as a predictor has it."""
    before, after = (np.log(np.maximum(rows, _LEAST)) for rows in (then, now))
    return np.asarray((np.abs(after - before) <= tolerance * (1 + np.abs(before))).all(axis=1))


def reference_images(images: Images) -> list[Image.Image]:
    """Up to 16 of them, decoded, evenly spread: data usually lies in the order of its classes."""
    count = min(MOST, len(images))
    return [images.items[number * len(images) // count].open() for number in range(count)]


def _encode(image: Image.Image) -> bytes:
    image = image if image.mode in ("L", "RGB") else image.convert("RGB")
    image = image.copy()
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _answers(bundle: Answering, encoded: Sequence[bytes]) -> np.ndarray:
    """Probabilities, float32 (n, k)."""
    if not encoded:
        return np.empty((0, len(bundle.labels)), dtype=np.float32)
    return bundle.compute(_prepared(bundle, encoded), MOST)


def _prepared(bundle: Answering, encoded: Sequence[bytes]) -> np.ndarray:
    return np.stack([bundle.prepare(data, f"reference image {number + 1}") for number, data in enumerate(encoded)])
