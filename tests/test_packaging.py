"""The files that say what gets installed agree with each other and with what the code imports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from importlib import metadata
from pathlib import Path

import pytest
import rattler
import yaml
from commands import REPO
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import miles_repro

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())


PYTHONS = [f"3.{minor}" for minor in range(8, 17)]


# The pairs known to work together: each torchvision requires exactly its torch.
TORCH_PAIRS = {
    ("linux", "x86_64"): ("2.14.1", "0.29.1"),
    ("linux", "aarch64"): ("2.9.1", "0.24.1"),
    ("darwin", "arm64"): ("2.14.1", "0.29.1"),
}


def supported(specifier: str) -> list[str]:
    return [python for python in PYTHONS if python in SpecifierSet(specifier)]


REQUIRES_PYTHON: str = PROJECT["project"]["requires-python"]


SUPPORTED = supported(REQUIRES_PYTHON)


def env(platform: str, machine: str, python: str) -> dict[str, str]:
    return {
        "sys_platform": platform,
        "platform_machine": machine,
        "python_version": python,
        "python_full_version": f"{python}.5",
    }


ENVIRONMENTS = [env(*machine, python) for machine in TORCH_PAIRS for python in SUPPORTED]


CORE = [Requirement(line) for line in PROJECT["project"]["dependencies"]]


EXTRAS = {
    extra: [Requirement(line) for line in lines]
    for extra, lines in PROJECT["project"]["optional-dependencies"].items()
}


def lock() -> list[Requirement]:
    lines = (REPO / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def pinned(environment: dict[str, str]) -> dict[str, str]:
    """Package -> version the lock gives in ``environment``; one version each."""
    found: dict[str, list[str]] = defaultdict(list)
    for pin in lock():
        if pin.marker is None or pin.marker.evaluate(environment):
            (specifier,) = pin.specifier
            assert specifier.operator == "==", pin
            found[canonicalize_name(pin.name)].append(specifier.version)
    assert {name: v for name, v in found.items() if len(v) > 1} == {}
    return {name: v[0] for name, v in found.items()}


def imported(path: Path) -> set[str]:
    """Top-level names of the absolute imports anywhere in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"miles_repro"}


def third_party(files: list[Path]) -> dict[str, list[str]]:
    """Distribution -> files that import it."""
    own = {path.stem for path in files} | {"tests", "scripts", "conftest", "bench"}
    homes = metadata.packages_distributions()
    users: dict[str, list[str]] = defaultdict(list)
    for path in files:
        for module in imported(path) - own:
            # A module that is not installed (an extra's) counts under its own name.
            for distribution in set(homes.get(module, [module])):
                users[canonicalize_name(distribution)].append(str(path.relative_to(REPO)))
    return users


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda e: "-".join(e.values()))
def test_lock_satisfies_every_declared_requirement(environment: dict[str, str]) -> None:
    pins = pinned(environment)
    declared = [*CORE, *(line for lines in EXTRAS.values() for line in lines)]
    for requirement in declared:
        name = canonicalize_name(requirement.name)
        if name == PROJECT["project"]["name"]:
            assert requirement.extras <= set(EXTRAS), requirement
        else:
            assert requirement.specifier.contains(pins[name], prereleases=True), requirement


@pytest.mark.parametrize("machine", TORCH_PAIRS, ids="-".join)
def test_torch_and_torchvision_are_the_working_pair(machine: tuple[str, str]) -> None:
    wanted = TORCH_PAIRS[machine]
    for python in SUPPORTED:
        environment = env(*machine, python)
        pins = pinned(environment)
        assert (pins["torch"], pins["torchvision"]) == wanted
        asked = {}
        for line in PROJECT["tool"]["uv"]["constraint-dependencies"]:
            requirement = Requirement(line)
            assert requirement.marker is not None
            if requirement.marker.evaluate(environment):
                asked[requirement.name] = str(requirement.specifier)
        assert asked == {"torch": f"=={wanted[0]}", "torchvision": f"=={wanted[1]}"}


def test_the_locked_pair_is_what_torchvision_itself_asks_for() -> None:
    lines = [Requirement(line) for line in metadata.requires("torchvision") or []]
    (wants,) = (line.specifier for line in lines if line.name == "torch")
    vision = metadata.version("torchvision").split("+")[0]
    assert [torch for torch, v in TORCH_PAIRS.values() if v == vision and torch in wants], (
        f"torchvision {vision} asks for torch{wants}: not a pair of TORCH_PAIRS"
    )


def test_lock_names_no_index_and_no_path() -> None:
    text = (REPO / "constraints.txt").read_text()
    assert not re.search(r"https?:|file:|@|^\s*-", text, re.MULTILINE)
    assert not re.search(r"https?:|file:", (REPO / "environment.yml").read_text())


def test_conda_environment_agrees() -> None:
    spec = yaml.safe_load((REPO / "environment.yml").read_text())
    assert set(spec) == {"name", "channels", "dependencies"}
    assert spec["name"] == PROJECT["project"]["name"]
    assert spec["channels"] == ["conda-forge", "nodefaults"]
    *conda, pip = spec["dependencies"]
    # All packages come through the lock: a version beside it could only contradict it.
    assert pip == {"pip": ["-c constraints.txt", "-e .[dev]"]}
    assert "dev" in EXTRAS
    specs = {str(rattler.MatchSpec(line).name): rattler.MatchSpec(line) for line in conda}
    names = {re.sub(r'.*"(.+)".*', r"\1", name) for name in specs}
    assert names == {"python", "pip", "make", "git"}
    versions = {line.split()[0]: line.split()[1:] for line in conda}
    (python,) = versions.pop("python")
    assert supported(python) == SUPPORTED
    assert all(not rest for rest in versions.values())


def test_python_range_is_the_same_everywhere() -> None:
    first, last = SUPPORTED[0], SUPPORTED[-1]
    classifiers = PROJECT["project"]["classifiers"]
    named = [c.rsplit(" ", 1)[1] for c in classifiers if re.search(r":: 3\.\d+$", c)]
    assert named == SUPPORTED
    assert PROJECT["tool"]["mypy"]["python_version"] == first
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + first.replace(".", "")
    after = f"3.{int(last.split('.')[1]) + 1}"
    for marker in PROJECT["tool"]["uv"]["environments"]:
        assert f"python_full_version < '{after}'" in marker
    low, high = (tuple(map(int, v.split("."))) for v in (first, after))
    assert f"{low} <= sys.version_info < {high}" in (REPO / "Makefile").read_text()
    assert f"Python {first} to {last}" in (REPO / "README.md").read_text()
    assert SpecifierSet(REQUIRES_PYTHON).contains(".".join(map(str, sys.version_info[:3])))


def test_versions_and_licence_agree() -> None:
    cff = yaml.safe_load((REPO / "CITATION.cff").read_text())
    changelog = (REPO / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE)
    assert cff["version"] == released[0] == miles_repro.__version__
    assert cff["license"] == PROJECT["project"]["license"] == "MIT"
    assert (REPO / "LICENSE").read_text().startswith("MIT License")
    assert {"cff-version", "message", "title", "authors", "references"} <= set(cff)
    assert "MILES" in cff["references"][0]["title"]


def test_every_import_is_declared() -> None:
    package = sorted((REPO / "miles_repro").rglob("*.py"))
    assert package
    assert names(CORE) == {"torch"}  # enough for the scheduler: test_wheel.py
    product = names(CORE).union(*(names(r) for extra, r in EXTRAS.items() if extra != "dev"))
    product |= {"pip"}  # part of every environment
    undeclared = {d: f for d, f in third_party(package).items() if d not in product}
    assert undeclared == {}
    folders = ("scripts", "tests", "examples")
    rest = [REPO / "train.py", *(path for f in folders for path in (REPO / f).rglob("*.py"))]
    tried = {"accelerate", "lightning", "timm", "ray"}  # their tests say so where they are absent
    declared = product | names(EXTRAS["dev"]) | tried
    undeclared = {
        d: f for d, f in third_party([p for p in rest if p.exists()]).items() if d not in declared
    }
    assert undeclared == {}


def test_every_data_file_of_the_package_is_shipped() -> None:
    settings = PROJECT["tool"]["setuptools"]
    shipped: set[Path] = set()
    for package, patterns in settings["package-data"].items():
        folder = REPO / settings["package-dir"].get(package, package.replace(".", "/"))
        for pattern in patterns:
            found = {path for path in folder.glob(pattern) if path.is_file()}
            assert found, f"{package}: {pattern} matches nothing"
            shipped |= found
    folders = ["miles_repro", *settings["package-dir"].values()]
    present = {
        path
        for folder in folders
        for path in (REPO / folder).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert present == shipped


def test_the_source_distribution_has_the_pictures_of_the_readme() -> None:
    pictures = re.findall(r"\]\((\S+\.png)\)", (REPO / "README.md").read_text())
    manifest = (REPO / "MANIFEST.in").read_text().splitlines()
    assert pictures
    assert [p for p in pictures if f"include {p}" not in manifest] == []
