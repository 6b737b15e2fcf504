"""No image takes more than a bounded amount of memory on its way to the network, whatever its shape."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raytl.core.errors import UserError
from raytl.tasks import Preprocessing
from raytl.tasks.decoding import decode
from tests.tasks.pictures import encoded, picture

RESIZES = ("squash", "crop", "pad")

# Peak memory is a property of a process: each case has its own, and says what came on top of what it began with.
_MEASURE = """
import io, resource, sys
import numpy as np
from PIL import Image
from raytl.core.errors import UserError
from raytl.tasks.decoding import decode_with_facts
from raytl.tasks.preprocessing import Preprocessing
from raytl.tasks.survey import facts_of

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def through(data):
    found = decode_with_facts(data, "strip")
    facts_of(found.image)
    for resize in ("squash", "crop", "pad"):
        for interpolation in ("bilinear", "bicubic"):
            for fraction in (0.875, 1.0):
                array = Preprocessing(
                    size=256, resize=resize, interpolation=interpolation, crop_fraction=fraction
                ).to_uint8(found.image)
                assert array.shape == (3, 256, 256)
    assert Preprocessing(size=288, tiles=3).to_uint8(found.image).shape == (3, 288, 288)

def encoded(mode, size):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()

through(encoded("RGB", (64, 64)))
files = [encoded(sys.argv[1], (int(w), int(h))) for w, h in (text.split("x") for text in sys.argv[2:])]
before = peak()
for data in files:
    through(data)
print(peak() - before)
"""


# From 1x1 to 60000x1, long and short sides alike; each example is a process of its own.
_SIDES = st.one_of(st.integers(1, 60), st.integers(61, 3000), st.integers(3001, 60_000))
SHAPES = st.tuples(_SIDES, _SIDES).map(lambda shape: (shape[0], max(1, min(shape[1], 2_000_000 // shape[0]))))


def extra_bytes(mode: str, *sizes: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, mode, *sizes], capture_output=True, text=True, check=True, timeout=300
    )
    return int(done.stdout)


class TestMemory:
    def test_strips_take_a_few_outputs(self) -> None:
        sizes = ["1x60000", "60000x1", "3x60000", "60000x3", "200x30000", "1x1", "1x300", "17x4099"]
        output = 256 * 256 * 4
        assert extra_bytes("RGB", *sizes) < 64 * output + 6 * 200 * 30000 * 4

    @settings(max_examples=2, deadline=None)
    @given(st.lists(SHAPES, min_size=16, max_size=16))
    def test_any_shape_takes_a_few_outputs(self, shapes: list[tuple[int, int]]) -> None:
        largest = max(width * height for width, height in shapes)
        ceiling = 64 * 256 * 256 * 4 + 6 * 4 * largest
        assert extra_bytes("RGB", *(f"{width}x{height}" for width, height in shapes)) < ceiling

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "L"])
    def test_large_images_take_12_bytes_a_pixel(self, mode: str) -> None:
        sizes = [(3_000, 3_000), (60, 150_000), (150_000, 60)]
        assert extra_bytes(mode, *(f"{width}x{height}" for width, height in sizes)) < 12 * 9_000_000

    @pytest.mark.parametrize("size", [(1, 20_000_000), (20_000_000, 1)])
    def test_an_endless_image_is_refused_in_a_sentence(self, size: tuple[int, int]) -> None:
        with pytest.raises(UserError, match="strip: the image is 20,000,000 pixels long; cut it into pieces"):
            decode(encoded(Image.new("L", size)), "strip")


class TestResizing:
    """What the network sees is what resizing the whole image shows."""

    def whole(self, settings: Preprocessing, image: Image.Image) -> np.ndarray:
        """The plain way: everything is resized, then cut or padded."""
        kind = Image.Resampling.BICUBIC if settings.interpolation == "bicubic" else Image.Resampling.BILINEAR
        size, (width, height) = settings.size, image.size
        if settings.resize == "squash":
            image = image.resize((size, size), kind)
        elif settings.resize == "crop":
            scale = round(size / settings.crop_fraction) / min(width, height)
            image = image.resize((max(size, round(width * scale)), max(size, round(height * scale))), kind)
            left, top = (image.width - size) // 2, (image.height - size) // 2
            image = image.crop((left, top, left + size, top + size))
        else:
            scale = size / max(width, height)
            image = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), kind)
            canvas = Image.new(image.mode, (size, size))
            canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
            image = canvas
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)

    @pytest.mark.parametrize("resize", RESIZES)
    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_ordinary_images_come_out_bit_for_bit(self, resize, interpolation, mode: str) -> None:
        for number, size in enumerate([(640, 480), (480, 640), (100, 1300), (33, 20), (1, 1), (224, 224), (1000, 90)]):
            for fraction in (0.875, 1.0):
                settings = Preprocessing(size=64, resize=resize, crop_fraction=fraction, interpolation=interpolation)
                image = picture(number, size, mode)
                np.testing.assert_array_equal(settings.to_uint8(image), self.whole(settings, image))

    @pytest.mark.parametrize("resize", RESIZES)
    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
    def test_narrow_images_come_out_within_rounding(self, resize, interpolation: str) -> None:
        for number, size in enumerate([(1, 900), (900, 1), (20, 1200), (1100, 7), (3, 70_000), (20_000, 5)]):
            settings = Preprocessing(size=32, resize=resize, crop_fraction=0.9, interpolation=interpolation)
            image = picture(number, size)
            gap = settings.to_uint8(image).astype(int) - self.whole(settings, image)
            assert np.abs(gap).max() <= 2

    @pytest.fixture(scope="class")
    def huge(self) -> tuple[Image.Image, Image.Image]:
        """One that is reduced while it is decoded: as it is, and as it is decoded."""
        noise = np.random.default_rng(0).integers(-20, 20, (4100, 4200, 3))
        values = np.clip(np.asarray(picture(3, (4200, 4100))).astype(int) + noise, 0, 255)
        huge = Image.fromarray(values.astype(np.uint8))
        return huge, decode(encoded(huge, compress_level=1), "huge")

    @pytest.mark.parametrize("resize", RESIZES)
    def test_reducing_a_huge_image_first_shows_in_no_more_than_one_grey_level(self, huge, resize) -> None:
        whole, reduced = huge
        settings = Preprocessing(size=256, resize=resize, interpolation="bicubic")
        assert reduced.size == (1050, 1025)
        gap = settings.to_uint8(reduced).astype(int) - settings.to_uint8(whole)
        assert np.abs(gap).max() <= 1


class TestPieces:
    """What a network sees of pieces of the image, as they are."""

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_they_are_spread_evenly_and_nobody_resized_them(self, mode: str) -> None:
        image = picture(1, (500, 330), mode)
        seen = Preprocessing(size=96, tiles=3).to_uint8(image)
        whole = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        for row, top in enumerate((0, 149, 298)):
            for column, left in enumerate((0, 234, 468)):
                piece = seen[:, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
                np.testing.assert_array_equal(piece, whole[:, top : top + 32, left : left + 32])

    def test_those_of_small_images_overlap(self) -> None:
        image = picture(1, (40, 32))
        seen, whole = Preprocessing(size=96, tiles=3).to_uint8(image), np.asarray(image).transpose(2, 0, 1)
        for column, left in enumerate((0, 4, 8)):
            for row in range(3):
                piece = seen[:, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
                np.testing.assert_array_equal(piece, whole[:, :, left : left + 32])

    @pytest.mark.parametrize("side", [96, 128])
    def test_none_is_of_a_width_that_cannot_be_had(self, side: int) -> None:
        """Divided and multiplied again, 47 is more than 47."""
        for width in range(1, side + 2):
            for size in ((width, 2 * side), (2 * side, width)):
                assert Preprocessing(size=3 * side, tiles=3, channels=1).to_uint8(Image.new("L", size, 7)).min() == 7

    @pytest.mark.parametrize("size", [(1, 1), (5, 9), (31, 400), (1, 60_000), (60_000, 3)])
    def test_images_narrower_than_a_piece_are_enlarged_by_the_piece(self, size: tuple[int, int]) -> None:
        image = picture(2, size)
        seen = Preprocessing(size=96, tiles=3).to_uint8(image)
        assert seen.shape == (3, 96, 96)
        whole = np.asarray(image)
        assert whole.min() <= seen.min() and seen.max() <= whole.max()
