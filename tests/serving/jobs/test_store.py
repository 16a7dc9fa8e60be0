"""The queue: whose turn it is, what is drawn together, and what a restart finds."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select, text

from valentina_pipeline.serving.api.auth import RateLimitError
from valentina_pipeline.serving.inference.input_images import Control, Inputs
from valentina_pipeline.serving.inference.request import ResolvedRequest, Settings
from valentina_pipeline.serving.jobs import database
from valentina_pipeline.serving.jobs.database import INPUT_IMAGES, UnavailableError, sqlite
from valentina_pipeline.serving.jobs.job import Image, Job
from valentina_pipeline.serving.jobs.store import MAX_LOST_SERVERS, JobStore, QueueFullError

SETTINGS = Settings(10, 4.0, 64, 64, "default", (("her", 1.0),))
ORDER = ResolvedRequest("a woman", "", (1,), "draft", SETTINGS)
OTHER = replace(ORDER, settings=replace(SETTINGS, steps=20))
WIDE = replace(ORDER, settings=replace(SETTINGS, width=128))


class Clock:
    """A second passes with each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("postgres")


@pytest.fixture
def jobs(url: str) -> Iterator[JobStore]:
    made = JobStore(url, most=8, clock=Clock())
    yield made
    made.close()


def one_by_one(jobs: JobStore) -> Iterator[Job]:
    while taken := jobs.take(lambda settings: 1):
        yield from taken


def draw(jobs: JobStore, taken: list[Job]) -> None:
    """Have what was taken drawn."""
    jobs.pictures([(job.id, Image(seed, "", "")) for job in taken for seed in job.order.seeds])
    jobs.turn([job.id for job in taken])


def state_of(jobs: JobStore, job: str) -> tuple[str, str]:
    found = jobs.get(job)
    assert found is not None
    return found.state, found.error


def test_an_order_comes_back_as_it_was(jobs: JobStore) -> None:
    order = replace(ORDER, prompt="a wöman", negative_prompt="blurry", seeds=(2**63 - 1, 5))
    job = jobs.add("ada", order)
    found = jobs.get(job.id)
    assert found == job
    assert found is not None
    assert found.order == order
    assert jobs.get("f" * 32) is None


def test_an_order_s_pictures_outlive_a_restart_and_not_the_job(url: str) -> None:
    inputs = Inputs("a" * 64, 0.5, "", (Control("canny", 0.8, True, "b" * 64),))
    order = replace(
        ORDER, settings=replace(SETTINGS, inputs=inputs), pictures={"a" * 64: b"1", "b" * 64: b"2"}
    )
    before = JobStore(url)
    job = before.add("ada", order).id
    before.add("ada", ORDER)
    before.close()
    after = JobStore(url)
    (taken,) = after.take(lambda settings: 8)  # the other one has other settings
    assert (taken.id, taken.order, taken.order.pictures) == (job, order, order.pictures)
    after.retry([job])  # its process died: it is tried again
    assert after.take(lambda settings: 8)[0].order.pictures == order.pictures
    after.end([job], "done")
    with create_engine(url).connect() as db:
        assert db.execute(select(INPUT_IMAGES)).all() == []
    after.close()


def test_owners_take_turns_and_each_one_s_jobs_are_in_order(jobs: JobStore) -> None:
    hers = [jobs.add("ada", ORDER).id for _ in range(3)]
    his = [jobs.add("bob", ORDER).id for _ in range(2)]
    in_turn = [hers[0], his[0], hers[1], his[1], hers[2]]
    assert [jobs.position(job) for job in in_turn] == [0, 1, 2, 3, 4]
    assert [job.id for job in one_by_one(jobs)] == in_turn
    assert jobs.position(hers[0]) is None


def test_who_was_served_last_waits_for_who_was_not(jobs: JobStore) -> None:
    jobs.add("ada", ORDER)
    jobs.take(lambda settings: 1)
    again, his = jobs.add("ada", ORDER), jobs.add("bob", ORDER)
    assert [job.id for job in one_by_one(jobs)] == [his.id, again.id]


def test_like_jobs_are_drawn_together_as_far_as_there_is_room(jobs: JobStore) -> None:
    first = jobs.add("ada", ORDER)
    jobs.add("ada", OTHER)
    three = jobs.add("ada", replace(ORDER, seeds=(1, 2, 3)))
    jobs.add("ada", replace(ORDER, seeds=(1, 2)))
    taken = jobs.take(lambda settings: 4)
    assert [job.id for job in taken] == [first.id, three.id]
    assert [len(batch) for batch in iter(lambda: jobs.take(lambda settings: 4), [])] == [1, 1]


def test_a_large_job_has_a_batch_a_turn_and_the_others_have_theirs_between(jobs: JobStore) -> None:
    large = jobs.add("ada", replace(ORDER, seeds=tuple(range(9)))).id
    batches = []
    for _ in range(2):
        batches.append(jobs.take(lambda settings: 4))
        small = [jobs.add(owner, order).id for owner, order in (("ada", OTHER), ("bob", WIDE))]
        draw(jobs, batches[-1])
        for _ in small:
            (between,) = jobs.take(lambda settings: 4)
            assert between.id in small
            draw(jobs, [between])
    batches.append(jobs.take(lambda settings: 4))
    draw(jobs, batches[-1])
    assert [job.order.seeds for batch in batches for job in batch] == [(0, 1, 2, 3), (4, 5, 6, 7), (8,)]
    found = jobs.get(large)
    assert found is not None
    assert (found.state, len(found.images), found.num_images) == ("done", 9, 9)


def test_a_full_queue_takes_no_more(jobs: JobStore) -> None:
    for _ in range(8):
        jobs.add("ada", ORDER)
    with pytest.raises(QueueFullError):
        jobs.add("ada", ORDER)
    jobs.take(lambda settings: 1)
    jobs.add("ada", ORDER)
    assert jobs.waiting() == 8


def test_a_job_that_its_process_died_of_is_drawn_alone_and_twice_at_most(jobs: JobStore) -> None:
    bad, good, waits = jobs.add("ada", ORDER).id, jobs.add("ada", ORDER).id, jobs.add("ada", OTHER).id
    assert [job.id for job in jobs.take(lambda settings: 8)] == [bad, good]
    assert jobs.retry([bad, good]) == 0
    (again,) = jobs.take(lambda settings: 8)
    assert (again.id, again.attempts) == (bad, 1)
    assert jobs.retry([bad]) == 1
    assert state_of(jobs, bad) == ("failed", "its worker process crashed twice")
    assert [job.id for job in one_by_one(jobs)] == [good, waits]


def test_servers_that_are_gone_are_seldom_a_job_s_doing(url: str) -> None:
    first = JobStore(url)
    job = first.add("ada", ORDER).id
    for start in range(1, MAX_LOST_SERVERS + 1):
        assert [each.id for each in first.take(lambda settings: 8)] == [job]
        first.close()
        first = JobStore(url, alone=True)
        assert (state_of(first, job)[0] == "failed") == (start == MAX_LOST_SERVERS)
    first.close()


def test_an_end_in_order_and_a_full_disk_are_no_tries(jobs: JobStore) -> None:
    job = jobs.add("ada", ORDER)
    for _ in range(3):
        (taken,) = jobs.take(lambda settings: 8)
        jobs.release()
    assert (taken.id, taken.attempts) == (job.id, 0)


def test_what_one_server_draws_is_not_another_s_while_it_lives(url: str) -> None:
    clock = Clock()
    one, two = JobStore(url, clock=clock, lease=100), JobStore(url, clock=clock, lease=100)
    job = one.add("ada", replace(ORDER, seeds=(1, 2))).id
    one.take(lambda settings: 8)
    two.release()
    assert two.reclaim() == 0
    assert not two.take(lambda settings: 8)
    clock.now += 60
    assert one.renew() == {job}
    clock.now += 60
    two.reclaim()
    assert not two.take(lambda settings: 8)
    clock.now += 100  # it is gone, or stands still
    two.reclaim()
    (taken,) = two.take(lambda settings: 8)
    assert (taken.id, taken.attempts, one.renew()) == (job, 1, set())
    one.pictures([(job, Image(1, "late.png", ""))])
    assert (one.turn([job]), one.end([job], "failed", "late"), one.retry([job])) == (0, 0, 0)
    draw(two, [taken])
    assert state_of(one, job) == ("done", "")
    one.close()
    two.close()


def test_servers_that_take_at_once_take_each_job_once(url: str) -> None:
    servers = [JobStore(url) for _ in range(4)]
    jobs = [
        servers[0].add("ada", replace(ORDER, settings=replace(SETTINGS, steps=n))).id for n in range(1, 41)
    ]
    with ThreadPoolExecutor(len(servers)) as pool:
        taken = [job.id for found in pool.map(lambda each: list(one_by_one(each)), servers) for job in found]
    assert sorted(taken) == sorted(jobs)
    for each in servers:
        each.close()


def test_a_quota_and_a_full_queue_hold_where_many_ask_at_once(url: str) -> None:
    servers = [JobStore(url, most=6) for _ in range(2)]

    def ask(number: int) -> str:
        try:
            servers[number % 2].add("ada" if number < 20 else "bob", ORDER, 4 if number < 20 else None)
        except (RateLimitError, QueueFullError) as err:
            return type(err).__name__
        return "accepted"

    with ThreadPoolExecutor(10) as pool:
        hers, his = list(pool.map(ask, range(20))), list(pool.map(ask, range(20, 40)))
    assert (hers.count("accepted"), hers.count("RateLimitError")) == (4, 16)
    assert (his.count("accepted"), his.count("QueueFullError")) == (2, 18)
    servers[0].take(lambda settings: 1)  # there is room again
    with pytest.raises(RateLimitError, match="4 of this key's 4 images per day are used"):
        servers[0].add("ada", ORDER, 4)
    for each in servers:
        each.close()


def test_a_job_ends_once(jobs: JobStore) -> None:
    job = jobs.add("ada", ORDER)
    assert jobs.end([job.id], "cancelled") == 1
    assert jobs.end([job.id], "done") == 0
    assert not jobs.take(lambda settings: 8)
    found = jobs.get(job.id)
    assert found is not None
    assert found.state == "cancelled"


def test_images_are_kept_with_their_job_and_forgotten_with_it(jobs: JobStore) -> None:
    job = jobs.add("ada", replace(ORDER, seeds=(1, 2)))
    jobs.pictures([(job.id, Image(1, "one.png", "")), (job.id, Image(2, "", "exposed"))])
    jobs.pictures([(job.id, Image(1, "again.png", ""))])  # by a second try
    found = jobs.get(job.id)
    assert found is not None
    assert found.images == (Image(2, "", "exposed"), Image(1, "again.png", ""))
    jobs.end([job.id], "done")
    assert jobs.forget(1000) == []
    assert jobs.forget(0) == list(found.images)
    assert jobs.get(job.id) is None


def test_images_of_a_day_are_counted_by_owner(url: str) -> None:
    clock = Clock()
    jobs = JobStore(url, clock=clock)
    jobs.add("ada", replace(ORDER, seeds=(1, 2)), 3)
    jobs.add("bob", ORDER, 1)
    with pytest.raises(RateLimitError, match="2 of this key's 3 images per day are used"):
        jobs.add("ada", replace(ORDER, seeds=(1, 2)), 3)
    clock.now += 24 * 3600
    jobs.add("ada", replace(ORDER, seeds=(1, 2)), 3)
    jobs.close()


def test_a_broken_row_costs_one_row(url: str) -> None:
    jobs = JobStore(url)
    broken = {}
    for column, value in {
        "request_json": "{",
        "images": '[{"seed": 1}]',
        "state": "lost",
    }.items():
        broken[jobs.add("ada", ORDER).id] = (column, value)
    whole = jobs.add("ada", ORDER).id
    with create_engine(url).begin() as db:
        for job, (column, value) in broken.items():
            db.execute(
                text(f"UPDATE jobs SET {column} = :value WHERE id = :job"), {"value": value, "job": job}
            )
    assert [job.id for job in jobs.of("ada", 50)] == [whole]
    assert [jobs.get(job) for job in broken] == [None] * 3
    assert [job.id for job in one_by_one(jobs)] == [whole]
    jobs.end([whole], "done")
    jobs.forget(-10)
    assert jobs.of("ada", 50) == []
    with create_engine(url).connect() as db:
        left = db.execute(text("SELECT state FROM jobs")).all()
    assert [row.state for row in left] == ["lost"]
    jobs.close()


def test_a_queue_of_another_version_is_refused_untouched(tmp_path: Path) -> None:
    JobStore(sqlite(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as db:
        db.execute("ALTER TABLE jobs RENAME COLUMN attempts TO tries")
        db.execute("DROP TABLE input_images")
    with pytest.raises(UnavailableError, match=r"differs in attempts, tries\): .* another --state-dir"):
        JobStore(sqlite(tmp_path))
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as db:
        assert [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")] == [
            "jobs"
        ]


def test_threads_of_one_server_wait_for_each_other_however_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_SECONDS", 0)
    jobs = JobStore(sqlite(tmp_path))
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: jobs.add("ada", ORDER), range(64)))
    assert jobs.waiting() == 64
    jobs.close()


def test_a_locked_database_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCK_SECONDS", 0)
    jobs = JobStore(sqlite(tmp_path))
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            UnavailableError, match="another program holds its lock: stop that program, or wait"
        ):
            jobs.add("ada", ORDER)
    assert state_of(jobs, jobs.add("ada", ORDER).id) == ("queued", "")
    jobs.close()


def test_a_broken_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(UnavailableError, match="its file is damaged: stop the server, move the file away"):
        JobStore(sqlite(tmp_path))


def test_a_database_that_is_gone_says_so_without_what_was_to_be_stored(url: str) -> None:
    jobs = JobStore(url)
    with create_engine(url).begin() as db:
        db.execute(text("DROP TABLE jobs"))
    with pytest.raises(UnavailableError) as err:
        jobs.add("ada", replace(ORDER, prompt="a secret"))
    told: BaseException | None = err.value
    while told is not None:
        assert "a secret" not in str(told)
        told = told.__cause__
    jobs.close()
