"""Content Credentials (C2PA): a signed manifest in the file that says that a model made it.

By c2pa-python, with a certificate of the user's. Nothing is asked of the network: there is no time
stamp of an authority. A signature is another one each time, so files are no longer equal.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

from sdcore.errors import InputError, one_line
from sdcore.marks import TRAINED
from sdcore.paths import path_of
from sdcore.version import VERSION

Sign = Callable[[bytes, str, str], bytes]  # (file, its kind as image/png, digital source type)


def open_signer(cert: str, key: str) -> Sign:
    """What signs files with these, both PEM: the chain of certificates, the signer's first, and
    the private key, without a password.

    Raises InputError for what cannot be read or does not sign.
    """
    try:
        import c2pa  # pyright: ignore[reportMissingImports]
        from cryptography.hazmat.primitives import serialization  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "--c2pa-cert needs the package c2pa-python: pip install 'sdcore[c2pa]'"
        ) from None
    chain, secret = _bytes(cert), _bytes(key)
    try:
        algorithm = _algorithm(serialization.load_pem_private_key(secret, None))
    except (ValueError, TypeError) as error:
        raise InputError(f"{key} is no private key in PEM without a password: {error}") from None
    try:
        info = c2pa.C2paSignerInfo(algorithm, chain, secret, None)
        signer = c2pa.Signer.from_info(info)
    except (c2pa.C2paError, ValueError) as error:
        raise InputError(f"{cert} and {key} do not sign: {one_line(str(error))}") from None

    def sign(data: bytes, kind: str, source: str) -> bytes:
        signed = io.BytesIO()
        try:
            c2pa.Builder(_manifest(source)).sign(signer, kind, io.BytesIO(data), signed)
        except c2pa.C2paError as error:
            raise InputError(f"{cert} does not sign: {one_line(str(error))}") from None
        return signed.getvalue()

    from PIL import Image

    tried = io.BytesIO()
    Image.new("RGB", (8, 8)).save(tried, "PNG")
    sign(tried.getvalue(), "image/png", TRAINED)  # what is wrong with them is told before drawing
    return sign


def _manifest(source: str) -> str:
    action = {"action": "c2pa.created", "digitalSourceType": source}
    return json.dumps(
        {
            "claim_generator_info": [{"name": "sdcore", "version": VERSION}],
            "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
        }
    )


def _algorithm(key: Any) -> bytes:
    """What C2PA calls the algorithm that goes with a key. Raises ValueError."""
    curves = {"secp256r1": b"es256", "secp384r1": b"es384", "secp521r1": b"es512"}
    curve = getattr(getattr(key, "curve", None), "name", None)
    if curve in curves:
        return curves[curve]
    name = type(key).__name__.upper()
    for kind, algorithm in (("RSA", b"ps256"), ("ED25519", b"ed25519")):
        if kind in name:
            return algorithm
    raise ValueError("P-256, P-384, P-521, RSA and Ed25519 are those that sign")


def _bytes(path: str) -> bytes:
    try:
        return path_of(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
