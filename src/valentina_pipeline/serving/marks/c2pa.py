"""Content Credentials: sign each file with a C2PA manifest that says that a model made it.

A self-signed key proves that the file is unchanged since signing, but not who signed it.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.common import atomic_files
from valentina_pipeline.image.io import png
from valentina_pipeline.image.io.png_chunks import SIGNATURE
from valentina_pipeline.image.provenance.metadata import SOURCE_TYPE, source_type

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from PIL.Image import Image

KEY, CHAIN = "c2pa-key.pem", "c2pa-chain.pem"
VALID_YEARS = 10
OWN = "Valentina Pipeline, self-signed: nobody vouches for it"
GENERATOR = "Valentina Pipeline"
PNG = "image/png"

SETTINGS = {
    "core": {"allowed_network_hosts": [], "allow_redirects": False, "decode_identity_assertions": False},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}
"""Settings of the C2PA library, whose default is to request URLs that a file names."""

MADE_WITH = ("lora_sha256", "base_sha256", "image_sha256", "mask_sha256")
"""PNG texts that are copied into the manifest."""


class InvalidCredentialsError(ValueError):
    """The key or its certificates cannot be used; the message has the reason."""


@dataclass(frozen=True)
class Manifest:
    """Content of a file's manifest.

    Attributes:
        source_type: IPTC's term for the origin of the file, "" if absent.
        signer: the common name in the signer's certificate.
        intact: True where file and manifest are unchanged since signing.
        trusted: True where the certificate chain ends at one that this machine trusts.
        lora_sha256: hash of the LoRA that made the image, "" if absent.
        serial: serial number of the signer's certificate, in decimal digits.
        state: the library's conclusion: "Trusted", "Valid" (but not trusted) or "Invalid".
    """

    source_type: str
    signer: str
    intact: bool
    trusted: bool
    lora_sha256: str
    serial: str
    state: str

    @property
    def generated(self) -> bool:
        """True where the manifest says that a trained model made the file."""
        return self.source_type == SOURCE_TYPE


class Signer:
    """Signs PNG files with the key of a folder, which is created if missing.

    Args:
        folder: holds c2pa-key.pem (PKCS 8, P-256) and c2pa-chain.pem (the signer's certificate first).

    Raises:
        InvalidCredentialsError: the files exist and cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        import c2pa

        if not (folder / KEY).is_file():
            # of several starting processes only one creates the key
            with atomic_files.lock_folder(atomic_files.private(folder)):
                if not (folder / KEY).is_file():
                    _create_key(folder)
        info = c2pa.C2paSignerInfo(
            alg=c2pa.C2paSigningAlg.ES256,
            sign_cert=(folder / CHAIN).read_bytes(),
            private_key=(folder / KEY).read_bytes(),
            ta_url=None,
        )
        try:
            self._signer = c2pa.Signer.from_info(info)
        except c2pa.C2paError as err:
            raise InvalidCredentialsError(f"{folder}: {KEY} and {CHAIN} cannot sign: {err}") from err

    def encode(self, image: "Image") -> bytes:
        """Return a generated image as a PNG file with its texts and a manifest.

        Raises:
            InvalidCredentialsError: the library refuses the key or the file.
        """
        import c2pa

        texts = image.info["text"]
        actions, ingredients = _history(texts)
        manifest = {
            "claim_generator_info": [{"name": GENERATOR}],
            "ingredients": ingredients,
            "assertions": [
                {"label": "c2pa.actions.v2", "data": {"actions": actions}},
                {
                    "label": "org.valentina-pipeline.made-with",
                    "data": {name: texts[name] for name in MADE_WITH if name in texts},
                },
            ],
        }
        target = io.BytesIO()
        try:
            with c2pa.Builder(json.dumps(manifest), _context()) as builder:
                builder.sign(self._signer, PNG, io.BytesIO(png.encode(image)), target)
        except c2pa.C2paError as err:
            raise InvalidCredentialsError(f"the file could not be signed: {err}") from err
        return target.getvalue()


def _history(texts: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the C2PA actions and ingredients of an image from its PNG texts.

    An image made from an initial image was opened and edited; the initial image is the ingredient, named by
    its sha256.
    """
    source = {"digitalSourceType": source_type(texts)}
    initial_image = texts.get("image_sha256")
    if not initial_image:
        return [{"action": "c2pa.created", **source}], []
    ingredient = {
        "title": "the picture that it began from",
        "format": PNG,
        "relationship": "parentOf",
        "instance_id": f"sha256:{initial_image}",
        "label": "began-from",
    }
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["began-from"]}}
    return [opened, {"action": "c2pa.edited", **source}], [ingredient]


def read_chain(folder: Path) -> bytes:
    """Return the certificates of a signing folder, or b"" before the first `Signer`."""
    file = folder / CHAIN
    return file.read_bytes() if file.is_file() else b""


def is_own(content: bytes, chain: bytes) -> bool:
    """Return True where a PNG file is unchanged since it was signed with this installation's key.

    The signature must be valid, its certificates must lead to our issuer, and the serial number must be that
    of our certificate: of one issuer it stands for one certificate (RFC 5280), so for one public key.

    Args:
        content: the file.
        chain: see `read_chain`; b"" makes no file an own one.
    """
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import load_pem_x509_certificates

    if not chain or not content.startswith(SIGNATURE):
        return False
    own, *issuers = load_pem_x509_certificates(chain)
    manifest = read(content, anchors=b"".join(issuer.public_bytes(Encoding.PEM) for issuer in issuers))
    if manifest is None:
        return False
    return manifest.intact and manifest.state == "Trusted" and manifest.serial == str(own.serial_number)


def read(content: bytes, kind: str = PNG, anchors: bytes = b"") -> Manifest | None:
    """Return a file's manifest, or None where it has no readable one.

    A remote manifest at a URL that the file names is not requested.

    Args:
        content: the file.
        kind: its media type.
        anchors: PEM certificates whose issued ones are trusted; none by default.
    """
    import c2pa

    try:
        with c2pa.Reader(kind, io.BytesIO(content), context=_context(anchors)) as reader:
            return _parse_manifest(json.loads(reader.json()))
    except (c2pa.C2paError, LookupError, TypeError, AttributeError):
        return None  # no manifest, or one of another structure


@lru_cache(maxsize=2)
def _context(anchors: bytes = b"") -> Any:
    """Return a library context without network access."""
    import c2pa

    trust = {"trust": {"user_anchors": anchors.decode()}} if anchors else {}
    return c2pa.Context.from_dict({**SETTINGS, **trust})


def _parse_manifest(store: Any) -> Manifest:
    manifest = store["manifests"][store["active_manifest"]]
    assertions = {item["label"]: item["data"] for item in manifest.get("assertions", [])}
    actions: list[Any] = next(
        (data["actions"] for name, data in assertions.items() if "c2pa.actions" in name), []
    )
    problems = {status["code"] for status in store.get("validation_status", [])}
    return Manifest(
        source_type=next(
            (str(action["digitalSourceType"]) for action in actions if "digitalSourceType" in action), ""
        ),
        signer=str(manifest.get("signature_info", {}).get("common_name", "")),
        intact=not problems - {"signingCredential.untrusted"},
        trusted="signingCredential.untrusted" not in problems,
        lora_sha256=str(assertions.get("org.valentina-pipeline.made-with", {}).get("lora_sha256", "")),
        serial=str(manifest.get("signature_info", {}).get("cert_serial_number", "")),
        state=str(store.get("validation_state", "")),
    )


def _create_key(folder: Path) -> None:
    """Write a key and two certificates: C2PA requires a signer's certificate that another one signed."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    root_key, signer_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _certificate("Valentina Pipeline, self-signed root", root_key.public_key(), None, root_key)
    chain = [_certificate(OWN, signer_key.public_key(), issuer, root_key), issuer]
    pem = serialization.Encoding.PEM
    key = signer_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    atomic_files.replace(folder / CHAIN, b"".join(certificate.public_bytes(pem) for certificate in chain))
    atomic_files.replace(folder / KEY, key, 0o600)


def _certificate(name: str, public: Any, issuer: "Certificate | None", key: Any) -> "Certificate":
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now, authority = datetime.now(UTC), issuer is None
    usage = {
        "digital_signature": not authority, "key_cert_sign": authority, "crl_sign": authority,
        "content_commitment": False, "key_encipherment": False, "data_encipherment": False,
        "key_agreement": False, "encipher_only": False, "decipher_only": False,
    }  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * VALID_YEARS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    if not authority:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
    return builder.sign(key, hashes.SHA256())
