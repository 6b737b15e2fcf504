"""Decoding of a request's images in threads, under bounds on pixels and on memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np

from raytl.core.errors import UserError
from raytl.core.machine import cores
from raytl.serving.problems import RequestError
from raytl.serving.requests import NamedBytes
from raytl.serving.share import give_back_memory
from raytl.tasks.decoding import LargeImageError, pixels_to_decode

Decoded = TypeVar("Decoded")


class Decode(Protocol):
    """One encoded image to uint8 (channels, size, size).

    Raises UserError where it cannot be decoded, LargeImageError where it has more than ``most_pixels``.
    """

    def __call__(self, image: NamedBytes, most_pixels: int | None = None, /) -> np.ndarray:
        """See above."""


# Decoded, an image of this size takes some 200 MB for a moment; the largest allowed one takes more than a gigabyte.
LARGE_PIXELS = 16 * 1024 * 1024
# An image that is so small is decoded in less time than the way to a thread and back takes, a tenth of a millisecond.
_TINY_PIXELS = 128 * 128
_TINY_BYTES = 16 * 1024


class Decoder:
    """Small images side by side, large ones one at a time for all requests together, tiny ones on the event loop."""

    def __init__(self) -> None:
        # Decoding releases the interpreter lock for most of its time; more threads than cores only add switching.
        self._small = ThreadPoolExecutor(min(8, cores()), thread_name_prefix="raytl-decode")
        self._large = ThreadPoolExecutor(1, thread_name_prefix="raytl-decode-large")

    async def decode(self, decode: Decode, images: Sequence[NamedBytes], max_pixels: int) -> np.ndarray:
        """The images as ``decode`` makes them, stacked, in order.

        Raises RequestError naming the first image that cannot be decoded (422), or where all together would have more
        than ``max_pixels`` in memory (413).
        """
        try:
            if len(images) == 1:
                if len(images[0][1]) <= _TINY_BYTES:
                    tiny = _decode_if_small(decode, images[0], min(max_pixels, _TINY_PIXELS))
                    if isinstance(tiny, np.ndarray):
                        return tiny[None].copy()
                alone = await self._run(self._small, _decode_if_small, decode, images[0], min(max_pixels, LARGE_PIXELS))
                if isinstance(alone, np.ndarray):
                    return alone[None].copy()  # what Pillow lends is not writable, which torch warns of
                sizes = [alone]
            else:
                sizes = await self._run(self._small, _sizes, images)
            if sum(sizes) > max_pixels:
                raise RequestError(413, _too_many(sizes, max_pixels))
            return np.stack(await self._decode_all(decode, images, sizes))
        except UserError as error:
            raise RequestError(422, str(error)) from None

    async def _decode_all(
        self, decode: Decode, images: Sequence[NamedBytes], sizes: Sequence[int]
    ) -> Sequence[np.ndarray]:
        jobs = [
            self._run(self._large, _decode_large, decode, image)
            if size > LARGE_PIXELS
            else self._run(self._small, decode, image)
            for image, size in zip(images, sizes, strict=True)
        ]
        try:
            return list(await asyncio.gather(*jobs))
        except UserError:
            for job in jobs:
                job.cancel()
            raise

    def one_large(self, decode: Callable[[NamedBytes], Decoded], image: NamedBytes) -> Decoded:
        """What ``decode`` makes of a large image, when no other one is being decoded. For a thread that may wait."""
        return self._large.submit(_decode_large, decode, image).result()

    def _run(self, pool: ThreadPoolExecutor, work: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(pool, work, *arguments)

    def close(self) -> None:
        """Let go of the threads."""
        self._small.shutdown(wait=False, cancel_futures=True)
        self._large.shutdown(wait=False, cancel_futures=True)


def _decode_if_small(decode: Decode, image: NamedBytes, limit: int) -> np.ndarray | int:
    """The decoded image, or its pixels where they are more than ``limit``. One trip to a thread instead of two."""
    try:
        return decode(image, limit)
    except LargeImageError as larger:
        return larger.pixels


def _sizes(images: Sequence[NamedBytes]) -> list[int]:
    return [pixels_to_decode(data) for _, data in images]


def _too_many(sizes: Sequence[int], max_pixels: int) -> str:
    what = "the image has" if len(sizes) == 1 else f"the {len(sizes)} images have together"
    advice = "scale it down" if len(sizes) == 1 else "send fewer at a time or scale them down"
    return f"{what} {sum(sizes) / 1e6:.0f} megapixels, more than {max_pixels / 1e6:.0f}; {advice}"


def _decode_large(decode: Callable[[NamedBytes], Decoded], image: NamedBytes) -> Decoded:
    try:
        return decode(image)
    finally:
        give_back_memory()
