"""The day by which rights begin to end: UTC's, the same on every machine."""

from datetime import UTC, date, datetime


def today() -> date:
    """Return the day in UTC: what ends on a day ends at its midnight there, whatever the machine's zone."""
    return datetime.now(UTC).date()
