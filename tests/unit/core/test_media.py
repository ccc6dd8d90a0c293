from __future__ import annotations

import io
import subprocess
import sys
import warnings

import numpy as np
import PIL.Image
import plotly.graph_objects as go
import pytest
from matplotlib.figure import Figure

from drytrack.core import _media
from drytrack.core._media import MediaFile
from drytrack.core.exceptions import EventValueError, RunWarning
from drytrack.core.log_events import FigureEvent, ImageEvent

HEIGHT, WIDTH = 5, 7


def publish(image: object) -> object:
    return ImageEvent.unpublished("s", "picture", 1, image).image


@pytest.mark.parametrize(
    ("shape", "kept"),
    [
        ((HEIGHT, WIDTH), (HEIGHT, WIDTH)),
        ((HEIGHT, WIDTH, 1), (HEIGHT, WIDTH)),
        ((HEIGHT, WIDTH, 3), (HEIGHT, WIDTH, 3)),
        ((HEIGHT, WIDTH, 4), (HEIGHT, WIDTH, 4)),
        ((1, HEIGHT, WIDTH), (HEIGHT, WIDTH)),
        ((3, HEIGHT, WIDTH), (HEIGHT, WIDTH, 3)),
        ((4, HEIGHT, WIDTH), (HEIGHT, WIDTH, 4)),
        ((3, 3, 3), (3, 3, 3)),
        ((1, 1), (1, 1)),
    ],
)
@pytest.mark.parametrize(
    "dtype", ["uint8", "int64", "float16", "float32", "float64", "bool"]
)
def test_every_layout_and_type_of_an_image_is_understood(shape, kept, dtype):
    pixels = np.random.default_rng(0).integers(0, 2, shape)
    top = 1 if dtype.startswith(("float", "bool")) else 255
    image = (pixels * top).astype(dtype)

    found = publish(image)

    assert (found.shape, found.dtype) == (kept, np.uint8)
    expected = pixels * 255
    if shape[0] in (1, 3, 4) and shape[-1] == WIDTH and len(shape) == 3:
        expected = np.moveaxis(expected, 0, -1)
    assert (found == expected.reshape(kept)).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros(5),
        np.zeros((5, 7, 2)),
        np.zeros((5, 7, 5)),
        np.zeros((2, 5, 7, 3)),
        np.zeros((0, 7)),
        np.zeros((5, 0, 3)),
        np.array(1.0),
        np.zeros((5, 7), dtype=complex),
        np.full((5, 7), "x"),
        np.zeros((5, 7), dtype="datetime64[s]"),
    ],
)
def test_an_array_that_is_no_image_is_refused_by_shape_and_type(image):
    with pytest.raises(EventValueError, match="image must have shape") as caught:
        publish(image)

    assert str(image.shape) in str(caught.value)
    assert str(image.dtype) in str(caught.value)


@pytest.mark.parametrize("image", [None, 3, [[0, 1]], {"a": 1}, object()])
def test_what_is_no_image_is_refused_by_type(image):
    with pytest.raises(
        EventValueError, match=f"got {type(image).__name__}. Pass an array"
    ):
        publish(image)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.array([[0.0, 255.0]]), "from 0 to 255 and is cut off at 0 and 1"),
        (np.array([[-1.0, 1.0]]), "from -1 to 1"),
        (np.array([[0, 256]]), "from 0 to 256 and is cut off at 0 and 255"),
        (np.array([[0, -1]], dtype=np.int8), "from -1 to 0"),
    ],
)
def test_an_image_out_of_range_is_cut_off_with_a_warning_at_the_users_line(image, said):
    with pytest.warns(RunWarning, match=said) as caught:
        found = publish(image)

    assert caught[0].filename == __file__
    assert found.min() >= 0


def test_an_image_a_little_out_of_range_or_not_finite_is_no_reason_to_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = publish(np.array([[-1e-7, 1 + 1e-7, np.nan, np.inf, -np.inf]]))

    assert found.tolist() == [[0, 255, 0, 255, 0]]


def test_a_published_image_does_not_change_with_the_array():
    for image in (
        np.zeros((5, 7, 3), np.uint8),
        np.zeros((3, 5, 7), np.uint8),
        np.zeros((5, 7)),
    ):
        found = publish(image)
        image[:] = 1

        assert found.max() == 0
        with pytest.raises(ValueError, match="read-only"):
            found[0, 0] = 1


@pytest.mark.torch
def test_tensors_are_images():
    import torch

    for image in (
        torch.ones(3, HEIGHT, WIDTH),
        torch.ones(3, HEIGHT, WIDTH, dtype=torch.bfloat16, requires_grad=True),
        torch.full((3, HEIGHT, WIDTH), 255, dtype=torch.uint8),
    ):
        found = publish(image)
        assert found.shape == (HEIGHT, WIDTH, 3)
        assert (found == 255).all()


def test_files_bytes_and_pil_images_are_images(tmp_path):
    picture = PIL.Image.fromarray(np.zeros((5, 7, 3), np.uint8))
    for kind in ("png", "jpeg", "gif", "webp", "bmp"):
        path = tmp_path / f"picture.{kind}"
        picture.save(path, format=kind)
        data = path.read_bytes()
        for given in (path, str(path), data, bytearray(data), memoryview(data)):
            assert publish(given) == MediaFile(kind, data)

    found = publish(picture)
    picture.putpixel((0, 0), (255, 0, 0))

    assert found.format == "png"
    assert PIL.Image.open(io.BytesIO(found.data)).getpixel((0, 0)) == (0, 0, 0)
    assert publish(b"<?xml?><svg></svg>").format == "svg"
    with pytest.raises(EventValueError, match="cannot be drawn as PNG"):
        publish(PIL.Image.new("F", (2, 2)).convert("F"))


@pytest.mark.parametrize("given", ["missing.png", "a\0b", ".", b"GARBAGE", b""])
def test_a_file_that_is_no_image_is_refused(given):
    with pytest.raises(EventValueError, match=r"image .*(cannot be read|is no PNG)"):
        publish(given)


def test_a_media_file_keeps_its_bytes_out_of_its_repr():
    event = ImageEvent.unpublished("s", "n", 1, MediaFile("png", b"x" * 10_000))

    assert len(repr(event)) < 300


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4), (1, 1)])
def test_an_array_becomes_a_png_that_others_read(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    data = _media.png(publish(image))

    with PIL.Image.open(io.BytesIO(data)) as read:
        assert (np.asarray(read) == image).all()


def test_a_png_file_is_handed_on_without_numpy():
    code = (
        "from drytrack.core import _media; import sys;"
        "assert _media.png(_media.MediaFile('png', b'data')) == b'data';"
        "assert 'numpy' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_format_is_not_passed_off_as_png():
    with pytest.raises(EventValueError, match="jpeg file is no PNG"):
        _media.png(MediaFile("jpeg", b""))


def test_a_matplotlib_figure_is_rendered_when_published():
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2])

    before = FigureEvent.unpublished("s", "n", 1, figure).figure
    of_axes = FigureEvent.unpublished("s", "n", 1, axes).figure
    axes.plot([2, 1])
    after = FigureEvent.unpublished("s", "n", 1, figure).figure

    assert before.format == "png"
    with PIL.Image.open(io.BytesIO(before.data)) as read:
        read.load()
    assert before.data == of_axes.data
    assert before.data != after.data


def test_a_figure_that_cannot_be_drawn_is_refused():
    figure = Figure()
    figure.suptitle("$\\nonsense{$")

    with pytest.raises(EventValueError, match="figure cannot be drawn"):
        FigureEvent.unpublished("s", "n", 1, figure)


def test_a_plotly_figure_becomes_its_json():
    figure = go.Figure(go.Scatter(y=[1, 2]))

    found = FigureEvent.unpublished("s", "n", 1, figure).figure
    figure.add_scatter(y=[3])

    assert found.format == "plotly"
    assert found.data.count(b'"scatter"') >= 1
    assert found.data != figure.to_json().encode()


def test_a_figure_may_be_an_image():
    assert FigureEvent.unpublished("s", "n", 1, np.zeros((5, 7))).figure.shape == (5, 7)
    with pytest.raises(EventValueError, match="figure must be an array"):
        FigureEvent.unpublished("s", "n", 1, None)
