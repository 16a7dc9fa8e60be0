import shutil
import time
import unicodedata
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from valentina_pipeline.domain import clock
from valentina_pipeline.domain.rights import (
    InvalidLedgerError,
    NotAllowedError,
    RightsRecord,
    find_unused_records,
    require_permission,
)
from valentina_pipeline.integrations import ledgers

TODAY = date(2024, 6, 7)
LEDGER = """# her shoot of May
- id: shoot # signed on paper
  holder: Jane Doe
  covers: "shoot_*"
  uses: [training, generation]
  license: CC-BY-4.0
  synthetic: false
  expires: 2030-01-31
  evidence: contract of 2024-05-01
  evidence_sha256: {paper}
- id: view
  holder: Jane Doe
  covers: "*"
  uses: [publication]
  license: CC-BY-4.0
  synthetic: false
  evidence: the same
""".format(paper="ab" * 32)

TABLE = """id,holder,covers,uses,license,synthetic,expires,evidence
scans,Acme,scan_*,training generation,CC0-1.0,TRUE,,letter
old,Acme,old_*,training,CC0-1.0,false,2020-12-31,letter
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A concept's two ledgers."""
    (tmp_path / "her").mkdir()
    (tmp_path / "her/a.yml").write_text(LEDGER)
    (tmp_path / "her/b.csv").write_text(TABLE)
    return tmp_path / "her"


def test_records_of_both_kinds_of_ledger_are_read(folder: Path) -> None:
    shoot, view, scans, old = ledgers.read(folder)
    assert (shoot.id, shoot.uses, shoot.expires) == ("shoot", ("training", "generation"), date(2030, 1, 31))
    assert shoot.evidence_sha256 == "ab" * 32 and view.expires is None
    assert (scans.uses, scans.synthetic, old.synthetic) == (("training", "generation"), True, False)
    assert shoot.digest() != view.digest() == view.model_copy().digest()


@pytest.mark.parametrize(
    ("name", "use", "today", "reason", "detail"),
    [
        ("old_1.png", "training", TODAY, "rights expired", "record old ended on 2020-12-31"),
        ("shoot_1.png", "training", date(2030, 2, 1), "rights expired", "record shoot ended on 2030-01-31"),
        ("other.png", "training", TODAY, "rights for another purpose", "record view allows publication"),
    ],
)
def test_what_stands_in_the_way_is_said(
    folder: Path, name: str, use: Any, today: date, reason: str, detail: str
) -> None:
    with pytest.raises(NotAllowedError, match=detail) as caught:
        require_permission(ledgers.read(folder), name, use, today)
    assert caught.value.reason == reason


def test_the_last_day_counts_and_a_second_record_stands_in(folder: Path) -> None:
    rights = ledgers.read(folder)
    assert require_permission(rights, "shoot_1.png", "training", date(2030, 1, 31)).id == "shoot"
    assert require_permission(rights, "shoot_1.png", "publication", TODAY).id == "view"
    with pytest.raises(NotAllowedError, match="no rights record"):
        require_permission(rights[:1], "other.png", "training", TODAY)


@pytest.mark.parametrize(("record", "file"), [("shoot", "a.yml"), ("scans", "b.csv")])
def test_a_revoked_record_wins_over_any_other_and_its_ledger_says_why(
    folder: Path, record: str, file: str
) -> None:
    use: Any
    assert ledgers.revoke(folder.parent, record, "she asked for it", TODAY).files == (folder / file,)
    rights = {each.id: each for each in ledgers.read(folder)}
    assert (rights[record].revoked, rights[record].revocation) == (TODAY, "she asked for it")
    for use in ("training", "publication"):  # which the record `view` allows of every picture
        with pytest.raises(NotAllowedError, match=r"was revoked on 2024-06-07: she asked for it"):
            require_permission(ledgers.read(folder), rights[record].covers.replace("*", "1.png"), use, TODAY)
    again = ledgers.revoke(folder.parent, record, "again", date(2025, 1, 1))
    assert (again.reason, again.files, again.before) == ("she asked for it", (), True)


def test_a_record_of_two_concepts_is_revoked_in_both_and_what_cannot_be_read_is_said_last(
    folder: Path,
) -> None:
    other = folder.parent / "other"
    shutil.copytree(folder, other)
    (folder.parent / "third").mkdir()
    (folder.parent / "third/c.yml").write_text("- [")
    with pytest.raises(InvalidLedgerError, match=r"third/c\.yml is not valid YAML.*run `kedro revoke` again"):
        ledgers.revoke(folder.parent, "shoot", "why", TODAY)
    for each in (folder, other):
        assert ledgers.read(each)[0].revoked == TODAY
    (folder.parent / "third/c.yml").unlink()
    assert ledgers.revoke(folder.parent, "shoot", "later", TODAY).reason == "why"
    with pytest.raises(InvalidLedgerError, match="record 'nobody' not found"):
        ledgers.revoke(folder.parent, "nobody", "why", TODAY)


def test_revoking_keeps_comments_and_all_other_lines(folder: Path) -> None:
    before = LEDGER.splitlines()
    ledgers.revoke(folder.parent, "shoot", "why", TODAY)
    after = (folder / "a.yml").read_text().splitlines()
    assert [line for line in after if line not in before] == ["  revoked: 2024-06-07", "  revocation: why"]
    assert [line for line in before if line not in after] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {id: a}", "holder"),
        ("- {id: a, licence: MIT}", "licence renamed to license"),
        (LEDGER.replace("uses: [publication]", "uses: [selling]"), "record 'view': uses"),
        (LEDGER.replace("id: view", "id: shoot"), "id"),
        (LEDGER.replace("holder: Jane Doe", "owner: Jane Doe"), "owner"),
        (LEDGER.replace("ab" * 32, "ab"), "evidence_sha256"),
        ("a: b", "must be a list of records"),
        ("- [", "is not valid YAML"),
        (LEDGER.replace("  license", "  expires: 2040-01-01\n  license", 1), "duplicate key 'expires'"),
        (LEDGER.replace('"shoot_*"', '"pattern:"'), "contains no name or pattern"),
    ],
)
def test_a_ledger_that_is_none_is_an_error_that_says_what_is_wrong(
    folder: Path, text: str, said: str
) -> None:
    (folder / "a.yml").write_text(text)
    with pytest.raises(InvalidLedgerError, match=said) as caught:
        ledgers.read(folder)
    assert "a.yml" in str(caught.value)


def test_two_ledgers_with_one_id_and_a_missing_folder_are_errors(folder: Path) -> None:
    (folder / "c.csv").write_text(TABLE)
    with pytest.raises(InvalidLedgerError, match=r"c\.csv and .*b\.csv both contain a record 'scans'"):
        ledgers.read(folder)
    with pytest.raises(InvalidLedgerError, match="is missing: create it with one"):
        ledgers.read(folder / "nothing")


ABOUT = {
    "id": "a", "holder": "b", "covers": "*", "uses": ("training",), "license": "c", "synthetic": True,
    "evidence": "d",
}  # fmt: skip
REVOKED = {"revoked": TODAY, "revocation": "asked"}


def record(covers: str, **more: Any) -> RightsRecord:
    return RightsRecord.model_validate({**ABOUT, "covers": covers, **more})


def test_a_revocation_has_a_day_and_a_reason() -> None:
    with pytest.raises(ValueError, match="or neither"):
        record("*", revoked=TODAY)


@pytest.mark.parametrize(
    ("name", "covers"),
    [
        ("IMG [2].png", "IMG [2].png"),
        (unicodedata.normalize("NFD", "Zoë 01.png"), "Zoë*"),
        ("IMG_1.JPG", "IMG_1.jpg"),
        ("cdn.example/ada/x.png", "https://cdn.example/ada/../ada/x.png"),
    ],
)
def test_a_prohibition_holds_in_doubt_where_another_record_allows_all(name: str, covers: str) -> None:
    with pytest.raises(NotAllowedError, match="rights revoked"):
        require_permission((record("*"), record(covers, id="one", **REVOKED)), name, "training", TODAY)


def test_a_permission_in_doubt_is_none_and_says_which_record_is_close() -> None:
    with pytest.raises(NotAllowedError, match=r"record a covers 'IMG_1\.jpg', which is spelled differently"):
        require_permission((record("IMG_1.jpg"),), "IMG_1.JPG", "training", TODAY)


def test_records_that_cover_no_picture_are_found_but_for_deleted_ones() -> None:
    gone = record("b.png", id="gone", deleted=TODAY, **REVOKED)
    rights = (record("a*"), record("A.PNG", id="close"), record("b.png", id="typo", **REVOKED), gone)
    assert [each.id for each in find_unused_records(rights, ["a.png", "c.png"])] == ["close", "typo"]
    assert gone.digest() == gone.model_copy(update={"deleted": None}).digest()


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"])
def test_a_day_ends_at_midnight_in_utc_whatever_the_machines_zone(
    zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        before = datetime.now(UTC).date()
        assert before <= clock.today() <= datetime.now(UTC).date()
    finally:
        monkeypatch.undo()
        time.tzset()
