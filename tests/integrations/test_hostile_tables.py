"""Ledgers, captions and sidecars that a broken program or a hurried person wrote."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from valentina_pipeline.domain.rights import InvalidLedgerError
from valentina_pipeline.integrations import captions, ledgers
from valentina_pipeline.integrations.captions import InvalidCaptionsError
from valentina_pipeline.integrations.sources.folder import LocalFolder
from valentina_pipeline.pipelines.ingest.source_images import SIDECAR, InvalidAttributesError, _attributes

LEDGER = b"""- id: ada-2026
  holder: Ada Studio Ltd
  covers: "shoot/*"
  uses: [training, generation]
  license: CC-BY-4.0
  synthetic: false
  expires: 2030-01-31
  evidence: contract of 2026-05-01
"""
LEDGER_CSV = b"""id,holder,covers,uses,license,synthetic,expires,evidence
ada-2026,Ada Studio Ltd,shoot/*,training generation,CC-BY-4.0,false,2030-01-31,contract
bob-2026,Bob,*,training,CC0-1.0,true,,letter
"""
CAPTIONS = (
    "sha256,source_name,machine,human,verdict,editor,edited,seen\n" + f"{'a' * 64},a.png,photo of,,,,,\n"
).encode()
SIDECAR_TEXT = b'{"a.png": {"expression": "smiling", "place": "on a beach"}, "b.png": {}}'
ODD = "\0|'|\"|[|{|}|&a [*a]|!!python/object:os.system|: |- |,|,,,,,,,,|\r|\n\n|\t|9999-99-99|2030-02-30"
PUT_IN = [b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", *(odd.encode() for odd in ODD.split("|"))]

EVERY = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """A good file with a few places changed, or any bytes, or something nested deeply."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200) | st.sampled_from([b"[" * 5000, b'{"a":' * 5000]))
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        match draw(st.sampled_from(["insert", "odd", "cut", "repeat"])):
            case "insert":
                content[place:place] = draw(st.binary(min_size=1, max_size=5))
            case "odd":
                content[place:place] = draw(st.sampled_from(PUT_IN))
            case "cut":
                del content[place : place + draw(st.integers(1, 60))]
            case "repeat":
                content[place:place] = content[place : place + draw(st.integers(1, 200))]
    return bytes(content)


@EVERY
@given(damaged(LEDGER))
@example(b"- id: 1\n  expires: 2030-02-30\n")
@example(b"- {id: ada-2026, ? [a]: b}")
def test_of_a_damaged_ledger_come_records_or_what_is_wrong(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "ledger.yml"
    file.write_bytes(content)
    with suppress(InvalidLedgerError):
        ledgers.read_file(file)


@EVERY
@given(damaged(LEDGER_CSV))
def test_of_a_damaged_table_of_rights_too(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "ledger.csv"
    file.write_bytes(content)
    with suppress(InvalidLedgerError):
        ledgers.read_file(file)


@EVERY
@given(damaged(CAPTIONS))
@example(b"")
@example(b"sha256,machine,human\na,b\nc,d,e,f,g\n")
@example(b"sha256,machine,human\n\xff,b,c\n")
def test_of_damaged_captions_comes_a_table_or_what_is_wrong(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "captions.csv"
    file.write_bytes(content)
    with suppress(InvalidCaptionsError):
        table = captions.read(file)
        assert list(table.columns) == list(captions.COLUMNS)
        assert table["sha256"].is_unique


@EVERY
@given(damaged(SIDECAR_TEXT))
def test_of_a_damaged_sidecar_come_words_or_what_is_wrong(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SIDECAR).write_bytes(content)
    place = LocalFolder(tmp_path)
    with suppress(InvalidAttributesError):
        json.dumps(_attributes(place, place.entries()))


@pytest.mark.parametrize("content", [b"", b"\0", b"\xff\xff,\xff\n", b'sha256,machine,human\n"a,b,c\n'])
def test_what_is_wrong_with_captions_names_the_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "captions.csv"
    file.write_bytes(content)
    with pytest.raises(InvalidCaptionsError, match=r"captions\.csv"):
        captions.read(file)
