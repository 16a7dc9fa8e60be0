"""The database of the queue: its tables, and transactions that say clearly where it cannot be used."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.exc import SQLAlchemyError

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
    Column("tries", Integer, nullable=False, default=0),  # that ended with a death
    Column("accepted", Float, nullable=False),  # seconds since 1970, like all times here
    Column("begun", Float),
    Column("ended", Float),
    Column("error", Text, nullable=False, default=""),
    Column("images", Text, nullable=False, default="[]"),
    Column("turned", Float),  # when it went to the end of the line, once some of it was drawn
    Column("holder", String(32)),  # which server draws it
    Column("held_until", Float),  # unless that server says again that it lives
)
PICTURES = Table(  # that jobs are given, for as long as these have not ended
    "pictures",
    METADATA,
    Column("job", String(32), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("png", LargeBinary, nullable=False),
)

LOCK_SECONDS = 5
"""A transaction waits so long for another one."""

IDLE_SECONDS = 30
"""PostgreSQL then ends a transaction whose server stands still."""

ADVISORY = 7_165_018
"""PostgreSQL's lock of those who add jobs, which count them first."""


class UnavailableError(Exception):
    """Something that the server needs cannot be used for now; the message says what, and what to do."""


class Database:
    """A database with the queue's tables, which it makes; safe to share between threads.

    Args:
        url: SQLAlchemy's: sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME.

    Raises:
        UnavailableError: it cannot be opened, is locked, or holds something else.
        ImportError: the driver that the URL names is not installed.
    """

    def __init__(self, url: str) -> None:
        with _said():
            # the parameters are prompts, which errors would put into the log
            self._engine = create_engine(url, hide_parameters=True, **_options(url))
            self.shared = self._engine.dialect.name != "sqlite"
            if not self.shared:
                event.listen(self._engine, "connect", _durable_and_quick)
                event.listen(self._engine, "begin", _begin)
        with self.writing(alone=True) as db:
            METADATA.create_all(db)
            _add_missing_columns(db)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection for queries.

        Raises:
            UnavailableError: the database does not answer.
        """
        with _said(), self._engine.connect() as db:
            yield db

    @contextmanager
    def writing(self, alone: bool = False) -> Iterator[Connection]:
        """Give a transaction that is written in.

        Args:
            alone: of those with this word only one is open at a time, whatever server has it. SQLite has
                one writer at a time in any case.

        Raises:
            UnavailableError: the database does not answer; nothing was written.
        """
        with _said(), self._engine.execution_options(begins="IMMEDIATE").begin() as db:
            if alone and self.shared:
                db.execute(text("SELECT pg_advisory_xact_lock(:of)"), {"of": ADVISORY})
            yield db

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()


def seconds(db: Connection) -> float:
    """Return the seconds since 1970 by the one clock that all servers of a database share."""
    if db.dialect.name == "sqlite":
        return time.time()
    return float(db.scalar(text("SELECT extract(epoch from clock_timestamp())")) or 0)


def sqlite(folder: Path) -> str:
    """Return the URL of the default database in a folder."""
    return f"sqlite:///{folder / 'jobs.sqlite'}"


def _options(url: str) -> dict[str, Any]:
    """Return what an engine is created with."""
    if url.startswith("sqlite"):
        return {}
    waits = f"-c lock_timeout={LOCK_SECONDS}s -c idle_in_transaction_session_timeout={IDLE_SECONDS}s"
    return {"pool_pre_ping": True, "connect_args": {"options": waits, "connect_timeout": LOCK_SECONDS}}


def _durable_and_quick(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # `_begin` says how a transaction begins
    connection.execute(f"PRAGMA busy_timeout={LOCK_SECONDS}000")
    connection.execute("PRAGMA journal_mode=WAL")
    # survives a killed process; a power cut may lose the last
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin(db: Connection) -> None:
    """Begin SQLite's transaction: who writes takes the lock at once, as one that read first cannot wait."""
    how: Literal["DEFERRED", "IMMEDIATE"] = db.get_execution_options().get("begins", "DEFERRED")
    db.exec_driver_sql(f"BEGIN {how}")


def _add_missing_columns(db: Connection) -> None:
    """Have the tables of an earlier version hold what this one writes."""
    there = {column["name"] for column in inspect(db).get_columns(JOBS.name)}
    for column in JOBS.columns:
        if column.name not in there:
            kind = column.type.compile(db.dialect)
            db.execute(text(f"ALTER TABLE {JOBS.name} ADD COLUMN {column.name} {kind}"))


@contextmanager
def _said() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as err:
        raise UnavailableError(_advice(str(getattr(err, "orig", None) or err))) from err


ADVICE = {
    ("database is locked", "lock timeout", "lock not available"): (
        "another program holds its lock: end that program, or wait"
    ),
    ("disk is full", "no space left", "disk i/o error"): "the disk takes no more: make room",
    ("readonly", "read-only", "permission denied"): (
        "it may not be written: let the user who serves write to the file and its folder"
    ),
    ("malformed", "not a database", "no such table", "no such column", "encrypted"): (
        "its file is broken: end the server, move the file away, and start again"
    ),
}
"""Words of the driver's, lower case -> what is wrong and what to do."""


def _advice(said: str) -> str:
    for words, advice in ADVICE.items():
        if any(word in said.lower() for word in words):
            return f"the queue's database cannot be used: {advice}"
    return "the queue's database does not answer: start it, or wait"
