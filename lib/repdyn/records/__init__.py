"""Results that took long: recorded with configuration and provenance, swept, kept in parts, found again."""

from repdyn.records.record import (
    Recipe,
    disagreements,
    make,
    obtain,
    provenance,
    read,
    read_any,
    state,
    verify,
    write,
)

__all__ = ["Recipe", "disagreements", "make", "obtain", "provenance", "read", "read_any", "state", "verify", "write"]
