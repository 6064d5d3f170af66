"""The three lists of packages agree, and thop imports where Python has no distutils."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version

import pytest

from odnlib.files import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
PINNED = dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", LOCK, re.MULTILINE))


def test_lock_pyproject_and_conda_environment_agree():
    listed = sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])
    direct = {re.match(r"[A-Za-z0-9_-]+", requirement).group().lower() for requirement in listed}
    conda = re.findall(r"^ +- ([a-z0-9-]+)==(\S+)  # \S", (ROOT / "environment.yml").read_text(), re.MULTILINE)
    assert direct == set(dict(conda)), "each direct dependency stands in environment.yml with its reason"
    assert {name: PINNED.get(name) for name in direct} == dict(conda)
    assert "://" not in LOCK, "a registry is for whoever installs to choose"


def test_what_is_installed_is_what_the_lock_says():
    for name in ("torch", "torchvision", "pandas", "papermill"):
        assert PINNED[name] == version(name).split("+")[0]


@pytest.mark.slow
def test_training_imports_without_the_extras():
    extras = [*PROJECT["optional-dependencies"]["notebooks"], *PROJECT["optional-dependencies"]["export"], "IPython"]
    missing = [name.replace("scikit-learn", "sklearn") for name in extras]
    code = f"import sys; sys.modules |= dict.fromkeys({missing}); import odnlib.__main__, odnlib.optimal"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.slow
def test_thop_imports_through_setuptools():
    """The distutils it imports is the one that setuptools brings, on this and every supported Python."""
    code = "import thop, distutils; print(distutils.__file__)"
    shown = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert "setuptools" in shown.stdout
