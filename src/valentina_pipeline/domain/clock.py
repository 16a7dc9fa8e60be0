"""Today's date in UTC, by which rights expire at the same time on every machine."""

from datetime import UTC, date, datetime


def today() -> date:
    """Return today's date in UTC: a record expires at midnight UTC, whatever the machine's time zone."""
    return datetime.now(UTC).date()
