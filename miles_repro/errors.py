"""The one exception a user is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """A mistake the user can mend: one line that says what is wrong, where, and what to do.

    Entry points print it as ``error: <text>`` without a traceback and exit with status 2.
    """


def one_line(error: Exception) -> str:
    """The error's text without line breaks, for a UserError that quotes it."""
    return " ".join(str(error).split())
