"""The desk: what it does where processes die, disks are full and servers are killed."""

import errno
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import drawing
from valentina_pipeline.common import atomic_files
from valentina_pipeline.serving.inference.request import ResolvedRequest, Settings
from valentina_pipeline.serving.jobs import worker, worker_process
from valentina_pipeline.serving.jobs.database import UnavailableError, sqlite
from valentina_pipeline.serving.jobs.dispatcher import Dispatcher
from valentina_pipeline.serving.jobs.store import JobStore
from valentina_pipeline.serving.jobs.worker import Batch
from waiting import until

pytestmark = pytest.mark.slow

SETTINGS = Settings(10, 4.0, 64, 64, "default", (("her", 1.0),))
ORDER = ResolvedRequest("a woman", "", (1,), "draft", SETTINGS)


@contextmanager
def at_work(package: Path, state: Path) -> Iterator[Dispatcher]:
    jobs = JobStore(sqlite(state))
    desk = drawing.desk(jobs, package, state)
    desk.start()
    try:
        yield desk
    finally:
        desk.stop()
        jobs.close()


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "work", drawing.work)


def state_of(jobs: JobStore, job: str) -> tuple[str, int, int]:
    found = jobs.get(job)
    assert found is not None
    return found.state, found.attempts, len(found.images)


def test_two_servers_of_one_postgres_draw_each_job_once_though_they_are_killed(
    package: Path, postgres: str, tmp_path: Path
) -> None:
    jobs = JobStore(postgres)
    accepted = {}
    for number in range(48):
        order = replace(ORDER, seeds=(1, 2, 3), settings=replace(SETTINGS, steps=1 + number % 7))
        accepted[jobs.add(f"owner {number % 3}", order).id] = order
    command = [sys.executable, drawing.__file__, postgres, str(tmp_path), str(package)]
    servers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    drawn = tmp_path / "drawn"
    held: set[str] = set()
    try:
        for images in (20, 70):  # then one of them is killed, and another takes its place
            until(lambda images=images: drawn.exists() and len(drawn.read_text().splitlines()) > images)  # type: ignore[misc]
            killed = servers.pop(0)
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            held |= {job for job in accepted if state_of(jobs, job)[0] == "running"}
            servers.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        until(lambda: all(state_of(jobs, job)[0] == "done" for job in accepted))
    finally:
        for server in servers:
            server.kill()
            server.wait()
    times = Counter(tuple(line.split()) for line in drawn.read_text().splitlines())
    assert set(times) == {(job, str(seed)) for job, order in accepted.items() for seed in order.seeds}
    again = {job for (job, _), count in times.items() if count > 1}
    assert again <= held
    assert max(times.values()) <= 3
    for job in accepted:
        assert state_of(jobs, job)[2] == 3
        assert state_of(jobs, job)[1] == 0 or job in held
    jobs.close()


def test_a_full_disk_is_waited_for_and_costs_no_job_a_try(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = True
    replaced = atomic_files.replace

    def refuse(path: Path, content: bytes) -> None:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        replaced(path, content)

    monkeypatch.setattr(atomic_files, "replace", refuse)
    with at_work(package, tmp_path) as desk:
        job = desk.submit("ada", replace(ORDER, seeds=tuple(range(12)))).id
        until(lambda: desk.trouble != "")
        said = r"images cannot be written \(no space left on device\): free disk space on the server"
        with pytest.raises(UnavailableError, match=said) as err:
            desk.submit("ada", ORDER)
        assert str(tmp_path) not in str(err.value)
        assert state_of(desk.jobs, job) == ("queued", 0, 0)
        pid = desk._process.pid if desk._process else None
        full = False
        until(lambda: state_of(desk.jobs, job) == ("done", 0, 12))
        assert desk._process is not None
        assert (desk.trouble, desk._process.pid) == ("", pid)


def test_what_a_process_dies_of_fails_and_what_was_drawn_beside_it_does_not(
    package: Path, tmp_path: Path
) -> None:
    with at_work(package, tmp_path) as desk:
        others = [desk.jobs.add("ada", ORDER).id for _ in range(2)]
        bad = desk.jobs.add("bob", replace(ORDER, prompt="die")).id
        others += [desk.jobs.add("eve", ORDER).id for _ in range(2)]
        until(lambda: state_of(desk.jobs, bad)[0] == "failed")
        until(lambda: all(state_of(desk.jobs, job)[0] == "done" for job in others))


def test_what_another_server_cancels_ends_here(package: Path, tmp_path: Path) -> None:
    with at_work(package, tmp_path) as desk:
        desk.jobs.lease = 0.5
        job = desk.submit("ada", replace(ORDER, seeds=tuple(range(64)))).id
        until(lambda: state_of(desk.jobs, job)[2] > 0)
        elsewhere = JobStore(sqlite(tmp_path))
        assert elsewhere.end([job], "cancelled") == 1
        elsewhere.close()
        other = desk.submit("ada", ORDER).id
        until(lambda: state_of(desk.jobs, other)[0] == "done")
        assert state_of(desk.jobs, job)[0] == "cancelled"
        assert state_of(desk.jobs, job)[2] < 64


@pytest.mark.parametrize(
    ("err", "waits", "fails"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/tmp/secret"),
            "free disk space on the server",
            "",
        ),
        (ValueError("the LoRA does not fit"), "", "ValueError: the LoRA does not fit"),
    ],
)
def test_a_disk_that_is_full_while_drawing_is_no_fault_of_the_batch(
    monkeypatch: pytest.MonkeyPatch, err: Exception, waits: str, fails: str
) -> None:
    def draw(*_: Any) -> None:
        raise err

    monkeypatch.setattr(worker, "_generate", draw)
    over = worker._run_batch(None, None, None, Batch({}))  # type: ignore[arg-type]
    assert over.error == fails
    assert (waits in over.waits) and bool(waits) == bool(over.waits)
    assert "secret" not in over.waits
