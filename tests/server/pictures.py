"""Pictures as requests and answers carry them."""

import base64
import io

from PIL import Image

from sdcore.images import KEY
from sdcore.settings import Settings


def png_of(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def coded(picture: Image.Image) -> str:
    """The same in base64."""
    return base64.b64encode(png_of(picture)).decode()


def opened(text: str) -> Image.Image:
    """The picture of a text in base64."""
    return Image.open(io.BytesIO(base64.b64decode(text)))


def settings_in(text: str) -> Settings:
    """The settings that such a picture holds."""
    return Settings.from_json(opened(text).text[KEY])  # type: ignore
