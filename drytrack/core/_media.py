"""Images and figures as trackers get them: copied, or rendered to bytes."""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
import sys
from typing import Any, Literal

from drytrack.core.exceptions import EventValueError


@dataclasses.dataclass(frozen=True, slots=True)
class MediaFile:
    """An image or a figure as the bytes of a file.

    Attributes:
        format: ``png``, ``jpeg``, ``gif``, ``webp``, ``bmp`` or ``svg``;
            ``plotly`` is the figure's JSON.
        data: The content of the file.
    """

    format: Literal["png", "jpeg", "gif", "webp", "bmp", "svg", "plotly"]
    data: bytes


_SIGNATURES: dict[bytes, Any] = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"GIF8": "gif",
    b"BM": "bmp",
}


def image(value: object, field: str) -> object:
    """Copy an image.

    Args:
        value: A `MediaFile`; the path or the bytes of an image file; a PIL
            image; or an array or tensor of shape (H, W), (H, W, 1), (H, W, 3),
            (H, W, 4), or with the channels first, uint8 or float in [0, 1].
        field: For the error.

    Returns:
        A `MediaFile`, or a read-only uint8 array of shape (H, W), (H, W, 3) or
        (H, W, 4). Floats outside of [0, 1] are clipped.

    Raises:
        EventValueError: If it is none of these.
    """
    if isinstance(value, MediaFile):
        return value
    if isinstance(value, (str, pathlib.PurePath)):
        return _read_file(pathlib.Path(value), field)
    if isinstance(value, (bytes, bytearray)):
        return MediaFile(_find_format(bytes(value), field), bytes(value))
    if type(value).__module__.partition(".")[0] == "PIL" and hasattr(value, "save"):
        buffer = io.BytesIO()
        value.save(buffer, format="PNG")
        return MediaFile("png", buffer.getvalue())
    return _array_image(value, field)


def _read_file(path: pathlib.Path, field: str) -> MediaFile:
    try:
        data = path.read_bytes()
    except OSError as err:
        msg = f"{field} {str(path)!r} cannot be read: {err}. Pass the path of a file."
        raise EventValueError(msg) from err
    return MediaFile(_find_format(data, field), data)


def _find_format(data: bytes, field: str) -> Any:
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if b"<svg" in data[:1024]:
        return "svg"
    msg = (
        f"{field} is no PNG, JPEG, GIF, WebP, BMP or SVG file (it begins with "
        f"{data[:8]!r}). Convert it first."
    )
    raise EventValueError(msg)


def _array_image(value: Any, field: str) -> object:
    if hasattr(value, "detach"):  # a torch tensor, on whatever device
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    if not hasattr(value, "__array__"):
        msg = (
            f"{field} must be an array, a PIL image or an image file, got "
            f"{type(value).__name__}. Pass an array of shape (H, W, 3)."
        )
        raise EventValueError(msg)
    import numpy as np  # whoever has an array has NumPy

    array = np.asarray(value)
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):  # noqa: PLR2004, E501  # channels
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[2] == 1:  # noqa: PLR2004  # (H, W, 1)
        array = array[:, :, 0]
    good = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))  # noqa: PLR2004, E501  # channels
    if not good or array.size == 0 or array.dtype.kind not in "buif":
        msg = (
            f"{field} must have shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got "
            f"shape {np.shape(value)} and type {array.dtype}. Reshape it, or publish "
            f"one image at a time."
        )
        raise EventValueError(msg)
    if array.dtype == np.bool_:
        pixels = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype.kind == "f":
        clipped = np.clip(np.nan_to_num(array, nan=0.0), 0.0, 1.0)
        pixels = np.rint(clipped * 255).astype(np.uint8)
    else:
        pixels = np.clip(array, 0, 255).astype(np.uint8)
    pixels = np.ascontiguousarray(pixels)
    if pixels is value or pixels.base is not None:
        pixels = pixels.copy()
    pixels.flags.writeable = False
    return pixels


def figure(value: object, field: str) -> object:
    """Render a figure, so that later changes to it change nothing here.

    Args:
        value: A matplotlib figure (becomes PNG), a plotly figure (its JSON), or
            anything that `image` takes.
        field: For the error.

    Returns:
        A `MediaFile` or an array.

    Raises:
        EventValueError: If it is none of these.
    """
    if hasattr(value, "savefig"):
        buffer = io.BytesIO()
        value.savefig(buffer, format="png", bbox_inches="tight")
        return MediaFile("png", buffer.getvalue())
    if hasattr(value, "to_plotly_json") and hasattr(value, "to_json"):
        data = value.to_json()
        json.loads(data)  # a broken figure is refused here, not in a tracker
        return MediaFile("plotly", data.encode())
    return image(value, field)


def png(value: object) -> bytes:
    """Return the bytes of a PNG file for an array that passed the door.

    The format is written by hand, since core has no image library.

    Source:
        PNG specification, third edition (W3C, 2025), chapters 5 and 11.
    """
    import struct
    import zlib

    numpy = sys.modules["numpy"]
    if isinstance(value, MediaFile):
        if value.format != "png":
            msg = f"A {value.format} file is no PNG. Use its bytes as they are."
            raise EventValueError(msg)
        return value.data
    array = numpy.asarray(value)
    height, width = array.shape[:2]
    channels = 1 if array.ndim == 2 else array.shape[2]  # noqa: PLR2004  # (H, W)
    color_type = {1: 0, 3: 2, 4: 6}[channels]
    rows = array.reshape(height, width * channels)
    scanlines = numpy.empty((height, width * channels + 1), numpy.uint8)
    scanlines[:, 0] = 0  # filter type "none"
    scanlines[:, 1:] = rows

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(scanlines.tobytes(), 6))
        + chunk(b"IEND", b"")
    )
