"""Tensors and pictures, and the settings that a picture carries inside its file."""

from __future__ import annotations

import io
import math
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from sdcore.a1111 import parameters
from sdcore.errors import InputError
from sdcore.marks import KEY, TRAINED, carried, packet, source_type
from sdcore.marks import read as read_packet
from sdcore.paths import file_of
from sdcore.picture_form import Form
from sdcore.settings import Settings
from sdcore.writing import write_whole

# What is opened: Pillow knows others that start a program on the file (PostScript) or fetch.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 1 << 26  # of a picture that is opened: 8192 x 8192
WRITTEN = ("PNG", "JPEG", "WEBP")  # what is written, and may hold settings


def to_pictures(images: Tensor) -> list[Image.Image]:
    """[B, 3, H, W] in [-1, 1] (clamped) to RGB pictures of H x W pixels."""
    scaled = (images.detach().float() / 2 + 0.5).clamp(0, 1) * 255
    pixels = scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(p) for p in pixels]


def to_tensor(picture: Image.Image) -> Tensor:
    """A picture to [1, 3, H, W] in [-1, 1], float32."""
    rgb = picture.convert("RGB")
    raw = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
    return (raw.view(1, rgb.height, rgb.width, 3).permute(0, 3, 1, 2) / 127.5 - 1).contiguous()


def save_png(
    picture: Image.Image, path: Path, settings: Settings | None = None, whole: bool = True
) -> None:
    """Write `picture` whole or not at all, with its settings inside, as `to_png` takes them.

    Raises InputError when the file cannot be written.
    """
    write_whole(path, to_png(picture, settings, whole))


def to_png(picture: Image.Image, settings: Settings | None = None, whole: bool = True) -> bytes:
    """The PNG that holds `picture`, with its settings inside."""
    return to_bytes(picture, settings, Form(whole=whole))


def to_bytes(
    picture: Image.Image, settings: Settings | None = None, form: Form | None = None
) -> bytes:
    """The file that holds `picture`, with its settings inside.

    A PNG holds them as two texts, `parameters` and `sdcore`; JPEG and WebP hold the first as the
    Exif UserComment, as A1111 does, and the second in the XMP packet. settings: None for a sheet.

    Raises InputError where they are too long for the format.
    """
    form = Form() if form is None else form
    buffer = io.BytesIO()
    picture.save(buffer, form.format.upper(), **_inside(settings, form))
    if form.sign is None:
        return buffer.getvalue()
    source = TRAINED if settings is None else source_type(settings)
    return form.sign(buffer.getvalue(), f"image/{form.format}", source)


def check_form(settings: Settings, form: Form) -> None:
    """Raises InputError where these settings are too long for the format: a JPEG has room for 64
    KiB of each kind."""
    _inside(settings, form)


def _inside(settings: Settings | None, form: Form) -> dict[str, Any]:
    """What `Image.save` takes: everything that is not pixels."""
    whole = settings.to_json() if settings is not None and form.whole else None
    if form.format == "png":
        info = PngImagePlugin.PngInfo()
        if settings is not None:
            info.add_text("parameters", parameters(settings))
            if whole is not None:
                info.add_text(KEY, whole)
        if xmp := packet(settings, form.mark):
            info.add_itxt("XML:com.adobe.xmp", xmp)
        return {"pnginfo": info}
    quality = 95 if form.quality is None else form.quality
    inside: dict[str, Any] = {"quality": quality}
    if form.format == "jpeg":
        inside["subsampling"] = 0  # colours are kept as sharp as brightness
    else:
        inside["lossless"] = quality == 100
    if settings is not None:
        exif = Image.Exif()
        exif.endian = ">"  # as A1111 writes it, and as UTF-16 is read by it
        comment = b"UNICODE\0" + parameters(settings).encode("utf-16-be", "replace")
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
        inside["exif"] = exif.tobytes()
    if xmp := packet(settings, form.mark, whole):
        inside["xmp"] = xmp.encode()
    if form.format == "jpeg":
        for name, most in (("exif", 65_533), ("xmp", 65_504)):
            if len(inside.get(name, b"")) > most:
                raise InputError(
                    f"the settings are {len(inside[name]):,} bytes and a JPEG has room for "
                    f"{most:,}: take another --format, or shorter prompts"
                )
    return inside


def open_picture(
    source: str | Path | Image.Image, formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """A picture with all its pixels read.

    formats: those that are looked for, in Pillow's names.

    Raises InputError for a file that is none of them, for more than `MAX_PIXELS`, and for what is
    neither a path nor a picture.
    """
    if isinstance(source, Image.Image):
        return source
    if not isinstance(source, str | PathLike):
        raise InputError(
            f"a picture is a path or a PIL.Image, and no {type(source).__name__}: "
            "PIL.Image.fromarray makes one of an array"
        )
    path = file_of(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # garbled tags; bombs: MAX_PIXELS is lower
            picture = Image.open(path, formats=formats)
        with picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise InputError(
                    f"{path} has {picture.width}x{picture.height} pixels: "
                    f"at most {MAX_PIXELS:,} are opened"
                )
            # Text may also stand behind the pixels: load() reads the file to its end.
            picture.load()
            return picture
    except UnidentifiedImageError:
        raise InputError(f"{path} is no picture ({', '.join(formats)})") from None
    except InputError:
        raise
    except Exception as error:  # on a garbled file Pillow's readers raise whatever they stumble on
        raise InputError(f"{path} cannot be read: {error or type(error).__name__}") from None


def texts_of(path: Path | Image.Image) -> dict[str, str]:
    """The texts that a picture carries, by name: `parameters` and `sdcore` of all three formats,
    and whatever else a PNG holds.

    Raises InputError for what is no picture.
    """
    return _texts_in(open_picture(path))


def _texts_in(picture: Image.Image) -> dict[str, str]:
    texts = {k: str(v) for k, v in getattr(picture, "text", {}).items()}
    if "parameters" not in texts and (comment := _user_comment(picture)) is not None:
        code, words = comment[:8].rstrip(b"\0"), comment[8:]
        kind = "utf-16-be" if code == b"UNICODE" else "utf-8"
        texts["parameters"] = words.decode(kind, "replace")
    if KEY not in texts and (whole := read_packet(picture.info.get("xmp", b"")).get(KEY)):
        texts[KEY] = whole
    return texts


def _user_comment(picture: Image.Image) -> bytes | None:
    try:
        ifd = picture.getexif().get_ifd(ExifTags.IFD.Exif)
    except Exception:  # on garbled tags Pillow raises whatever it stumbles on: they say nothing
        return None
    comment = ifd.get(ExifTags.Base.UserComment)
    return comment if isinstance(comment, bytes) else None


def marks_of(picture: Image.Image) -> tuple[str, ...]:
    """What a picture says of its origin, as `Settings.image_marks` holds it."""
    return carried(_texts_in(picture), picture.info.get("xmp"))


def read_settings(path: Path) -> Settings:
    """The settings inside a picture that sdcore wrote. Raises InputError when there are none."""
    text = _texts_in(open_picture(path, WRITTEN)).get(KEY)
    if text is None:
        raise InputError(f"{path} holds no sdcore settings")
    try:
        return Settings.from_json(text)
    except InputError as error:
        raise InputError(f"{path} cannot be drawn again: {error}") from None


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio of two images in [-1, 1], in dB; infinite for the same."""
    mean = ((a.double() - b.double()) / 2).square().mean().item()
    return math.inf if mean == 0 else -10 * math.log10(mean)
