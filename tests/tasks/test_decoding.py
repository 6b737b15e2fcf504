from __future__ import annotations

import io
import struct
import zlib
from importlib.util import find_spec
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


def tiff(photometric: int, bands: int, bits: int, extra: tuple[int, ...], side: int = 8) -> bytes:
    """An uncompressed TIFF file of so many bands; extra: what the ones beyond the colours are said to be."""
    depths, kinds = (bits,) * bands, {3: "H", 4: "I"}
    tags = [
        *((256, 3, (side,)), (257, 3, (side,)), (258, 3, depths), (259, 3, (1,)), (262, 3, (photometric,))),
        *((273, 4, (0,)), (277, 3, (bands,)), (278, 3, (side,)), (279, 4, (side * side * bands * bits // 8,))),
        *([(338, 3, extra)] if extra else []),
    ]
    at = 8 + 2 + 12 * len(tags) + 4
    values = [struct.pack(f"<{len(value)}{kinds[kind]}", *value) for _, kind, value in tags]
    pixels = at + sum(len(value) for value in values if len(value) > 4)
    entries, beyond = b"", b""
    for (tag, kind, value), packed in zip(tags, values, strict=True):
        if tag == 273:
            packed = struct.pack("<I", pixels)
        if len(packed) > 4:
            where, beyond = struct.pack("<I", at + len(beyond)), beyond + packed
        else:
            where = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, kind, len(value)) + where
    samples = np.random.default_rng(0).integers(0, 1 << bits, (side, side, bands)).astype(f"<u{bits // 8}")
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + beyond + samples.tobytes()


class TestBands:
    """Of a TIFF image what is no colour and no transparency is not dropped, nor taken for transparency."""

    @pytest.mark.parametrize(
        ("bands", "bits", "extra"),
        [
            *((4, 8, (0,)), (5, 8, (0, 0)), (6, 8, (0, 0, 0)), (5, 8, (2, 0)), (6, 8, (1, 0, 0))),
            *((4, 16, ()), (4, 16, (0,))),
        ],
    )
    def test_beyond_red_green_and_blue_are_described(self, bands: int, bits: int, extra: tuple[int, ...]) -> None:
        said = rf"x\.tif: a TIFF image of {bands} bands of {bits} bits; write three of its bands as an 8-bit RGB image"
        with pytest.raises(UserError, match=said):
            decode(tiff(2, bands, bits, extra), "x.tif")

    def test_beyond_grey_and_beyond_inks_too(self) -> None:
        with pytest.raises(UserError, match="2 bands of 8 bits; write one of its bands as an 8-bit greyscale image"):
            decode(tiff(1, 2, 8, (0,)), "x.tif")
        with pytest.raises(UserError, match="5 bands of 8 bits"):
            decode(tiff(5, 5, 8, (0,)), "x.tif")

    @pytest.mark.parametrize(
        ("photometric", "bands", "bits", "extra", "mode"),
        [
            *(
                (2, 3, 8, (), "RGB"),
                (2, 4, 8, (), "RGB"),
                (2, 4, 8, (1,), "RGB"),
                (2, 4, 8, (2,), "RGB"),
                (2, 4, 16, (2,), "RGB"),
            ),
            *((1, 1, 8, (), "L"), (1, 2, 8, (2,), "L"), (5, 4, 8, (), "RGB")),
        ],
    )
    def test_that_are_colours_and_transparency_are_read(
        self, photometric: int, bands: int, bits: int, extra: tuple[int, ...], mode: str
    ) -> None:
        assert decode(tiff(photometric, bands, bits, extra), "x.tif").mode == mode

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
    def test_as_pillow_writes_them_are_read(self, mode: str) -> None:
        image = Image.new("LAB", (8, 8)) if mode == "LAB" else Image.new("RGB", (8, 8), (200, 30, 60)).convert(mode)
        for compression in (None, "tiff_lzw") + (("jpeg",) if mode in ("L", "RGB", "YCbCr") else ()):
            file = io.BytesIO()
            image.save(file, "TIFF", compression=compression)
            assert decode(file.getvalue(), "x.tif").mode in ("L", "RGB")


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


@pytest.mark.skipif(find_spec("pillow_heif") is not None, reason="HEIC is read here")
def test_what_heic_needs_can_be_installed_beside_raytl_and_beside_raytl_serve() -> None:
    with pytest.raises(UserError, match="HEIC needs a package: pip install pillow-heif"):
        decode(b"\0\0\0\x18ftypheic" + bytes(64), "photo.heic")


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
