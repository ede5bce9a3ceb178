"""A PNG encoder for pictures of few colours: one byte per pixel and a palette with transparency.

PNG specification (W3C, third edition), 11.2 and 11.3: signature, IHDR, PLTE, tRNS, IDAT, IEND.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np

Colour = tuple[int, int, int, int]
"""Red, green, blue and opacity, 0 to 255 each."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_INDEXED = 3
_LEVEL = 9


def encode(pixels: np.ndarray, palette: Sequence[Colour]) -> bytes:
    """A PNG of ``pixels``, (rows, columns) of indexes into at most 256 colours."""
    rows, columns = pixels.shape
    lines = np.zeros((rows, columns + 1), np.uint8)  # each line begins with its filter: none
    lines[:, 1:] = pixels
    header = struct.pack(">IIBBBBB", columns, rows, 8, _INDEXED, 0, 0, 0)
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", bytes(part for colour in palette for part in colour[:3])),
            _chunk(b"tRNS", bytes(colour[3] for colour in palette)),
            _chunk(b"IDAT", zlib.compress(lines.tobytes(), _LEVEL)),
            _chunk(b"IEND", b""),
        )
    )


def data_url(picture: bytes) -> str:
    """The picture as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(picture).decode('ascii')}"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
