"""The queue: whose turn it is, what is drawn together, and what a restart finds."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select

from valentina_pipeline.serving.jobs import PICTURES, Full, Image, Job, Jobs, sqlite
from valentina_pipeline.serving.studio.pictures import Control, Inputs
from valentina_pipeline.serving.studio.request import Order, Settings

SETTINGS = Settings(10, 4.0, 64, 64, "base", (("her", 1.0),))
ORDER = Order("a woman", "", (1,), "draft", SETTINGS)
OTHER = replace(ORDER, settings=replace(SETTINGS, steps=20))


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
def jobs(url: str) -> Iterator[Jobs]:
    made = Jobs(url, most=8, clock=Clock())
    yield made
    made.close()


def one_by_one(jobs: Jobs) -> Iterator[Job]:
    while taken := jobs.take(lambda settings: 1):
        yield from taken


def test_an_order_comes_back_as_it_was(jobs: Jobs) -> None:
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
    before = Jobs(url)
    job = before.add("ada", order).id
    before.add("ada", ORDER)
    before.close()
    after = Jobs(url)
    (taken,) = after.take(lambda settings: 8)  # the other one has other settings
    assert (taken.id, taken.order, taken.order.pictures) == (job, order, order.pictures)
    after.requeue()  # its process died: it is tried again
    assert after.take(lambda settings: 8)[0].order.pictures == order.pictures
    after.end([job], "done")
    with create_engine(url).connect() as db:
        assert db.execute(select(PICTURES)).all() == []
    after.close()


def test_owners_take_turns_and_each_one_s_jobs_are_in_order(jobs: Jobs) -> None:
    hers = [jobs.add("ada", ORDER).id for _ in range(3)]
    his = [jobs.add("bob", ORDER).id for _ in range(2)]
    in_turn = [hers[0], his[0], hers[1], his[1], hers[2]]
    assert [jobs.position(job) for job in in_turn] == [0, 1, 2, 3, 4]
    assert [job.id for job in one_by_one(jobs)] == in_turn
    assert jobs.position(hers[0]) is None


def test_who_was_served_last_waits_for_who_was_not(jobs: Jobs) -> None:
    jobs.add("ada", ORDER)
    jobs.take(lambda settings: 1)
    again, his = jobs.add("ada", ORDER), jobs.add("bob", ORDER)
    assert [job.id for job in one_by_one(jobs)] == [his.id, again.id]


def test_like_jobs_are_drawn_together_as_far_as_there_is_room(jobs: Jobs) -> None:
    first = jobs.add("ada", ORDER)
    jobs.add("ada", OTHER)
    three = jobs.add("ada", replace(ORDER, seeds=(1, 2, 3)))
    jobs.add("ada", replace(ORDER, seeds=(1, 2)))
    taken = jobs.take(lambda settings: 4)
    assert [job.id for job in taken] == [first.id, three.id]
    assert [len(batch) for batch in iter(lambda: jobs.take(lambda settings: 4), [])] == [1, 1]
    large = jobs.add("ada", replace(ORDER, seeds=tuple(range(9))))  # more than there is room for: alone
    assert [job.id for job in jobs.take(lambda settings: 4)] == [large.id]


def test_a_full_queue_takes_no_more(jobs: Jobs) -> None:
    for _ in range(8):
        jobs.add("ada", ORDER)
    with pytest.raises(Full):
        jobs.add("ada", ORDER)
    jobs.take(lambda settings: 1)
    jobs.add("ada", ORDER)
    assert jobs.waiting() == 8


def test_what_was_being_drawn_is_drawn_first_after_a_restart_and_twice_at_most(url: str) -> None:
    before = Jobs(url)
    begun, waits = before.add("ada", ORDER), before.add("ada", OTHER)
    before.take(lambda settings: 8)
    before.close()
    after = Jobs(url)
    (again,) = after.take(lambda settings: 8)
    assert (again.id, again.tries) == (begun.id, 2)
    assert after.requeue() == [begun.id]
    ended = after.get(begun.id)
    assert ended is not None
    assert (ended.state, ended.error) == ("failed", "the process that drew it died twice")
    assert [job.id for job in one_by_one(after)] == [waits.id]
    after.close()


def test_an_orderly_end_is_no_try(jobs: Jobs) -> None:
    job = jobs.add("ada", ORDER)
    for _ in range(3):
        (taken,) = jobs.take(lambda settings: 8)
        jobs.release()
    assert (taken.id, taken.tries) == (job.id, 1)
    assert jobs.requeue() == []


def test_a_job_ends_once(jobs: Jobs) -> None:
    job = jobs.add("ada", ORDER)
    assert jobs.end([job.id], "cancelled") == 1
    assert jobs.end([job.id], "done") == 0
    assert not jobs.take(lambda settings: 8)
    found = jobs.get(job.id)
    assert found is not None
    assert found.state == "cancelled"


def test_images_are_kept_with_their_job_and_forgotten_with_it(jobs: Jobs) -> None:
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


def test_images_are_counted_by_owner_and_time(jobs: Jobs) -> None:
    jobs.add("ada", replace(ORDER, seeds=(1, 2)))
    jobs.add("bob", ORDER)
    jobs.add("ada", ORDER)
    assert jobs.images_since("ada", 1000) == 3
    assert jobs.images_since("ada", 3) == 1
    assert jobs.images_since("eve", 1000) == 0
