"""Resolve constraints.txt anew: ``make lock`` (for maintainers; run all tests afterwards).

uv resolves every extra for the machines in ``[tool.uv]`` of pyproject.toml at once and spells
those machines out on every line. A constraint binds only what gets installed anyway, so a marker
is needed only where one package has several versions; there it shrinks to what tells them apart.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
COMMAND = (
    *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml"),
    *("--all-extras", "--universal", "--fork-strategy", "fewest", "--upgrade"),
    *("--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links", "--quiet"),
)
MACHINES = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
PYTHONS = ("3.11", "3.12", "3.13")
MARKERS = ("platform_machine == 'aarch64'", "platform_machine != 'aarch64'")
HEADER = """\
# Tested versions of everything, for Linux (x86_64, aarch64) and macOS (arm64), Python 3.11 to 3.13,
# on a CPU or a CUDA GPU. Use: pip install -c constraints.txt -e '.[dev]'
# Written by `make lock`; do not edit by hand.
"""


def environments() -> list[dict[str, str]]:
    """Marker variables of every supported machine and Python."""
    return [
        {
            "sys_platform": platform,
            "platform_machine": machine,
            "python_version": python,
            "python_full_version": f"{python}.9",
        }
        for (platform, machine), python in product(MACHINES, PYTHONS)
    ]


def where(requirement: Requirement) -> list[bool]:
    """For each of :func:`environments`, whether ``requirement`` applies there."""
    marker = requirement.marker
    return [marker is None or marker.evaluate(env) for env in environments()]


def shorten(lines: list[str]) -> list[str]:
    """The same pins with the shortest markers that still choose the same versions."""
    pins = [Requirement(line) for line in lines]
    versions = Counter(pin.name for pin in pins)
    short = []
    for pin in pins:
        text = f"{pin.name}{pin.specifier}"
        if versions[pin.name] > 1:
            choices = (Requirement(f"{text} ; {marker}") for marker in MARKERS)
            same = (choice for choice in choices if where(choice) == where(pin))
            marker = str(next(same, pin).marker).replace('"', "'")
            text = f"{text} ; {marker}"
        short.append(text)
    return short


def main() -> int:
    """Run uv, write constraints.txt; the exit status is uv's."""
    uv = subprocess.run(COMMAND, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if uv.returncode == 0:
        pins = shorten([line for line in uv.stdout.splitlines() if line.strip()])
        (ROOT / "constraints.txt").write_text(HEADER + "\n".join(pins) + "\n", encoding="utf-8")
    return uv.returncode


if __name__ == "__main__":
    sys.exit(main())
