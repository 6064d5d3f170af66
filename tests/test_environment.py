"""The three lists of packages agree, and thop imports where Python has no distutils."""

import re
import subprocess
import sys
import tomllib

from odnlib.files import ROOT


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[A-Za-z0-9_-]+", requirement).group().lower() for requirement in requirements}


def test_lock_pyproject_and_conda_environment_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = names(sum(project["optional-dependencies"].values(), project["dependencies"]))
    lock = dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    conda = re.findall(r"^ +- ([a-z0-9-]+)==(\S+)  # \S", (ROOT / "environment.yml").read_text(), re.MULTILINE)
    assert direct == set(dict(conda)), "each direct dependency stands in environment.yml with its reason"
    assert direct <= set(lock)
    assert {name: lock[name] for name in direct} == dict(conda)


def test_lock_names_no_registry():
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_what_is_installed_is_what_the_lock_says():
    from importlib.metadata import version

    lock = (ROOT / "requirements.lock").read_text()
    for name in ("torch", "torchvision", "pandas", "papermill"):
        assert f"{name}=={version(name).split('+')[0]}" in lock


def test_training_imports_without_the_extras():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    missing = [name.replace("scikit-learn", "sklearn") for name in extras["notebooks"] + extras["export"]] + ["IPython"]
    code = f"import sys; sys.modules |= dict.fromkeys({missing}); import odnlib.__main__, odnlib.optimal"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_thop_imports_through_setuptools():
    """The distutils it imports is the one that setuptools brings, on this and every supported Python."""
    code = "import thop, distutils; print(distutils.__file__)"
    shown = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert "setuptools" in shown.stdout
