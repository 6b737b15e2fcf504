from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from raytl.core.errors import UserError
from raytl.tasks import check
from raytl.tasks.decoding import MAX_PIXELS, decode, decode_with_facts, is_greyscale, pixels_to_decode
from tests.tasks.pictures import empty_avif, encoded, make_folder, picture


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_format_keeps_the_picture(kind: str) -> None:
    original = picture(1)
    options = {"quality": 95} if kind in {"JPEG", "WEBP"} else {}
    decoded = decode(encoded(original, kind, **options), "a picture")
    assert decoded.mode == "RGB"
    assert decoded.size == original.size
    assert np.abs(np.asarray(decoded, float) - np.asarray(original, float)).mean() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = Image.new("RGB", (40, 20), "black")
    upright.paste((255, 255, 255), (0, 0, 10, 10))  # a mark in the upper left corner
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for step in undo.get(orientation, []):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode_with_facts(encoded(stored, "PNG", exif=exif), "turned")
    assert (found.width, found.height) == (40, 20)
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(upright))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_by_their_range(kind: str) -> None:
    deep = Image.fromarray(np.array([[0, 257 * 7, 65535]], dtype=np.uint16))
    assert deep.mode == "I;16"
    decoded = decode(encoded(deep, kind), "deep")
    assert decoded.mode == "L"
    assert np.asarray(decoded).tolist() == [[0, 7, 255]]


def test_floating_point_pixels_of_unit_range_are_scaled() -> None:
    deep = Image.fromarray(np.array([[0.0, 0.5, 1.0, np.nan]], dtype=np.float32))
    assert np.asarray(decode(encoded(deep, "TIFF"), "float")).tolist() == [[0, 128, 255, 0]]


def test_negative_integers_do_not_wrap() -> None:
    deep = Image.fromarray(np.array([[-100, 0, 155]], dtype=np.int32))
    assert np.asarray(decode(encoded(deep, "TIFF"), "signed")).tolist() == [[0, 100, 255]]


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_a_glyph_on_nothing_stays_visible_whatever_its_colour(mode: str, ink: int) -> None:
    glyph = Image.new(mode, (8, 8), (ink, 0) if mode == "LA" else (ink, ink, ink, 0))
    glyph.paste((ink, 255) if mode == "LA" else (ink, ink, ink, 255), (2, 2, 5, 5))
    values = np.asarray(decode(encoded(glyph), "glyph").convert("L"), dtype=int)
    assert abs(values[3, 3] - values[0, 0]) == 255
    assert values[3, 3] == ink


def test_transparent_pixels_show_white() -> None:
    image = picture(2, mode="RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    image.paste((10, 20, 30, 255), (0, 0, 5, 5))
    decoded = decode(encoded(image), "transparent")
    assert decoded.getpixel((1, 1)) == (10, 20, 30)
    assert decoded.getpixel((20, 20)) == (255, 255, 255)


def test_palettes_with_and_without_transparency() -> None:
    flat = Image.new("RGB", (9, 9), (200, 30, 40))
    assert decode(encoded(flat.convert("P", palette=Image.Palette.ADAPTIVE)), "palette").getpixel((4, 4)) == (
        200,
        30,
        40,
    )
    holed = Image.new("P", (9, 9), 0)
    holed.putpalette([0, 0, 0, 200, 30, 40])
    holed.paste(1, (0, 0, 4, 9))
    decoded = decode(encoded(holed, "PNG", transparency=0), "holed")
    assert decoded.getpixel((1, 1)) == (200, 30, 40)
    assert decoded.getpixel((8, 8)) == (255, 255, 255)


def test_cmyk_and_bilevel_are_converted() -> None:
    assert decode(encoded(picture(3, mode="CMYK"), "JPEG"), "print").mode == "RGB"
    bilevel = Image.new("1", (4, 4), 1)
    assert np.asarray(decode(encoded(bilevel), "fax")).tolist() == [[255] * 4] * 4


def test_only_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    decoded = decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), "moving")
    assert decoded.getpixel((2, 2)) == (255, 0, 0) or decoded.getpixel((2, 2)) == (254, 0, 0)


def test_a_large_photograph_is_reduced_but_its_size_is_told() -> None:
    found = decode_with_facts(encoded(picture(4, size=(2400, 2100)), "JPEG"), "large")
    assert (found.width, found.height) == (2400, 2100)
    assert found.image.size == (1200, 1050)


@given(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"]), st.floats(0.0, 0.9))
def test_a_truncated_file_is_an_error_that_names_it(kind: str, fraction: float) -> None:
    data = encoded(picture(5), kind)
    with pytest.raises(UserError, match=r"^photos/5: "):
        decode(data[: int(len(data) * fraction)], "photos/5")


@given(st.binary(max_size=200), st.integers(0, 400), st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"]))
def test_damaged_bytes_give_an_image_or_the_users_error_and_nothing_else(junk: bytes, at: int, kind: str) -> None:
    data = encoded(picture(6), kind)
    damaged = data[:at] + junk + data[at + len(junk) :]
    try:
        assert decode(damaged, "damaged").mode in {"L", "RGB"}
    except UserError as error:
        assert str(error).startswith("damaged: ")


def test_an_avif_file_of_zeros_is_damaged(tmp_path: Path) -> None:
    make_folder(tmp_path, {"cat": 3, "dog": 3})
    (tmp_path / "cat" / "9.avif").write_bytes(empty_avif())
    report = check(tmp_path)
    assert [problem.where.rpartition("/")[2] for problem in report.corrupt] == ["9.avif"]
    assert "the image is damaged (Failed to decode" in str(report.corrupt[0])
    assert pixels_to_decode(empty_avif()) in {0, 40 * 30}


def test_a_decompression_bomb_is_refused_before_it_unfolds() -> None:
    side = int(MAX_PIXELS**0.5) + 1

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    for width in (side, 20 * side):  # above raytl's limit, and above Pillow's own
        header = struct.pack(">IIBBBBB", width, side, 8, 0, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        with pytest.raises(UserError, match="bomb: the image has more than 89 megapixels"):
            decode(bomb, "bomb")


def test_greyscale_is_a_matter_of_content() -> None:
    grey = picture(7, mode="L")
    assert is_greyscale(grey)
    assert is_greyscale(decode(encoded(grey.convert("RGB"), "JPEG"), "grey photo"))
    assert not is_greyscale(picture(7))
    spot = grey.convert("RGB")
    spot.putpixel((13, 11), (250, 10, 10))
    assert not is_greyscale(spot)


class TestIcons:
    """The largest picture of an icon, within the bounds that every image has."""

    def icon(self, image: Image.Image, **options: object) -> bytes:
        return encoded(image, "ICO", **options)

    @pytest.mark.parametrize("kind", ["png", "bmp"])
    def test_the_largest_picture_is_read(self, kind: str) -> None:
        image = picture(3, size=(64, 64))
        read = decode(self.icon(image, sizes=[(16, 16), (64, 64)], bitmap_format=kind), "a.ico")
        assert read.size == (64, 64)
        assert np.abs(np.asarray(read).astype(int) - np.asarray(image).astype(int)).max() <= 1

    def test_what_lies_inside_is_bounded_too(self) -> None:
        huge = encoded(Image.new("L", (10_000, 10_000)), "PNG", compress_level=1)
        head = struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(huge), 22)
        with pytest.raises(UserError, match="more than 89 megapixels"):
            decode(head + huge, "a.ico")
        bitmap = struct.pack("<IiiHHIIiiII", 40, 100_000, 100_000, 1, 32, 0, 0, 0, 0, 0, 0)
        head = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(bitmap), 22)
        with pytest.raises(UserError, match="a picture of 100000 x 100000 pixels in an icon"):
            decode(head + bitmap, "a.ico")
        with pytest.raises(UserError, match="damaged"):
            decode(head[:9], "a.ico")
