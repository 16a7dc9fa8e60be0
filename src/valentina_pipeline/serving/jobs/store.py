"""Job queue in a database: accepted jobs and their results survive a restart of the server."""

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, replace

from sqlalchemy import ColumnElement, Connection, Row, and_, func, or_, select

from valentina_pipeline.domain.artifacts import sha256
from valentina_pipeline.serving.api.auth import DAY, RateLimitError
from valentina_pipeline.serving.inference.request import ResolvedRequest, Settings
from valentina_pipeline.serving.jobs.database import INPUT_IMAGES, JOBS, Database, seconds
from valentina_pipeline.serving.jobs.job import Image, Job, State, job_of, readable

MAX_ATTEMPTS = 2
"""A job whose worker crashed is retried alone; after a second crash it is marked failed."""

MAX_LOST_SERVERS = 5
"""Servers that may be lost while running a job (killed, power cut); the job is rarely the cause."""

LEASE_SECONDS = 15.0
"""Seconds for which jobs belong to a server, unless it renews its lease."""

POSITIONS_SECONDS = 1.0
"""Seconds for which queue positions are cached: other servers change them, too."""


class QueueFullError(Exception):
    """The queue is full."""


class JobStore:
    """Queue of one server, or of several that share a PostgreSQL; safe to share between threads.

    Owners take turns, and each owner's jobs do, one batch a turn. A running job belongs to this server for
    `lease` seconds, and for as long as `renew` is called in time; after that any server may run it again.

    Args:
        url: see `Database`.
        most: maximum number of waiting jobs.
        clock: returns seconds since 1970; None is the clock of the database.
        lease: seconds.
        alone: no other server uses this queue, so that running jobs are requeued at once.

    Raises:
        UnavailableError: from all methods, where the database does not respond.
    """

    def __init__(
        self,
        url: str,
        most: int = 256,
        clock: Callable[[], float] | None = None,
        lease: float = LEASE_SECONDS,
        alone: bool = False,
    ) -> None:
        self._database = Database(url)
        self._most = most
        self._now: Callable[[Connection], float] = (lambda db: clock()) if clock else seconds
        self._server_id = uuid.uuid4().hex
        self.lease = lease
        self._changes = 0
        self._positions: tuple[tuple[int, float], dict[str, int]] = (
            (-1, 0.0),
            {},
        )  # (change count, time) and the positions then
        if alone:
            self.reclaim(everybody=True)

    def add(self, owner: str, order: ResolvedRequest, images_per_day: int | None = None) -> Job:
        """Queue a resolved request and return its job.

        Raises:
            QueueFullError: too many jobs are waiting.
            RateLimitError: the owner's daily quota is exceeded.
        """
        values = {
            "id": uuid.uuid4().hex,
            "owner": owner,
            "request_json": json.dumps(asdict(replace(order, pictures={}))),
            "batch_key": sha256(repr(order.settings).encode()),
            "num_images": len(order.seeds),
            "state": "queued",
        }
        with self._database.writing(alone=True) as db:
            now = self._now(db)
            self._check_capacity(db, owner, len(order.seeds), images_per_day, now)
            db.execute(JOBS.insert().values(created_at=now, **values))
            for name, content in order.pictures.items():
                db.execute(INPUT_IMAGES.insert().values(job=values["id"], sha256=name, png=content))
            job = job_of(db.execute(select(JOBS).where(JOBS.c.id == values["id"])).one())
        self._changes += 1
        return job

    def refuse_beyond(self, owner: str, count: int, images_per_day: int | None) -> None:
        """Check that so many images would be accepted now, before any work on them.

        Raises:
            QueueFullError: too many jobs are waiting.
            RateLimitError: the quota is exceeded.
        """
        with self._database.reading() as db:
            self._check_capacity(db, owner, count, images_per_day, self._now(db))

    def _check_capacity(
        self, db: Connection, owner: str, count: int, images_per_day: int | None, now: float
    ) -> None:
        if (db.scalar(select(func.count()).where(JOBS.c.state == "queued")) or 0) >= self._most:
            raise QueueFullError
        if images_per_day is not None:
            _check_quota(db, owner, count, images_per_day, now)

    def get(self, job: str) -> Job | None:
        """Return the job with this id, or None where it is missing or unreadable."""
        with self._database.reading() as db:
            row = db.execute(select(JOBS).where(JOBS.c.id == job)).first()
        return readable(row) if row else None

    def of(self, owner: str, most: int) -> list[Job]:
        """Return an owner's readable jobs, the newest first, at most `most`."""
        own = select(JOBS).where(JOBS.c.owner == owner).order_by(JOBS.c.number.desc()).limit(most)
        with self._database.reading() as db:
            rows = db.execute(own).all()
        return [job for row in rows if (job := readable(row))]

    def position(self, job: str) -> int | None:
        """Return the number of jobs before this one, or None where it is not waiting."""
        changes, now = self._changes, time.monotonic()
        (as_of, then), positions = self._positions
        if as_of != changes or now - then > POSITIONS_SECONDS:  # many clients poll between two changes
            with self._database.reading() as db:
                positions = {row.id: place for place, row in enumerate(_in_turn(db))}
            self._positions = ((changes, now), positions)
        return positions.get(job)

    def take(self, most_images: Callable[[Settings], int]) -> list[Job]:
        """Start a batch: the job whose turn it is, and jobs with equal settings that fit completely.

        Args:
            most_images: returns the maximum batch size for settings.

        Returns:
            The jobs; their orders have only the seeds of this batch.
        """
        if not self.waiting():
            return []
        with self._database.writing() as db:
            rows = _in_turn(db)
            batch = self._batch(db, rows, most_images)
            now = self._now(db)
            values = {
                "state": "running",
                "started_at": now,
                "lease_owner": self._server_id,
                "lease_expires_at": now + self.lease,
            }
            ids = [job.id for job in batch]
            db.execute(JOBS.update().where(JOBS.c.id.in_(ids)).values(**values))
            inputs: dict[str, dict[str, bytes]] = {}
            for row in db.execute(select(INPUT_IMAGES).where(INPUT_IMAGES.c.job.in_(ids))):
                inputs.setdefault(row.job, {})[row.sha256] = row.png
        self._changes += 1
        return [
            replace(
                job,
                state="running",
                started_at=now,
                order=replace(job.order, pictures=inputs.get(job.id, {})),
            )
            for job in batch
        ]

    def _batch(
        self, db: Connection, rows: Sequence[Row], most_images: Callable[[Settings], int]
    ) -> list[Job]:
        """Return the jobs of the next batch, from rows in turn order; their rows are locked."""
        batch: list[Job] = []
        room, batch_key = 0, ""
        for row in rows:
            if batch and (row.batch_key != batch_key or row.attempts or not room):
                continue
            job = self._lock(db, row.id)
            if job is None:
                continue
            finished = {image.seed for image in job.images}
            left = [seed for seed in job.order.seeds if seed not in finished]
            if not left:  # the server was lost before it marked the job done
                self._close(db, [job.id], "done")
                continue
            if not batch:
                # a worker crashed on it or on a job beside it: alone, it shows which
                room, batch_key = most_images(job.order.settings), row.batch_key
            elif len(left) > room:
                continue
            batch.append(replace(job, order=replace(job.order, seeds=tuple(left[:room]))))
            room = 0 if row.attempts else max(0, room - len(left))
        return batch

    def _lock(self, db: Connection, job: str) -> Job | None:
        """Lock a waiting job against other servers and return it; mark it failed where it is unreadable."""
        waits = select(JOBS).where(JOBS.c.id == job, JOBS.c.state == "queued")
        row = db.execute(waits.with_for_update(skip_locked=True)).first()
        if row is None:
            return None
        found = readable(row)
        if found is None:
            self._close(db, [job], "failed", "its row in the database is invalid")
        return found

    def pictures(self, generated: Iterable[tuple[str, Image]]) -> None:
        """Add images to their jobs, except jobs that another server has taken over."""
        by_job: dict[str, list[Image]] = {}
        for job, image in generated:
            by_job.setdefault(job, []).append(image)
        with self._database.writing() as db:
            ours = select(JOBS.c.id, JOBS.c.images).where(self._ours(by_job)).with_for_update()
            for row in db.execute(ours).all():
                images = by_job[row.id]
                seeds = {image.seed for image in images}
                others = [image for image in json.loads(row.images) if image["seed"] not in seeds]
                values = {"images": json.dumps([*others, *map(asdict, images)])}
                db.execute(JOBS.update().where(JOBS.c.id == row.id).values(**values))

    def turn(self, jobs: Collection[str]) -> int:
        """End the finished jobs of a batch and requeue the others at the end; return how many ended."""
        with self._database.writing() as db:
            rows = db.execute(select(JOBS).where(self._ours(jobs), JOBS.c.state == "running")).all()
            done = [row.id for row in rows if len(json.loads(row.images)) >= row.num_images]
            ended = self._close(db, done, "done")
            left = JOBS.update().where(JOBS.c.id.in_([row.id for row in rows if row.id not in done]))
            # an earlier crash may be due to another job: part of this one has succeeded
            db.execute(left.values(state="queued", requeued_at=self._now(db), lease_owner=None, attempts=0))
        self._changes += 1
        return ended

    def end(self, jobs: Collection[str], state: State, error: str = "") -> int:
        """End the jobs that are still active; return how many these were.

        A job that another server has taken over can only be cancelled.
        """
        with self._database.writing() as db:
            among = jobs
            if state != "cancelled":
                among = [row.id for row in db.execute(select(JOBS.c.id).where(self._ours(jobs)))]
            ended = self._close(db, among, state, error)
        self._changes += 1
        return ended

    def renew(self) -> set[str]:
        """Renew this server's lease; return the ids of the jobs that it still runs."""
        mine = JOBS.c.lease_owner == self._server_id, JOBS.c.state == "running"
        with self._database.writing() as db:
            db.execute(JOBS.update().where(*mine).values(lease_expires_at=self._now(db) + self.lease))
            return {row.id for row in db.execute(select(JOBS.c.id).where(*mine))}

    def release(self) -> None:
        """Requeue the jobs that this server runs in their old positions, as if not started."""
        mine = JOBS.c.lease_owner == self._server_id, JOBS.c.state == "running"
        with self._database.writing() as db:
            db.execute(JOBS.update().where(*mine).values(state="queued", lease_owner=None))
        self._changes += 1

    def retry(self, jobs: Collection[str]) -> int:
        """Requeue jobs after a crash of this server's worker; return how many failed for good."""
        with self._database.writing() as db:
            mine = and_(JOBS.c.lease_owner == self._server_id, JOBS.c.id.in_(jobs))
            return self._requeue(db, mine, MAX_ATTEMPTS, "its worker process crashed twice")

    def reclaim(self, everybody: bool = False) -> int:
        """Requeue the jobs of lost servers; return how many failed for good.

        Args:
            everybody: all other servers are known to be lost; else those with an expired lease.
        """
        with self._database.writing() as db:
            lost = JOBS.c.lease_expires_at < self._now(db)
            if everybody:
                lost = JOBS.c.lease_owner != self._server_id
            error = f"{MAX_LOST_SERVERS} servers were lost while running it"
            return self._requeue(db, lost, MAX_LOST_SERVERS, error)

    def _requeue(self, db: Connection, condition: ColumnElement[bool], max_attempts: int, error: str) -> int:
        """Requeue running jobs in their old positions; mark those failed that have no attempts left."""
        running = select(JOBS.c.id, JOBS.c.attempts).where(condition, JOBS.c.state == "running")
        rows = db.execute(running.with_for_update(skip_locked=True)).all()
        again = JOBS.update().where(JOBS.c.id.in_([row.id for row in rows]))
        db.execute(again.values(state="queued", lease_owner=None, attempts=JOBS.c.attempts + 1))
        spent = [row.id for row in rows if row.attempts + 1 >= max_attempts]
        self._changes += 1
        return self._close(db, spent, "failed", error)

    def waiting(self) -> int:
        """Return the number of waiting jobs."""
        with self._database.reading() as db:
            return db.scalar(select(func.count()).where(JOBS.c.state == "queued")) or 0

    def forget(self, seconds: float) -> list[Image]:
        """Delete jobs that ended more than so many seconds ago; return their images, to delete the files."""
        with self._database.writing() as db:
            old = JOBS.c.finished_at < self._now(db) - seconds
            rows = db.execute(select(JOBS).where(old)).all()
            db.execute(JOBS.delete().where(old))
        return [image for row in rows if (job := readable(row)) for image in job.images]

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _ours(self, jobs: Collection[str]) -> ColumnElement[bool]:
        """Return the SQL condition that a job is one of these and not another server's."""
        return and_(
            JOBS.c.id.in_(jobs), or_(JOBS.c.lease_owner.is_(None), JOBS.c.lease_owner == self._server_id)
        )

    def _close(self, db: Connection, jobs: Collection[str], state: State, error: str = "") -> int:
        """End the jobs that are still active; return how many these were."""
        going = JOBS.c.id.in_(jobs), JOBS.c.state.in_(("queued", "running"))
        values = {"state": state, "error": error.replace("\0", ""), "finished_at": self._now(db)}
        ended = db.execute(JOBS.update().where(*going).values(**values)).rowcount
        db.execute(INPUT_IMAGES.delete().where(INPUT_IMAGES.c.job.in_(jobs)))
        return ended


def _check_quota(db: Connection, owner: str, count: int, max_images: int, now: float) -> None:
    recent = JOBS.c.owner == owner, JOBS.c.created_at > now - DAY
    used = db.scalar(select(func.coalesce(func.sum(JOBS.c.num_images), 0)).where(*recent)) or 0
    if used + count > max_images:
        raise RateLimitError(f"{used} of this key's {max_images} images per day are used", 3600.0)


def _in_turn(db: Connection) -> Sequence[Row]:
    """Return the waiting jobs in the order in which they run.

    Each owner's jobs are in order of arrival; a job arrives anew after each of its batches. An owner's n-th
    job comes after the earlier ones of all owners. Among equals, the owner served last comes last.
    """
    served = {
        row.owner: row.last
        for row in db.execute(
            select(JOBS.c.owner, func.max(JOBS.c.started_at).label("last")).group_by(JOBS.c.owner)
        )
    }
    arrived = func.coalesce(JOBS.c.requeued_at, JOBS.c.created_at)
    columns = (JOBS.c.id, JOBS.c.owner, JOBS.c.batch_key, JOBS.c.attempts)
    waiting = select(*columns).where(JOBS.c.state == "queued").order_by(arrived, JOBS.c.number)
    before: dict[str, int] = {}
    keyed = []
    for arrival, row in enumerate(db.execute(waiting)):
        turn = before[row.owner] = before.get(row.owner, -1) + 1
        keyed.append(((turn, served.get(row.owner) or 0.0, arrival), row))
    return [row for _, row in sorted(keyed, key=lambda item: item[0])]
