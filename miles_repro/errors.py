"""The one exception a user is meant to read, and how a command ends with it."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake the user can mend: one line that says what is wrong, where, and what to do.

    Entry points print it as ``error: <text>`` without a traceback and exit with status 2.
    """


def one_line(error: Exception) -> str:
    """The error's text without line breaks, for a UserError that quotes it."""
    return " ".join(str(error).split())


def ended(
    command: Callable[[], int], interrupted: str = "interrupted: run the same command again"
) -> int:
    """The exit status of a command: 2 after a mistake, 130 after Ctrl-C, a line of each."""
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
