"""What pyproject.toml cannot say of the wheel: packages outside of miles_repro/, its front page."""

import re
from pathlib import Path

from setuptools import find_packages, setup

RELATIVE_LINK = re.compile(r"!?\[([^\]]+)\]\((?![a-z]+:|#)([^)]+)\)")


def front_page() -> str:
    """README.md without links into the repository, which lead nowhere from an index page."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    return RELATIVE_LINK.sub(lambda link: f"{link[1]} (`{link[2]}` in the repository)", text)


setup(
    # Those that find_packages cannot see are folders of the top level (package-dir).
    packages=[
        *find_packages(include=["miles_repro*"]),
        *("miles_repro.conf", "miles_repro.paper", "hydra_plugins.miles_sweeper"),
    ],
    long_description=front_page(),
    long_description_content_type="text/markdown",
)
