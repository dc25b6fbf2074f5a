"""Tensors and pictures, and the settings that a picture carries inside its PNG."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from sdcore.a1111 import parameters
from sdcore.errors import InputError
from sdcore.paths import path_of
from sdcore.settings import Settings
from sdcore.writing import write_whole

# What is opened: Pillow knows others that start a program on the file (PostScript) or fetch.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 1 << 26  # of a picture that is opened: 8192 x 8192
KEY = "sdcore"  # the PNG text chunk with the full settings as JSON


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
    """The file that holds `picture`, with its settings inside.

    whole: all of them; else only `parameters`, which names no folder and no file's digest.
    """
    info = PngImagePlugin.PngInfo()
    if settings is not None:
        info.add_text("parameters", parameters(settings))
        if whole:
            info.add_text(KEY, settings.to_json())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def open_picture(
    source: str | Path | Image.Image, formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """A picture with all its pixels read.

    formats: those that are looked for, in Pillow's names.

    Raises InputError for a file that is none of them, and for more than `MAX_PIXELS`.
    """
    if isinstance(source, Image.Image):
        return source
    path = path_of(source)
    if not path.is_file():
        raise InputError(f"{path} is {'no file' if path.exists() else 'missing'}")
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


def texts_of(path: Path) -> dict[str, str]:
    """The texts that a picture carries, by name: those of a PNG; `parameters` of a JPEG or WebP.

    A1111 writes the latter as the Exif UserComment. Raises InputError for what is no picture.
    """
    picture = open_picture(path)
    texts = {k: str(v) for k, v in getattr(picture, "text", {}).items()}
    comment = picture.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if isinstance(comment, bytes) and "parameters" not in texts:
        code, words = comment[:8].rstrip(b"\0"), comment[8:]
        kind = "utf-16-be" if code == b"UNICODE" else "utf-8"
        texts["parameters"] = words.decode(kind, "replace")
    return texts


def read_settings(path: Path) -> Settings:
    """The settings inside a PNG that sdcore wrote. Raises InputError when there are none."""
    text = getattr(open_picture(path, ("PNG",)), "text", {}).get(KEY)
    if text is None:
        raise InputError(f"{path} holds no sdcore settings")
    try:
        return Settings.from_json(text)
    except InputError as error:
        raise InputError(f"{path} cannot be drawn again: {error}") from None
