"""Content Credentials: what a signed file says, read by c2pa-python's own reader."""

import datetime
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdcore.errors import InputError
from sdcore.images import read_settings
from sdcore.marks import COMPOSITE, TRAINED, read
from sdcore.signing import open_signer
from tests.cli.shell import Shell, pixels


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A root that nobody trusts, a signer below it, and the signer's key."""
    pytest.importorskip("c2pa")
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(words: str) -> Any:
        oids = (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME)
        return x509.Name([x509.NameAttribute(oid, words) for oid in oids])

    def certificate(subject: str, key: Any, signer: Any, root: bool) -> bytes:
        begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        made = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("root"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(root, None), critical=True)
            .add_extension(
                x509.KeyUsage(True, False, False, False, False, root, root, False, False),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
            )
        )
        if not root:
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            made = made.add_extension(usage, False)
        signed = made.sign(signer, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    folder = tmp_path_factory.mktemp("credentials")
    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = certificate("signer", own, root, False) + certificate("root", root, root, True)
    secret = own.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "chain.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(secret)
    return str(folder / "chain.pem"), str(folder / "key.pem")


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_a_file_is_signed(shell: Shell, credentials: tuple[str, str], format: str) -> None:
    from c2pa import Reader

    cert, key = credentials
    signing = ("--c2pa-cert", cert, "--c2pa-key", key, "--format", format)
    Image.new("RGB", (32, 32), "blue").save("photo.png")
    for image, source in ((), TRAINED), (("--image", "photo.png"), COMPOSITE):
        plain = shell.sample("red", "--seed", 1, *image, "--format", format).paths[0]
        path = shell.sample("red", "--seed", 1, *image, *signing).paths[0]
        report = json.loads(Reader(f"image/{format}", io.BytesIO(path.read_bytes())).json())
        codes = [each["code"] for each in report["validation_status"]]
        assert codes == ["signingCredential.untrusted"]
        (manifest,) = report["manifests"].values()
        assert manifest["claim_generator_info"][0]["name"] == "sdcore"
        (actions,) = (a for a in manifest["assertions"] if a["label"].startswith("c2pa.actions"))
        (action,) = actions["data"]["actions"]
        assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", source)
        # All else is as without.
        assert pixels(path) == pixels(plain)
        assert read_settings(path) == read_settings(plain)
        with Image.open(path) as picture:
            assert read(picture.info["xmp"])["DigitalSourceType"] == source


def test_what_does_not_sign(shell: Shell, credentials: tuple[str, str], tmp_path: Path) -> None:
    cert, key = credentials
    wrong = str(tmp_path / "wrong.pem")
    Path(wrong).write_text("no certificate")
    for args, message in (
        (("--c2pa-cert", cert), "go together: give both"),
        (("--c2pa-cert", cert, "--c2pa-key", "none.pem"), "cannot read none.pem"),
        (("--c2pa-cert", cert, "--c2pa-key", wrong), "is no private key in PEM"),
        (("--c2pa-cert", wrong, "--c2pa-key", key), "sign"),
    ):
        result = shell.sample("red", "--seed", 1, *args)
        assert (result.status, result.paths) == (2, [])
        assert message in result.err
        assert result.err.count("\n") == 1
        assert not Path("out").exists()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(InputError, match=r"pip install 'sdcore\[c2pa\]'"):
        open_signer("a.pem", "b.pem")
