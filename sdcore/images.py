"""Tensors and pictures, and the settings that a picture carries inside its PNG."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import torch
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from sdcore.a1111 import parameters
from sdcore.errors import InputError
from sdcore.settings import Settings

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


def save_png(picture: Image.Image, path: Path, settings: Settings | None = None) -> None:
    """Write `picture` whole or not at all, with its settings inside.

    Raises InputError when the file cannot be written.
    """
    info = PngImagePlugin.PngInfo()
    if settings is not None:
        info.add_text("parameters", parameters(settings))
        info.add_text(KEY, settings.to_json())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info)
    write_whole(path, buffer.getvalue())


def open_picture(source: str | Path | Image.Image) -> Image.Image:
    """A picture with all its pixels read. Raises InputError for a file that holds none."""
    if isinstance(source, Image.Image):
        return source
    path = Path(source).expanduser()
    try:
        with Image.open(path) as picture:
            # Text may also stand behind the pixels: load() reads the file to its end.
            picture.load()
            return picture
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except UnidentifiedImageError:
        raise InputError(f"{path} is no picture") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def read_settings(path: Path) -> Settings:
    """The settings inside a PNG that sdcore wrote. Raises InputError when there are none."""
    text = getattr(open_picture(path), "text", {}).get(KEY)
    if text is None:
        raise InputError(f"{path} holds no sdcore settings")
    try:
        return Settings.from_json(text)
    except InputError as error:
        raise InputError(f"{path} cannot be drawn again: {error}") from None


def write_whole(path: Path, data: bytes) -> None:
    """Write beside `path`, then rename: whoever looks sees the old file or the whole new one.

    Raises InputError when that is not possible; nothing is left behind then.
    """
    try:
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # mkstemp makes files that only their owner may read; give it what umask says.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(beside, 0o666 & ~mask)
        os.replace(beside, path)
    except OSError as error:
        Path(beside).unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
