"""What the documentation tells a reader to type works."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from support import REPO, compose

PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
INVENTED = "my_rule"
"""The strategy that the contributing guide adds."""
UNNAMED = ["hyper.py", "machine.py"]
"""Small helpers that the guide's tree leaves out."""


def blocks(language: str) -> list[tuple[Path, str]]:
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(page, text) for page in PAGES for text in fence.findall(page.read_text())]


def commands(program: str) -> list[list[str]]:
    """Arguments of every documented call of ``program``, comments and placeholders left out."""
    found = []
    for _, text in blocks("bash"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(re.sub(r"<[^>]*>", "PLACE", line), comments=True)
            if words[: len(program.split())] == program.split():
                found.append(words[len(program.split()) :])
    return found


TRAIN = [c for c in commands("python train.py") if "--help" not in c and INVENTED not in str(c)]


@pytest.mark.parametrize("arguments", TRAIN, ids=" ".join)
def test_train_commands_compose(arguments: list[str]) -> None:
    overrides = [a for a in arguments if a != "-m"]
    parsed = OverridesParser.create().parse_overrides(overrides)
    first = [
        f"{o.get_key_element()}={next(iter(o.sweep_string_iterator()))}"
        if o.is_sweep_override()
        else text
        for o, text in zip(parsed, overrides, strict=True)
        if not o.get_key_element().startswith("hydra")
    ]
    assert compose("tracker=wandb", *first)["strategy"]["_target_"]


def test_make_targets_exist() -> None:
    makefile = (REPO / "Makefile").read_text()
    targets = {a for c in commands("make") for a in c if "=" not in a}
    assert {"demo", "test", "help", "reproduce-paper"} <= targets
    for target in targets:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target


def test_scripts_exist() -> None:
    called = {
        word
        for _, text in blocks("bash")
        for word in itertools.chain(*(line.split() for line in text.splitlines()))
        if word.startswith("scripts/")
    }
    assert "scripts/reproduce.py" in called
    for script in called:
        assert (REPO / script).exists(), script


def test_the_tree_of_the_contributing_guide_is_there() -> None:
    """Every file and folder that it names exists, and every part of the package is named."""
    guide = (REPO / "CONTRIBUTING.md").read_text()
    tree = guide[guide.index("```\nconf/ ") : guide.index("Rules that keep it so")]
    package = tree[tree.index("miles_repro/ ") : tree.index("\nscripts/ ")]
    named = set(re.findall(r"(?<![\w./])([a-z_]+(?:\.py|/))(?=[\s;,)]|$)", package))
    places = [REPO / "miles_repro", REPO / "miles_repro" / "data", REPO]
    for name in named:
        assert any((place / name).exists() for place in places), name
    parts = {p.name + "/" * p.is_dir() for p in (REPO / "miles_repro").iterdir()}
    private = {"__init__.py", "__pycache__/", "py.typed"}
    unnamed = sorted(parts - private - named)
    assert unnamed == UNNAMED, unnamed


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_scheduler_example_runs(tmp_path: Path) -> None:
    ((_, example),) = [found for found in blocks("python") if found[0].name == "README.md"]
    script = tmp_path / "example.py"
    script.write_text(example)
    run = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "PATH": ""},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == 30
    assert any("'image': 0.5" in line for line in lines)  # MILES acts in the example
