"""Images and figures as trackers get them: copied, or rendered to bytes."""

from __future__ import annotations

import dataclasses
import io
import math
import pathlib
import sys
from collections.abc import Callable
from typing import Any, Literal

from drytrack.core._warn import warn
from drytrack.core.exceptions import EventValueError, RunWarning

# Rounding of a picture that was scaled well.
_SLACK = 1e-3


@dataclasses.dataclass(frozen=True, slots=True)
class MediaFile:
    """An image or a figure as the bytes of a file.

    Attributes:
        format: ``png``, ``jpeg``, ``gif``, ``webp``, ``bmp`` or ``svg``;
            ``plotly`` is the figure's JSON.
        data: The content of the file.
    """

    format: Literal["png", "jpeg", "gif", "webp", "bmp", "svg", "plotly"]
    data: bytes = dataclasses.field(repr=False)


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
        (H, W, 4). What is outside of [0, 1] or [0, 255] is cut off, with a
        warning.

    Raises:
        EventValueError: If it is none of these.
    """
    if isinstance(value, MediaFile):
        return value
    if isinstance(value, (str, pathlib.PurePath)):
        return _read_file(pathlib.Path(value), field)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return MediaFile(_find_format(bytes(value), field), bytes(value))
    if type(value).__module__.partition(".")[0] == "PIL" and hasattr(value, "save"):
        return _render(value.save, field, format="PNG")
    return _array_image(value, field)


def _render(save: Callable[..., object], field: str, **options: Any) -> MediaFile:
    buffer = io.BytesIO()
    try:
        save(buffer, **options)
    except Exception as err:  # any library's drawing
        msg = (
            f"{field} cannot be drawn as PNG: {err}. Save it to a file to see the "
            f"fault alone."
        )
        raise EventValueError(msg) from err
    return MediaFile("png", buffer.getvalue())


def _read_file(path: pathlib.Path, field: str) -> MediaFile:
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as err:  # ValueError: a NUL in the path
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
    channels = (1, 3, 4)
    first, last = (array.shape[0], array.shape[2]) if array.ndim == 3 else (1, 1)
    if first in channels and last not in channels:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    good = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in channels)
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
        _warn_of_range(array, 1.0, field)
        clipped = np.clip(np.nan_to_num(array, nan=0.0), 0.0, 1.0)
        pixels = np.rint(clipped * 255).astype(np.uint8)
    else:
        _warn_of_range(array, 255, field)
        pixels = np.clip(array, 0, 255).astype(np.uint8)
    pixels = np.ascontiguousarray(pixels)
    if pixels is value or pixels.base is not None:
        pixels = pixels.copy()
    pixels.flags.writeable = False
    return pixels


def _warn_of_range(array: Any, top: float, field: str) -> None:
    """Say that an image is cut off, which looks like a fault of the model."""
    finite = array[abs(array) != math.inf] if array.dtype.kind == "f" else array
    low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
    slack = _SLACK if array.dtype.kind == "f" else 0
    if low < -slack or high > top + slack:
        msg = (
            f"{field} has values from {low:g} to {high:g} and is cut off at 0 and "
            f"{top:g}. Scale floats to [0, 1], or pass integers in [0, 255]."
        )
        warn(msg, RunWarning)


def figure(value: object, field: str) -> object:
    """Render a figure, so that later changes to it change nothing here.

    Args:
        value: A matplotlib figure or axes (becomes PNG), a plotly figure (its
            JSON), or anything that `image` takes.
        field: For the error.

    Returns:
        A `MediaFile` or an array.

    Raises:
        EventValueError: If it is none of these.
    """
    if not hasattr(value, "savefig") and hasattr(value, "get_figure"):
        value = value.get_figure()  # axes, as seaborn returns them
    if hasattr(value, "savefig"):
        return _render(value.savefig, field, format="png", bbox_inches="tight")
    if hasattr(value, "to_plotly_json") and hasattr(value, "to_json"):
        return MediaFile("plotly", value.to_json().encode())
    return image(value, field)


def png(value: object) -> bytes:
    """Return the bytes of a PNG file for an array that passed the door.

    The format is written by hand, since core has no image library.

    Source:
        PNG specification, third edition (W3C, 2025), chapters 5 and 11.
    """
    import struct
    import zlib

    if isinstance(value, MediaFile):
        if value.format != "png":
            msg = f"A {value.format} file is no PNG. Use its bytes as they are."
            raise EventValueError(msg)
        return value.data
    numpy = sys.modules["numpy"]  # whoever has an array has NumPy
    array = numpy.asarray(value)
    height, width = array.shape[:2]
    channels = 1 if array.ndim == 2 else array.shape[2]
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
