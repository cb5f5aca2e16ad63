"""Vanilla: what the others are compared with."""

from rows import Row

ROW = Row()
