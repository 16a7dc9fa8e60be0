import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from packages import stage
from portraits import RIGHTS, noise
from valentina_pipeline.image.ingest.result_cache import CachedImage, ResultCache

FACTS = {"sha256": "ab" * 32, "width": 3}


def test_what_was_kept_and_what_was_refused_is_known_again(tmp_path: Path) -> None:
    journal = ResultCache(tmp_path)
    kept = journal.keep("one", FACTS, b"content")
    journal.reject("two", "too small", "3 x 3")
    journal.close()

    again = ResultCache(tmp_path)
    assert again.get("one") == kept == CachedImage(FACTS, tmp_path / "ab" / f"{'ab' * 32}.png")
    assert kept.path.read_bytes() == b"content"
    assert again.get("two") == ("too small", "3 x 3")
    assert again.get("three") is None


def test_a_file_that_was_changed_or_has_gone_is_not_known(tmp_path: Path) -> None:
    journal = ResultCache(tmp_path)
    journal.keep("one", FACTS, b"content").path.write_bytes(b"other content")
    assert journal.get("one") is None
    journal.keep("one", FACTS, b"content").path.unlink()
    assert journal.get("one") is None


def test_a_copy_of_a_picture_leaves_what_is_known_of_it_alone(tmp_path: Path) -> None:
    journal = ResultCache(tmp_path)
    first = journal.keep("one", FACTS, b"content")
    assert journal.keep("two", FACTS, b"content") == first == journal.get("one") == journal.get("two")


def test_without_a_key_a_picture_is_kept_and_not_remembered(tmp_path: Path) -> None:
    journal = ResultCache(tmp_path)
    assert journal.keep("", FACTS, b"content").path.is_file()
    journal.reject("", "too small", "3 x 3")
    assert journal.get("") is None


def test_what_is_not_used_any_more_is_forgotten_with_its_file(tmp_path: Path) -> None:
    journal = ResultCache(tmp_path)
    other = {"sha256": "cd" * 32}
    first, second = journal.keep("one", FACTS, b"1"), journal.keep("two", other, b"2")
    (tmp_path / "cd" / "torn.partial").write_bytes(b"")
    journal.forget_all_but(["two"], [other["sha256"]])
    assert journal.get("one") is None and not first.path.exists()
    assert journal.get("two") == second
    assert not (tmp_path / "cd" / "torn.partial").exists()


def test_a_table_that_is_none_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "outcomes.sqlite").write_bytes(b"no database" * 100)
    journal = ResultCache(tmp_path)
    journal.reject("two", "too small", "3 x 3")
    assert journal.get("two") == ("too small", "3 x 3")


RUN = """
import json
import sys
from contextlib import closing
from datetime import date
from functools import partial
from pathlib import Path
from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.domain.rights import RightsRecord
from valentina_pipeline.common.parallel import parallel_map
from valentina_pipeline.image.ingest.ingest import ingest
from valentina_pipeline.image.ingest.screening import ScreeningContext
from valentina_pipeline.image.ingest.source_image import SourceImage
from valentina_pipeline.image.ingest.result_cache import ResultCache
from valentina_pipeline.image.safety.content_filter import ContentFilter
from valentina_pipeline.integrations.sources import LocalFolder

if __name__ == "__main__":
    root = Path(sys.argv[1])
    place = LocalFolder(root / "in")
    originals = [SourceImage(e.name, partial(place.read, e, 10**7), {}, e.version) for e in place.entries()]
    limits, rights = IngestConfig(**json.loads(sys.argv[2])), RightsRecord(**json.loads(sys.argv[3]))
    judged = []
    def counted(work, items):
        return parallel_map(work, (judged.append(item) or item for item in items), workers=2)
    with closing(ResultCache(root / "journal")) as journal:
        intake = ScreeningContext(limits, (rights,), date(2024, 6, 7), ContentFilter().unsafe)
        images, _, _ = ingest(originals, intake, journal, counted)
        print(len(judged), *sorted(images), flush=True)
"""


@pytest.mark.slow
def test_an_ingest_that_is_killed_at_any_moment_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for seed in range(60):
        noise(seed, 128, 128).save(tmp_path / "in" / f"{seed:03d}.png")
    (tmp_path / "run.py").write_text(RUN)
    limits = json.dumps({**stage("ingest"), "min_side": 64, "min_sharpness": 0})
    given = [str(tmp_path), limits, RIGHTS[0].model_dump_json()]
    command = [sys.executable, "-u", str(tmp_path / "run.py"), *given]
    files = 0
    for wanted in (5, 20, 35):  # pictures in the journal's folder when the whole group is killed
        running = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        while running.poll() is None and files < wanted:
            time.sleep(0.02)
            files = len(list((tmp_path / "journal").glob("??/*.png")))
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    last = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert 0 < int(last[0]) <= 60 - 35 + 1  # a picture may have its file and not yet its row
    shutil.rmtree(tmp_path / "journal")
    whole = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(whole[0]) == 60 and whole[1:] == last[1:] and len(last) > 50
    again = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(again[0]) == 0 and again[1:] == last[1:]
