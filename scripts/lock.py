"""Resolve constraints.txt anew: ``make lock`` (for maintainers; run all tests afterwards).

uv resolves every extra for the machines in ``[tool.uv]`` of pyproject.toml at once. Its markers
spell those machines out on every line; here each one is reduced to what tells them apart.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
MACHINES = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
PYTHONS = ("3.11", "3.12", "3.13")
# Short markers to choose from, the plainest first.
MARKERS = (
    "platform_machine == 'aarch64'",
    "platform_machine != 'aarch64'",
    "platform_machine == 'x86_64'",
    "sys_platform == 'linux'",
    "sys_platform == 'darwin'",
)
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
            "platform_system": platform.capitalize(),
            "platform_machine": machine,
            "python_version": python,
            "python_full_version": f"{python}.9",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "os_name": "posix",
        }
        for (platform, machine), python in product(MACHINES, PYTHONS)
    ]


def applies(line: str) -> list[bool]:
    """For each of :func:`environments`, whether the requirement ``line`` applies there."""
    marker = Requirement(line).marker
    return [marker is None or marker.evaluate(env) for env in environments()]


def simplify(line: str) -> str | None:
    """The same pin with the shortest marker that selects the same machines; None where none do."""
    wanted = applies(line)
    pin = line.split(";")[0].strip()
    if not any(wanted):
        return None
    if all(wanted):
        return pin
    short = (f"{pin} ; {marker}" for marker in MARKERS)
    return next((candidate for candidate in short if applies(candidate) == wanted), line)


def main() -> int:
    """Run uv, write constraints.txt; the exit status is uv's."""
    uv = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--all-extras"]
        + ["--universal", "--fork-strategy", "fewest", "--no-annotate", "--no-header"]
        + ["--no-emit-index-url", "--no-emit-find-links", "--upgrade", "--quiet"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if uv.returncode:
        return uv.returncode
    pins = [simplify(line) for line in uv.stdout.splitlines() if line.strip()]
    text = HEADER + "".join(f"{pin}\n" for pin in pins if pin)
    (ROOT / "constraints.txt").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
