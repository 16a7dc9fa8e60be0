"""Content Credentials: who reads the file finds that a model made it, and whether it was changed since."""

import io
import json
import stat
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import c2pa
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from PIL import Image

from valentina_pipeline.image.io import png
from valentina_pipeline.image.provenance.metadata import EDITED_TYPE, SOURCE_TYPE, add_provenance
from valentina_pipeline.serving.marks.c2pa import (
    CHAIN,
    KEY,
    OWN,
    InvalidCredentialsError,
    Signer,
    is_own,
    read,
    read_chain,
)

MADE_WITH = {"lora_sha256": "a" * 64, "base_sha256": "b" * 64}
PICTURE = add_provenance(Image.effect_noise((64, 64), 50).convert("RGB"), {"seed": 1, **MADE_WITH})


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("keys"))


def test_a_signed_file_says_that_a_model_made_it_and_with_what(signer: Signer) -> None:
    signed = signer.encode(PICTURE)
    found = read(signed)
    assert found is not None
    assert (found.generated, found.intact, found.trusted) == (True, True, False)
    assert (found.signer, found.lora_sha256) == (OWN, "a" * 64)
    assert png.decode(signed).info["text"]["seed"] == "1"
    assert png.decode(signed).tobytes() == PICTURE.tobytes()


def test_a_file_that_was_changed_after_signing_is_found_out(signer: Signer) -> None:
    signed = bytearray(signer.encode(PICTURE))
    place = signed.index(b"IDAT") + 50
    signed[place] ^= 1
    found = read(bytes(signed))
    assert found is not None
    assert not found.intact


@pytest.mark.parametrize("content", [png.encode(PICTURE), b"", b"\x89PNG\r\n\x1a\nrubbish"])
def test_a_file_without_a_manifest_says_nothing(content: bytes) -> None:
    assert read(content) is None


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    Signer(tmp_path)
    key = (tmp_path / KEY).read_bytes()
    Signer(tmp_path)
    assert (tmp_path / KEY).read_bytes() == key
    assert stat.S_IMODE((tmp_path / KEY).stat().st_mode) == 0o600


def test_of_several_that_start_at_once_one_makes_the_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as threads:
        signers = list(threads.map(Signer, [tmp_path / "new"] * 6))
    key = load_pem_private_key((tmp_path / "new" / KEY).read_bytes(), None).public_key()
    (first, _) = load_pem_x509_certificates((tmp_path / "new" / CHAIN).read_bytes())
    assert first.public_key() == key
    assert all(found.intact for signer in signers if (found := read(signer.encode(PICTURE))))
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_an_image_that_began_from_a_picture_is_not_said_to_be_created_here(signer: Signer) -> None:
    given = "c" * 64
    signed = signer.encode(add_provenance(PICTURE, {"image_sha256": given, "strength": 0.5}))
    found = read(signed)
    assert found is not None
    assert (found.source_type, found.generated, found.intact) == (EDITED_TYPE, False, True)
    with c2pa.Reader("image/png", io.BytesIO(signed)) as reader:
        manifest = reader.get_active_manifest()
    (ingredient,) = manifest["ingredients"]
    assert (ingredient["relationship"], ingredient["instance_id"]) == ("parentOf", f"sha256:{given}")
    said = {each["label"]: each["data"] for each in manifest["assertions"]}
    opened, edited = said["c2pa.actions.v2"]["actions"]
    assert (opened["action"], edited["action"]) == ("c2pa.opened", "c2pa.edited")
    assert len(opened["parameters"]["ingredients"]) == 1
    assert said["org.valentina-pipeline.made-with"]["image_sha256"] == given
    assert SOURCE_TYPE not in png.decode(signed).info["text"][png.XMP_KEY]


def test_a_file_is_our_own_by_our_key_and_unchanged_alone(tmp_path: Path) -> None:
    signed = {name: Signer(tmp_path / name).encode(PICTURE) for name in ("ours", "theirs")}
    ours, theirs = (read_chain(tmp_path / name) for name in signed)
    assert is_own(signed["ours"], ours) and is_own(signed["theirs"], theirs)
    assert not is_own(signed["theirs"], ours) and not is_own(signed["ours"], theirs)
    assert not is_own(signed["ours"], b"") and read_chain(tmp_path / "nowhere") == b""
    for place in (signed["ours"].index(b"IDAT") + 50, signed["ours"].index(b"a" * 64), len(ours)):
        changed = bytearray(signed["ours"])
        changed[place] ^= 1
        assert not is_own(bytes(changed), ours)
    end = signed["ours"].index(b"IEND") - 4
    more = b"\0\0\0\3tEXta\0b" + zlib.crc32(b"tEXta\0b").to_bytes(4, "big")
    for other in (png.encode(PICTURE), b"", signed["ours"][:end] + more + signed["ours"][end:]):
        assert not is_own(other, ours)


def test_a_stranger_with_our_names_and_our_serial_number_is_not_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Signer(tmp_path / "ours")
    own, root = load_pem_x509_certificates(read_chain(tmp_path / "ours"))
    numbers = iter([root.serial_number, own.serial_number])  # the issuer is made first
    monkeypatch.setattr("cryptography.x509.random_serial_number", lambda: next(numbers))
    forged = Signer(tmp_path / "theirs").encode(PICTURE)
    found = read(forged)
    assert found is not None and found.intact
    assert (found.signer, found.serial) == (OWN, str(own.serial_number))
    assert is_own(forged, read_chain(tmp_path / "theirs"))
    assert not is_own(forged, read_chain(tmp_path / "ours"))


def test_our_picture_in_a_stranger_s_file_is_not_our_own(tmp_path: Path) -> None:
    ours, theirs = (Signer(tmp_path / name) for name in ("ours", "theirs"))
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["ours"]}}
    manifest = {
        "claim_generator_info": [{"name": "another"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [opened]}}],
    }
    signed, target = ours.encode(PICTURE), io.BytesIO()
    with c2pa.Builder(json.dumps(manifest)) as builder:
        builder.add_ingredient(
            json.dumps({"relationship": "parentOf", "label": "ours"}), "image/png", io.BytesIO(signed)
        )
        builder.sign(theirs._signer, "image/png", io.BytesIO(png.encode(PICTURE)), target)
    found = read(target.getvalue())
    assert found is not None and found.signer == OWN
    assert not is_own(target.getvalue(), read_chain(tmp_path / "ours"))


def test_a_key_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / KEY).write_text("no key")
    (tmp_path / CHAIN).write_text("no certificates")
    with pytest.raises(InvalidCredentialsError, match=KEY):
        Signer(tmp_path).encode(PICTURE)
