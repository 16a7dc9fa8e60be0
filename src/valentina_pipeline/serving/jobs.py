"""The queue: jobs that were accepted, and what became of them, in a database that outlives the server."""

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    Text,
    create_engine,
    event,
    func,
    select,
)

from valentina_pipeline.domain.content import sha256
from valentina_pipeline.serving.studio.pictures import Inputs
from valentina_pipeline.serving.studio.request import Engine, Order, Settings

State = Literal["queued", "running", "done", "failed", "cancelled"]

MOST_TRIES = 2
"""A job whose process died is drawn once more; a second death is taken to be the job's own doing."""

METADATA = MetaData()
JOBS = Table(
    "jobs",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),  # in order of arrival
    Column("id", String(32), unique=True, nullable=False),
    Column("owner", String(100), nullable=False),
    Column("made_from", Text, nullable=False),  # the order, as JSON
    Column("alike", String(64), nullable=False),  # hash of its settings
    Column("wanted", Integer, nullable=False),
    Column("state", String(10), nullable=False, index=True),
    Column("tries", Integer, nullable=False, default=0),
    Column("accepted", Float, nullable=False),  # seconds since 1970, like the next two
    Column("begun", Float),
    Column("ended", Float),
    Column("error", Text, nullable=False, default=""),
    Column("images", Text, nullable=False, default="[]"),
)
PICTURES = Table(  # that jobs are given, for as long as these have not ended
    "pictures",
    METADATA,
    Column("job", String(32), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("png", LargeBinary, nullable=False),
)


class Full(Exception):
    """The queue takes no more."""


@dataclass(frozen=True)
class Image:
    """One image of a job.

    Attributes:
        seed: that it was drawn from.
        file: its name in the folder of images; "" where there is none.
        refused: why there is none, else "".
        identity: see studio/engine.py's Drawn.
        engine: what drew it.
    """

    seed: int
    file: str
    refused: str
    identity: float | None = None
    engine: Engine = "torch"


@dataclass(frozen=True)
class Job:
    """An accepted order.

    Attributes:
        id: 32 hexadecimal digits, not to be guessed.
        owner: whose key it came with.
        order: what is drawn.
        state: where it is.
        tries: how often its drawing was begun.
        accepted: when, in seconds since 1970, as the next two.
        begun: when its drawing began last, if it did.
        ended: when it ended, if it did.
        error: why it failed, else "".
        images: what there is of it so far.
    """

    id: str
    owner: str
    order: Order
    state: State
    tries: int
    accepted: float
    begun: float | None
    ended: float | None
    error: str
    images: tuple[Image, ...] = field(default=())


class Jobs:
    """The queue of one server; safe to share between threads.

    Whose turn it is goes round the owners, and each owner's jobs are in order of arrival. A job that
    was being drawn when the server ended is queued again.

    Args:
        url: SQLAlchemy's: sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME.
        most: jobs that may wait at once.
        clock: tells seconds since 1970.
    """

    def __init__(self, url: str, most: int = 256, clock: Callable[[], float] = time.time) -> None:
        self._engine = create_engine(url)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _durable_and_quick)
        METADATA.create_all(self._engine)
        self._most = most
        self._clock = clock
        self._changes = 0
        self._places: tuple[int, dict[str, int]] = (-1, {})  # as of which change
        self.requeue()

    def add(self, owner: str, order: Order) -> Job:
        """Accept an order.

        Raises:
            Full: too many are waiting.
        """
        values = {
            "id": uuid.uuid4().hex,
            "owner": owner,
            "made_from": json.dumps(asdict(replace(order, pictures={}))),
            "alike": sha256(repr(order.settings).encode()),
            "wanted": len(order.seeds),
            "state": "queued",
            "accepted": self._clock(),
        }
        with self._engine.begin() as db:
            waiting = db.scalar(select(func.count()).where(JOBS.c.state == "queued")) or 0
            if waiting >= self._most:
                raise Full
            db.execute(JOBS.insert().values(**values))
            for name, content in order.pictures.items():
                db.execute(PICTURES.insert().values(job=values["id"], sha256=name, png=content))
        self._changes += 1
        return self.get(values["id"])  # type: ignore[arg-type, return-value]

    def get(self, job: str) -> Job | None:
        """Return a job, or None where there is none of this id."""
        with self._engine.connect() as db:
            row = db.execute(select(JOBS).where(JOBS.c.id == job)).first()
        return _job(row) if row else None

    def of(self, owner: str, most: int) -> list[Job]:
        """Return an owner's jobs, the newest first, at most so many."""
        own = select(JOBS).where(JOBS.c.owner == owner).order_by(JOBS.c.number.desc()).limit(most)
        with self._engine.connect() as db:
            return [_job(row) for row in db.execute(own)]

    def position(self, job: str) -> int | None:
        """Return how many jobs are before this one, or None where it does not wait."""
        changes = self._changes
        if self._places[0] != changes:  # many ask between two changes
            with self._engine.connect() as db:
                self._places = (changes, {row.id: place for place, row in enumerate(_in_turn(db))})
        return self._places[1].get(job)

    def take(self, most_images: Callable[[Settings], int]) -> list[Job]:
        """Begin the job whose turn it is, and those like it that are drawn in the same batch.

        Args:
            most_images: of such settings, that are drawn at once.
        """
        with self._engine.begin() as db:
            rows = _in_turn(db)
            if not rows:
                return []
            first = db.execute(select(JOBS.c.made_from).where(JOBS.c.id == rows[0].id)).scalar_one()
            room = most_images(_order(first).settings)
            taken: list[str] = []
            images = 0
            for row in rows:
                if row.alike == rows[0].alike and (not taken or images + row.wanted <= room):
                    taken.append(row.id)
                    images += row.wanted
            values = {"state": "running", "begun": self._clock(), "tries": JOBS.c.tries + 1}
            meant = JOBS.c.id.in_(taken)
            db.execute(JOBS.update().where(meant, JOBS.c.state == "queued").values(**values))
            begun = select(JOBS).where(
                meant, JOBS.c.state == "running"
            )  # one may have been cancelled meanwhile
            found = {row.id: _job(row) for row in db.execute(begun)}
            given: dict[str, dict[str, bytes]] = {}
            for row in db.execute(select(PICTURES).where(PICTURES.c.job.in_(found))):
                given.setdefault(row.job, {})[row.sha256] = row.png
        self._changes += 1
        return [
            replace(job, order=replace(job.order, pictures=given.get(job.id, {})))
            for job in (found[each] for each in taken if each in found)
        ]

    def pictures(self, drawn: Iterable[tuple[str, Image]]) -> None:
        """Add images to their jobs."""
        by_job: dict[str, list[Image]] = {}
        for job, image in drawn:
            by_job.setdefault(job, []).append(image)
        with self._engine.begin() as db:
            for job, images in by_job.items():
                before = json.loads(db.scalar(select(JOBS.c.images).where(JOBS.c.id == job)) or "[]")
                seeds = {image.seed for image in images}
                kept = [each for each in before if each["seed"] not in seeds]  # else of a first try
                values = {"images": json.dumps([*kept, *map(asdict, images)])}
                db.execute(JOBS.update().where(JOBS.c.id == job).values(**values))

    def end(self, jobs: Collection[str], state: State, error: str = "") -> int:
        """End those of the jobs that have not ended yet; return how many these were."""
        going = JOBS.c.id.in_(jobs), JOBS.c.state.in_(("queued", "running"))
        with self._engine.begin() as db:
            values = {"state": state, "error": error, "ended": self._clock()}
            ended = db.execute(JOBS.update().where(*going).values(**values)).rowcount
            db.execute(PICTURES.delete().where(PICTURES.c.job.in_(jobs)))
        self._changes += 1
        return ended

    def release(self) -> None:
        """Put back what was being drawn, as if it had not been begun: the server ends in good order."""
        running = JOBS.update().where(JOBS.c.state == "running")
        with self._engine.begin() as db:
            db.execute(running.values(state="queued", tries=JOBS.c.tries - 1))

    def requeue(self) -> list[str]:
        """Put back what was being drawn, to be drawn first; return the jobs that had their last try."""
        running = JOBS.c.state == "running"
        with self._engine.begin() as db:
            spent = [
                row.id for row in db.execute(select(JOBS.c.id).where(running, JOBS.c.tries >= MOST_TRIES))
            ]
            failed = {
                "state": "failed",
                "ended": self._clock(),
                "error": "the process that drew it died twice",
            }
            db.execute(JOBS.update().where(JOBS.c.id.in_(spent)).values(**failed))
            db.execute(PICTURES.delete().where(PICTURES.c.job.in_(spent)))
            db.execute(JOBS.update().where(running).values(state="queued"))
        self._changes += 1
        return spent

    def waiting(self) -> int:
        """Return how many jobs wait."""
        with self._engine.connect() as db:
            return db.scalar(select(func.count()).where(JOBS.c.state == "queued")) or 0

    def images_since(self, owner: str, seconds: float) -> int:
        """Return how many images an owner asked for in the last so many seconds."""
        recent = JOBS.c.owner == owner, JOBS.c.accepted > self._clock() - seconds
        with self._engine.connect() as db:
            return db.scalar(select(func.coalesce(func.sum(JOBS.c.wanted), 0)).where(*recent)) or 0

    def forget(self, seconds: float) -> list[Image]:
        """Forget jobs that ended longer ago than so many seconds; return their images, whose files may go."""
        old = JOBS.c.ended < self._clock() - seconds
        with self._engine.begin() as db:
            rows = db.execute(select(JOBS.c.images).where(old)).all()
            db.execute(JOBS.delete().where(old))
        return [Image(**each) for row in rows for each in json.loads(row.images)]

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()


def _in_turn(db: Any) -> Sequence[Row]:
    """Return the waiting jobs in the order in which they are drawn.

    An owner's n-th job comes after all owners' earlier ones; who was served last is last among equals. A
    job that is tried again comes first.
    """
    served = {
        row.owner: row.last
        for row in db.execute(
            select(JOBS.c.owner, func.max(JOBS.c.begun).label("last")).group_by(JOBS.c.owner)
        )
    }
    columns = (JOBS.c.id, JOBS.c.owner, JOBS.c.alike, JOBS.c.wanted, JOBS.c.tries)
    rows = db.execute(select(*columns).where(JOBS.c.state == "queued").order_by(JOBS.c.number)).all()
    before: dict[str, int] = {}
    keyed = []
    for arrival, row in enumerate(rows):
        turn = before[row.owner] = before.get(row.owner, -1) + 1
        keyed.append(((row.tries == 0, turn, served[row.owner] or 0.0, arrival), row))
    return [row for _, row in sorted(keyed, key=lambda each: each[0])]


def _job(row: Row) -> Job:
    return Job(
        id=row.id,
        owner=row.owner,
        order=_order(row.made_from),
        state=row.state,
        tries=row.tries,
        accepted=row.accepted,
        begun=row.begun,
        ended=row.ended,
        error=row.error,
        images=tuple(Image(**each) for each in json.loads(row.images)),
    )


def _order(text: str) -> Order:
    values: Mapping[str, Any] = json.loads(text)
    settings = values["settings"]
    adapters = tuple((name, weight) for name, weight in settings["adapters"])
    inputs = Inputs.of(settings.get("inputs", {}))  # an earlier version's jobs have none
    return Order(
        **{
            **values,
            "seeds": tuple(values["seeds"]),
            "settings": Settings(**{**settings, "adapters": adapters, "inputs": inputs}),
        }
    )


def _durable_and_quick(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(
        "PRAGMA synchronous=NORMAL"
    )  # survives a killed process; a power cut may lose the last
    connection.execute("PRAGMA busy_timeout=10000")


def sqlite(folder: Path) -> str:
    """Return the URL of the default database in a folder."""
    return f"sqlite:///{folder / 'jobs.sqlite'}"
