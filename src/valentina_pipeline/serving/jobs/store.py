"""The queue: jobs that were accepted, and what became of them, in a database that outlives the server."""

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, replace

from sqlalchemy import ColumnElement, Connection, Row, and_, func, or_, select

from valentina_pipeline.domain.artifacts import sha256
from valentina_pipeline.serving.api.auth import DAY, RateLimitError
from valentina_pipeline.serving.inference.request import ResolvedRequest, Settings
from valentina_pipeline.serving.jobs.database import JOBS, PICTURES, Database, seconds
from valentina_pipeline.serving.jobs.job import Image, Job, State, job_of, readable

MOST_TRIES = 2
"""A job whose process died is drawn once more, alone; a second death is taken to be the job's own doing."""

MOST_SERVERS = 5
"""Servers that may be gone in the middle of a job: killed, or by a power cut, which is seldom its doing."""

LEASE = 15.0
"""Seconds for which jobs are a server's, unless it says again that it lives."""

PLACES_KEPT = 1.0
"""Seconds for which the places of jobs are remembered: other servers change them too."""


class QueueFullError(Exception):
    """The queue takes no more."""


class JobStore:
    """The queue of one server, or of several with one PostgreSQL; safe to share between threads.

    Whose turn it is goes round the owners, and round each one's jobs, a batch a turn. A job that is being
    drawn is this server's for `lease` seconds, and for as long as `renew` is called in time; after that
    any server draws it again.

    Args:
        url: see `Database`.
        most: jobs that may wait at once.
        clock: tells seconds since 1970; None is the database's own clock.
        lease: seconds.
        alone: no other server has this queue, so that what was being drawn is put back at once.

    Raises:
        UnavailableError: by all methods, where the database does not answer.
    """

    def __init__(
        self,
        url: str,
        most: int = 256,
        clock: Callable[[], float] | None = None,
        lease: float = LEASE,
        alone: bool = False,
    ) -> None:
        self._database = Database(url)
        self._most = most
        self._now: Callable[[Connection], float] = (lambda db: clock()) if clock else seconds
        self._me = uuid.uuid4().hex
        self.lease = lease
        self._changes = 0
        self._places: tuple[tuple[int, float], dict[str, int]] = ((-1, 0.0), {})  # as of which change, when
        if alone:
            self.reclaim(everybody=True)

    def add(self, owner: str, order: ResolvedRequest, images_per_day: int | None = None) -> Job:
        """Accept an order.

        Raises:
            QueueFullError: too many are waiting.
            RateLimitError: the owner's images of a day are used up.
        """
        values = {
            "id": uuid.uuid4().hex,
            "owner": owner,
            "made_from": json.dumps(asdict(replace(order, pictures={}))),
            "alike": sha256(repr(order.settings).encode()),
            "wanted": len(order.seeds),
            "state": "queued",
        }
        with self._database.writing(alone=True) as db:
            now = self._now(db)
            self._refuse_beyond(db, owner, len(order.seeds), images_per_day, now)
            db.execute(JOBS.insert().values(accepted=now, **values))
            for name, content in order.pictures.items():
                db.execute(PICTURES.insert().values(job=values["id"], sha256=name, png=content))
            job = job_of(db.execute(select(JOBS).where(JOBS.c.id == values["id"])).one())
        self._changes += 1
        return job

    def refuse_beyond(self, owner: str, count: int, images_per_day: int | None) -> None:
        """Look whether so many images would be accepted now, before anything is spent on them.

        Raises:
            QueueFullError: too many are waiting.
            RateLimitError: the quota is used up.
        """
        with self._database.reading() as db:
            self._refuse_beyond(db, owner, count, images_per_day, self._now(db))

    def _refuse_beyond(
        self, db: Connection, owner: str, count: int, images_per_day: int | None, now: float
    ) -> None:
        if (db.scalar(select(func.count()).where(JOBS.c.state == "queued")) or 0) >= self._most:
            raise QueueFullError
        if images_per_day is not None:
            _refuse_beyond_quota(db, owner, count, images_per_day, now)

    def get(self, job: str) -> Job | None:
        """Return a job, or None where there is none of this id that can be read."""
        with self._database.reading() as db:
            row = db.execute(select(JOBS).where(JOBS.c.id == job)).first()
        return readable(row) if row else None

    def of(self, owner: str, most: int) -> list[Job]:
        """Return an owner's jobs, the newest first, at most so many; none that cannot be read."""
        own = select(JOBS).where(JOBS.c.owner == owner).order_by(JOBS.c.number.desc()).limit(most)
        with self._database.reading() as db:
            rows = db.execute(own).all()
        return [job for row in rows if (job := readable(row))]

    def position(self, job: str) -> int | None:
        """Return how many jobs are before this one, or None where it does not wait."""
        changes, now = self._changes, time.monotonic()
        (as_of, then), places = self._places
        if as_of != changes or now - then > PLACES_KEPT:  # many ask between two changes
            with self._database.reading() as db:
                places = {row.id: place for place, row in enumerate(_in_turn(db))}
            self._places = ((changes, now), places)
        return places.get(job)

    def take(self, most_images: Callable[[Settings], int]) -> list[Job]:
        """Begin a batch: of the job whose turn it is, and of those like it that fit in whole.

        Args:
            most_images: of such settings, that are drawn at once.

        Returns:
            The jobs, whose orders have the seeds of this batch alone.
        """
        if not self.waiting():
            return []
        with self._database.writing() as db:
            rows = _in_turn(db)
            batch = self._batch(db, rows, most_images)
            now = self._now(db)
            values = {"state": "running", "begun": now, "holder": self._me, "held_until": now + self.lease}
            ids = [job.id for job in batch]
            db.execute(JOBS.update().where(JOBS.c.id.in_(ids)).values(**values))
            given: dict[str, dict[str, bytes]] = {}
            for row in db.execute(select(PICTURES).where(PICTURES.c.job.in_(ids))):
                given.setdefault(row.job, {})[row.sha256] = row.png
        self._changes += 1
        return [
            replace(job, state="running", begun=now, order=replace(job.order, pictures=given.get(job.id, {})))
            for job in batch
        ]

    def _batch(
        self, db: Connection, rows: Sequence[Row], most_images: Callable[[Settings], int]
    ) -> list[Job]:
        """Return what is drawn next of the rows in turn, which are locked."""
        batch: list[Job] = []
        room, alike = 0, ""
        for row in rows:
            if batch and (row.alike != alike or row.tries or not room):
                continue
            job = self._locked(db, row.id)
            if job is None:
                continue
            drawn = {image.seed for image in job.images}
            left = [seed for seed in job.order.seeds if seed not in drawn]
            if not left:  # the server was gone before it said so
                self._close(db, [job.id], "done")
                continue
            if not batch:
                # a process died of it, or of what was drawn with it: alone, it shows which
                room, alike = most_images(job.order.settings), row.alike
            elif len(left) > room:
                continue
            batch.append(replace(job, order=replace(job.order, seeds=tuple(left[:room]))))
            room = 0 if row.tries else max(0, room - len(left))
        return batch

    def _locked(self, db: Connection, job: str) -> Job | None:
        """Return a job that waits, which no other server takes meanwhile; fail it where it cannot be read."""
        waits = select(JOBS).where(JOBS.c.id == job, JOBS.c.state == "queued")
        row = db.execute(waits.with_for_update(skip_locked=True)).first()
        if row is None:
            return None
        found = readable(row)
        if found is None:
            self._close(db, [job], "failed", "its row in the database cannot be read")
        return found

    def pictures(self, drawn: Iterable[tuple[str, Image]]) -> None:
        """Add images to their jobs, but to those that another server draws by now."""
        by_job: dict[str, list[Image]] = {}
        for job, image in drawn:
            by_job.setdefault(job, []).append(image)
        with self._database.writing() as db:
            ours = select(JOBS.c.id, JOBS.c.images).where(self._ours(by_job)).with_for_update()
            for row in db.execute(ours).all():
                images = by_job[row.id]
                seeds = {image.seed for image in images}
                kept = [each for each in json.loads(row.images) if each["seed"] not in seeds]
                values = {"images": json.dumps([*kept, *map(asdict, images)])}
                db.execute(JOBS.update().where(JOBS.c.id == row.id).values(**values))

    def turn(self, jobs: Collection[str]) -> int:
        """End the jobs of a batch that are drawn, queue the others anew; return how many ended."""
        with self._database.writing() as db:
            rows = db.execute(select(JOBS).where(self._ours(jobs), JOBS.c.state == "running")).all()
            done = [row.id for row in rows if len(json.loads(row.images)) >= row.wanted]
            ended = self._close(db, done, "done")
            left = JOBS.update().where(JOBS.c.id.in_([row.id for row in rows if row.id not in done]))
            # who died before may have been another: some of the job could be drawn
            db.execute(left.values(state="queued", turned=self._now(db), holder=None, tries=0))
        self._changes += 1
        return ended

    def end(self, jobs: Collection[str], state: State, error: str = "") -> int:
        """End those of the jobs that have not ended yet; return how many these were.

        Where another server draws one by now, it can be cancelled from here and nothing else.
        """
        with self._database.writing() as db:
            among = jobs
            if state != "cancelled":
                among = [row.id for row in db.execute(select(JOBS.c.id).where(self._ours(jobs)))]
            ended = self._close(db, among, state, error)
        self._changes += 1
        return ended

    def renew(self) -> set[str]:
        """Say that this server lives; return the jobs that are still its to draw."""
        mine = JOBS.c.holder == self._me, JOBS.c.state == "running"
        with self._database.writing() as db:
            db.execute(JOBS.update().where(*mine).values(held_until=self._now(db) + self.lease))
            return {row.id for row in db.execute(select(JOBS.c.id).where(*mine))}

    def release(self) -> None:
        """Put back what this server was drawing, in its old place, as if it had not been begun."""
        mine = JOBS.c.holder == self._me, JOBS.c.state == "running"
        with self._database.writing() as db:
            db.execute(JOBS.update().where(*mine).values(state="queued", holder=None))
        self._changes += 1

    def retry(self, jobs: Collection[str]) -> int:
        """Put back what this server was drawing when its process died; return how many had their last try."""
        with self._database.writing() as db:
            mine = and_(JOBS.c.holder == self._me, JOBS.c.id.in_(jobs))
            return self._put_back(db, mine, MOST_TRIES, "the process that drew it died twice")

    def reclaim(self, everybody: bool = False) -> int:
        """Put back what servers were drawing that are gone; return how many jobs had their last try.

        Args:
            everybody: all but this one are known to be gone; else those that did not renew in time.
        """
        with self._database.writing() as db:
            # none of an earlier version's jobs says who draws it
            gone = or_(JOBS.c.held_until.is_(None), JOBS.c.held_until < self._now(db))
            if everybody:
                gone = or_(JOBS.c.holder.is_(None), JOBS.c.holder != self._me)
            said = f"{MOST_SERVERS} servers were gone before it was drawn"
            return self._put_back(db, gone, MOST_SERVERS, said)

    def _put_back(self, db: Connection, which: ColumnElement[bool], most_tries: int, error: str) -> int:
        """Queue jobs that a process or server died of, in their old place; fail those with enough deaths."""
        running = select(JOBS.c.id, JOBS.c.tries).where(which, JOBS.c.state == "running")
        rows = db.execute(running.with_for_update(skip_locked=True)).all()
        again = JOBS.update().where(JOBS.c.id.in_([row.id for row in rows]))
        db.execute(again.values(state="queued", holder=None, tries=JOBS.c.tries + 1))
        spent = [row.id for row in rows if row.tries + 1 >= most_tries]
        self._changes += 1
        return self._close(db, spent, "failed", error)

    def waiting(self) -> int:
        """Return how many jobs wait."""
        with self._database.reading() as db:
            return db.scalar(select(func.count()).where(JOBS.c.state == "queued")) or 0

    def forget(self, seconds: float) -> list[Image]:
        """Forget jobs that ended longer ago than so many seconds; return their images, whose files may go."""
        with self._database.writing() as db:
            old = JOBS.c.ended < self._now(db) - seconds
            rows = db.execute(select(JOBS).where(old)).all()
            db.execute(JOBS.delete().where(old))
        return [image for row in rows if (job := readable(row)) for image in job.images]

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def _ours(self, jobs: Collection[str]) -> ColumnElement[bool]:
        """Return the condition that a job is among these, and not another server's."""
        return and_(JOBS.c.id.in_(jobs), or_(JOBS.c.holder.is_(None), JOBS.c.holder == self._me))

    def _close(self, db: Connection, jobs: Collection[str], state: State, error: str = "") -> int:
        """End those of the jobs that have not ended yet; return how many these were."""
        going = JOBS.c.id.in_(jobs), JOBS.c.state.in_(("queued", "running"))
        values = {"state": state, "error": error.replace("\0", ""), "ended": self._now(db)}
        ended = db.execute(JOBS.update().where(*going).values(**values)).rowcount
        db.execute(PICTURES.delete().where(PICTURES.c.job.in_(jobs)))
        return ended


def _refuse_beyond_quota(db: Connection, owner: str, count: int, most: int, now: float) -> None:
    recent = JOBS.c.owner == owner, JOBS.c.accepted > now - DAY
    used = db.scalar(select(func.coalesce(func.sum(JOBS.c.wanted), 0)).where(*recent)) or 0
    if used + count > most:
        raise RateLimitError(f"{used} of this key's {most} images a day are used", 3600.0)


def _in_turn(db: Connection) -> Sequence[Row]:
    """Return the waiting jobs in the order in which they are drawn.

    Each owner's jobs are in order of arrival, where one that a batch was drawn of arrives anew. An owner's
    n-th job comes after all owners' earlier ones; who was served last is last among equals.
    """
    served = {
        row.owner: row.last
        for row in db.execute(
            select(JOBS.c.owner, func.max(JOBS.c.begun).label("last")).group_by(JOBS.c.owner)
        )
    }
    arrived = func.coalesce(JOBS.c.turned, JOBS.c.accepted)
    columns = (JOBS.c.id, JOBS.c.owner, JOBS.c.alike, JOBS.c.tries)
    waiting = select(*columns).where(JOBS.c.state == "queued").order_by(arrived, JOBS.c.number)
    before: dict[str, int] = {}
    keyed = []
    for arrival, row in enumerate(db.execute(waiting)):
        turn = before[row.owner] = before.get(row.owner, -1) + 1
        keyed.append(((turn, served.get(row.owner) or 0.0, arrival), row))
    return [row for _, row in sorted(keyed, key=lambda each: each[0])]
