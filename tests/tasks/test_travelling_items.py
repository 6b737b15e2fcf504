"""Images on their way to other processes: bytes that are held once are not copied by everyone who reads them."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from raytl.tasks import Images
from raytl.tasks.items import EncodedItem


@pytest.fixture
def images() -> Images:
    items = []
    for number in range(3):
        file = io.BytesIO()
        Image.new("RGB", (9, 7), (number, 20, 30)).save(file, "PNG")
        items.append(EncodedItem(f"image {number}", file.getvalue(), f"{number:064x}"))
    return Images("encoded", items)


def _beside(images: Images) -> Images:
    """As Ray does: buffers beside the pickle, which its readers have mapped and cannot write to."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(images, protocol=5, buffer_callback=buffers.append)
    assert len(buffers) == len(images)
    assert not any(item.data in pickled for item in images.items)
    return pickle.loads(pickled, buffers=[memoryview(buffer).toreadonly() for buffer in buffers])


WAYS: list[Callable[[Images], Images]] = [
    _beside,
    copy.deepcopy,
    *(lambda images, p=p: pickle.loads(pickle.dumps(images, protocol=p)) for p in (2, 4, 5)),
]


@pytest.mark.parametrize("travel", WAYS)
def test_encoded_images_arrive_as_they_were(images: Images, travel: Callable[[Images], Images]) -> None:
    arrived = travel(images)
    assert arrived.items == images.items and arrived.fingerprint == images.fingerprint
    for one, other in zip(arrived.items, images.items, strict=True):
        assert one.read() == other.read() and isinstance(one.read(), bytes)
        assert one.read(8) == other.read()[:8]
        assert np.array_equal(np.asarray(one.open()), np.asarray(other.open()))
    assert travel(arrived).items == images.items  # and further


def test_bytes_beside_the_pickle_are_read_where_they_lie(images: Images) -> None:
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(images.items[0], protocol=5, buffer_callback=buffers.append)
    held = bytearray(images.items[0].data)
    arrived = pickle.loads(pickled, buffers=[held])
    held[0] ^= 255
    assert arrived.read()[0] == held[0]
