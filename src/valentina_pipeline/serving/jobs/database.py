"""Database of the queue: tables, transactions, and clear errors where it is unavailable."""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    Column("request_json", Text, nullable=False),  # the resolved request
    Column("batch_key", String(64), nullable=False),  # hash of the settings: equal ones share a batch
    Column("num_images", Integer, nullable=False),
    Column("state", String(10), nullable=False, index=True),
    Column("attempts", Integer, nullable=False, default=0),  # attempts that ended with a crash
    Column("created_at", Float, nullable=False),  # seconds since 1970, like all times here
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("error", Text, nullable=False, default=""),
    Column("images", Text, nullable=False, default="[]"),
    Column("requeued_at", Float),  # when it was requeued after a batch
    Column("lease_owner", String(32)),  # the server that processes it
    Column("lease_expires_at", Float),  # unless that server renews it
)
INPUT_IMAGES = Table(  # input images of jobs that have not ended
    "input_images",
    METADATA,
    Column("job", String(32), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("png", LargeBinary, nullable=False),
)

LOCK_SECONDS = 5
"""Maximum wait of a transaction for another one."""

IDLE_SECONDS = 30
"""PostgreSQL ends a transaction after this idle time."""

ADVISORY_LOCK_ID = 7_165_018
"""PostgreSQL advisory lock for adding jobs, which first counts them."""


class UnavailableError(Exception):
    """A resource of the server is temporarily unavailable; the message says which, and what to do."""


class Database:
    """Database with the queue's tables, created where missing; safe to share between threads.

    Args:
        url: of SQLAlchemy: sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME.

    Raises:
        UnavailableError: it cannot be opened, is locked, is not a database of the queue, or has the queue of
            another version.
        ImportError: the driver that the URL names is not installed.
    """

    def __init__(self, url: str) -> None:
        with _translate_errors():
            # parameters contain prompts, which errors would otherwise log
            self._engine = create_engine(url, hide_parameters=True, **_options(url))
            self.shared = self._engine.dialect.name != "sqlite"
            # SQLite's waiters poll for its lock, so that of many threads one could wait beyond LOCK_SECONDS
            self._turn: AbstractContextManager[Any] = nullcontext() if self.shared else threading.Lock()
            if not self.shared:
                event.listen(self._engine, "connect", _set_pragmas)
                event.listen(self._engine, "begin", _begin)
        with self.writing(alone=True) as db:
            _refuse_other_columns(db)
            METADATA.create_all(db)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a connection for queries.

        Raises:
            UnavailableError: the database does not answer.
        """
        with _translate_errors(), self._engine.connect() as db:
            yield db

    @contextmanager
    def writing(self, alone: bool = False) -> Iterator[Connection]:
        """Open a transaction for writes.

        Args:
            alone: only one such transaction is open at a time over all servers. SQLite has one writer at a
                time in any case.

        Raises:
            UnavailableError: the database does not answer; nothing was written.
        """
        writer = self._engine.execution_options(begins="IMMEDIATE")
        with _translate_errors(), self._turn, writer.begin() as db:
            if alone and self.shared:
                db.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": ADVISORY_LOCK_ID})
            yield db

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def seconds(db: Connection) -> float:
    """Return the seconds since 1970 by the clock that all servers of a database share."""
    if db.dialect.name == "sqlite":
        return time.time()
    return float(db.scalar(text("SELECT extract(epoch from clock_timestamp())")) or 0)


def sqlite(folder: Path) -> str:
    """Return the URL of the default database in a folder."""
    return f"sqlite:///{folder / 'jobs.sqlite'}"


def _options(url: str) -> dict[str, Any]:
    """Return the keyword arguments of `create_engine`."""
    if url.startswith("sqlite"):
        return {}
    timeouts = f"-c lock_timeout={LOCK_SECONDS}s -c idle_in_transaction_session_timeout={IDLE_SECONDS}s"
    return {"pool_pre_ping": True, "connect_args": {"options": timeouts, "connect_timeout": LOCK_SECONDS}}


def _set_pragmas(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # `_begin` begins transactions explicitly
    connection.execute(f"PRAGMA busy_timeout={LOCK_SECONDS}000")
    connection.execute("PRAGMA journal_mode=WAL")
    # commits survive a killed process; a power cut may lose the last ones
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin(db: Connection) -> None:
    """Begin SQLite's transaction. A writer locks at once: after a read it could not wait for the lock."""
    mode: Literal["DEFERRED", "IMMEDIATE"] = db.get_execution_options().get("begins", "DEFERRED")
    db.exec_driver_sql(f"BEGIN {mode}")


def _refuse_other_columns(db: Connection) -> None:
    """Raise UnavailableError where the queue was written by a version with other columns."""
    tables = inspect(db)
    if not tables.has_table(JOBS.name):
        return
    found, expected = {column["name"] for column in tables.get_columns(JOBS.name)}, {*JOBS.columns.keys()}
    if found != expected:
        raise UnavailableError(
            "another version of this project wrote this queue (its table jobs differs in "
            f"{', '.join(sorted(found ^ expected)[:3])}): let that version finish its jobs, then set another "
            "--state-dir or --database"
        )


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as err:
        raise UnavailableError(_advice(str(getattr(err, "orig", None) or err))) from err


ADVICE = {
    ("database is locked", "lock timeout", "lock not available"): (
        "another program holds its lock: stop that program, or wait"
    ),
    ("disk is full", "no space left", "disk i/o error"): "the disk is full: free disk space",
    ("readonly", "read-only", "permission denied"): (
        "it is not writable: give the user of the server write access to the file and its folder"
    ),
    ("malformed", "not a database", "no such table", "no such column", "encrypted"): (
        "its file is damaged: stop the server, move the file away, and start again"
    ),
}
"""Words of the driver's message, in lower case -> the cause and the remedy."""


def _advice(message: str) -> str:
    for words, advice in ADVICE.items():
        if any(word in message.lower() for word in words):
            return f"the queue's database is unavailable: {advice}"
    return "the queue's database does not respond: start it, or wait"
