"""Windows icons: several pictures in one file, of which the largest is read."""

from __future__ import annotations

import struct

MAGIC = b"\0\0\1\0"
_MOST = 256  # pixels a side that the format has; an icon's own headers may claim more
_PNG = b"\x89PNG"


def largest(data: bytes) -> bytes:
    """The PNG file inside an icon, where its largest picture is one; else the icon itself.

    Raises ValueError where an icon's bitmap claims more pixels than icons have, which would be made room for.
    """
    count = struct.unpack_from("<H", data, 4)[0]
    found: list[tuple[int, int, int, int]] = []
    for at in range(6, 6 + 16 * count, 16):
        width, height, _, _, _, bits, size, start = struct.unpack_from("<BBBBHHII", data, at)
        found.append(((width or _MOST) * (height or _MOST), bits, start, size))
        if data[start : start + 4] != _PNG:
            _, wide, high = struct.unpack_from("<Iii", data, start)
            if not (0 < wide <= _MOST and 0 < high <= 2 * _MOST):  # twice: the mask lies below the picture
                raise ValueError(f"a picture of {wide} x {high} pixels in an icon")
    if not found:
        raise ValueError("an icon without a picture")
    _, _, start, size = max(found)
    picture = data[start : start + size]
    return picture if picture.startswith(_PNG) else data
