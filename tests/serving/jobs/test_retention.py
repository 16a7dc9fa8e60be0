from pathlib import Path

import pytest

from valentina_pipeline.serving.inference.request import ResolvedRequest, Settings
from valentina_pipeline.serving.jobs import retention
from valentina_pipeline.serving.jobs.database import sqlite
from valentina_pipeline.serving.jobs.image_store import ImageStore
from valentina_pipeline.serving.jobs.job import Image
from valentina_pipeline.serving.jobs.store import JobStore

SETTINGS = Settings(10, 4.0, 64, 64, "default", ())
ORDER = ResolvedRequest("a woman", "", (1, 2), "draft", SETTINGS)


def test_a_job_and_its_images_are_kept_for_a_day_after_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"now": 0.0}
    jobs, images = JobStore(sqlite(tmp_path), clock=lambda: times["now"]), ImageStore(tmp_path)
    images.keep("one.png", b"one")
    job = jobs.add("ada", ORDER).id
    jobs.pictures([(job, Image(1, "one.png", "")), (job, Image(2, "", "exposed"))])
    jobs.end([job], "done")
    monkeypatch.setattr(retention, "CHECK_INTERVAL_SECONDS", 0.0)
    kept = retention.Retention(jobs, images)
    for hours, there in ((23, True), (25, False)):
        times["now"] = hours * 3600.0
        kept.delete_old_jobs()
        assert (jobs.get(job) is not None, images.path("one.png").exists()) == (there, there)
    jobs.close()


def test_old_jobs_are_not_looked_for_between_all_batches(tmp_path: Path) -> None:
    times = {"now": 0.0}
    jobs = JobStore(sqlite(tmp_path), clock=lambda: times["now"])
    kept = retention.Retention(jobs, ImageStore(tmp_path))
    kept.delete_old_jobs()
    job = jobs.add("ada", ORDER).id
    jobs.end([job], "done")
    times["now"] = 2 * retention.RETENTION_SECONDS
    kept.delete_old_jobs()
    assert jobs.get(job) is not None
    jobs.close()
