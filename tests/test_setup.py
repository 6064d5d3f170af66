"""run_all.sh before any notebook: help, the environment that it makes, and the caller's that stays outside."""

import os
import shutil
import subprocess
import sys

import pytest

import run_all
from odnlib.files import ROOT


def test_help_needs_no_environment(tmp_path):
    for name in ("run_all.sh", "run_all.py"):
        shutil.copy(ROOT / name, tmp_path)
    shown = subprocess.run([tmp_path / "run_all.sh", "--help"], capture_output=True, text=True)
    assert all(action.option_strings[-1] in shown.stdout for action in run_all.build_parser()._actions)
    assert not (tmp_path / ".venv").exists()


def bare_copy(folder, python):
    """run_all.sh with a .venv that seems finished; `python` is a script in place of its Python."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / "odnlib").mkdir()
    for name in ("run_all.sh", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    shutil.copy(ROOT / "requirements.lock", folder / ".venv" / "installed.lock")
    (folder / ".venv" / "bin" / "python").write_text(f"#!/usr/bin/env bash\n{python}\n")
    (folder / ".venv" / "bin" / "python").chmod(0o755)
    return folder


def test_the_callers_settings_stay_outside(tmp_path):
    """But for those that say how packages are reached."""
    bare_copy(tmp_path / "odn", '[ "$1" = -Ic ] && echo "${0%/.venv*}/odnlib" || env')
    leaks = {"CDPATH", "MPLBACKEND", "MPLCONFIGDIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_PATH", "PYTHONPATH",
             "PYTHONHOME", "PYTHONWARNINGS", "PYTHONOPTIMIZE", "PYTHONINSPECT", "PYTHONSAFEPATH", "PYTHONSTARTUP",
             "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_NO_DEPS", "PIP_REQUIRE_HASHES", "PIP_CONSTRAINT",
             "PIP_NO_BINARY", "PIP_DRY_RUN", "UV_TARGET", "UV_SYSTEM_PYTHON", "UV_NO_DEPS", "UV_PYTHON"}  # fmt: skip
    kept = {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_PROXY", "PIP_CONFIG_FILE",
            "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_FIND_LINKS", "UV_NATIVE_TLS", "HTTPS_PROXY"}  # fmt: skip
    given = {name: str(tmp_path) for name in leaks | kept} | {"PIP_USER": "1", "PATH": os.environ["PATH"]}
    shown = subprocess.run(
        ["bash", "odn/run_all.sh"], cwd=tmp_path, env=given, capture_output=True, text=True, check=True
    )
    had = dict(line.split("=", 1) for line in shown.stdout.splitlines())
    assert not had.keys() & leaks
    assert had.items() >= {(name, str(tmp_path)) for name in kept} | {("PIP_USER", "0")}


def test_an_environment_of_another_place_is_made_again(tmp_path):
    """A copied or moved checkout: its .venv would import the odnlib of the old place."""
    old = bare_copy(tmp_path / "old", f"echo {tmp_path}/old/odnlib")
    without = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    (tmp_path / "bin").mkdir()
    for name in ("bash", "dirname", "cmp", "env"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    places = {"old": old, "copied": shutil.copytree(old, tmp_path / "copied", symlinks=True)}
    (tmp_path / "link").symlink_to(old)
    places |= {"link": tmp_path / "link", "moved": tmp_path / "moved"}
    for name, place in places.items():
        if name == "moved":
            old.rename(place)
        shown = subprocess.run([place / "run_all.sh", "--setup-only"], env=without, capture_output=True, text=True)
        assert (shown.returncode == 0) == (name in ("old", "link")), name
        assert name in ("old", "link") or "no Python 3.11 to 3.14 found on PATH" in shown.stderr  # set-up began


PYTHON = f'exec {sys.executable} "$@"'
OFFLINE = "the packages could not be installed, the package index cannot be reached: connect to the network"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("commands", "reason"),
    [
        ({"python3": "exit 1"}, "no Python 3.11 to 3.14 found on PATH: install one"),
        ({"python3": f'[[ "$*" == *ensurepip* ]] && exit 1; {PYTHON}'}, "python3 has no venv module: install it"),
        ({"python3": PYTHON, "df": "echo; echo / 9000000 8000000 1000000 90% /"}, "the packages need 8 GB, and"),
        ({"python3": PYTHON, "uv": "echo error: failed to connect >&2; exit 2"}, OFFLINE),
    ],
)
def test_set_up_says_what_is_missing(commands, reason, tmp_path):
    """run_all.sh --setup-only in a bare copy, where each of `commands` is a small script in place of the real one."""
    for name in ("run_all.sh", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for name in {"bash", "dirname", "cmp", "df", "awk", "rm", "cp", "mv", "grep", "tail", "env"} - set(commands):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    for name, script in commands.items():
        (tmp_path / "bin" / name).write_text(f"#!{shutil.which('bash')}\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "PIP_NO_INDEX": "1"}
    shown = subprocess.run([tmp_path / "run_all.sh", "--setup-only"], capture_output=True, text=True, env=environment)
    (line,) = shown.stderr.splitlines()
    assert line.startswith(f"run_all.sh: {reason}")
    assert shown.returncode == 1
