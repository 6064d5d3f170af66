#!/usr/bin/env bash
# Regenerate tables and figures: make .venv where it is missing or out of date, then run the notebooks.
# ./run_all.sh --help lists the options; ./run_all.sh --setup-only stops after .venv.
set -euo pipefail
shopt -s extglob
unset CDPATH # with it cd may lead elsewhere, and prints where
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=$root/.venv
log=$root/.venv-setup.log
needed_gb=8
for name in $(compgen -e); do # of the caller's settings of these tools only those stay that say how packages are reached
    case $name in
        PIP_*@(INDEX|FIND_LINKS|PROXY|HOST|CERT|CACHE|CONFIG|TIMEOUT|RETRIES|KEYRING)*) ;;
        UV_*@(INDEX|FIND_LINKS|HTTP|HOST|CERT|TLS|CACHE|CONFIG|TIMEOUT|RETRIES|KEYRING|OFFLINE)*) ;;
        PIP_* | UV_* | PYTHON* | IPYTHON* | JUPYTER* | MPL*) unset "$name" ;;
    esac
done
if [ ! -w "${HOME:-/nowhere}" ]; then # a user that only a cluster's or a container's number knows
    export HOME=$root/data/.home
    mkdir -p "$HOME" # ignored by git
fi
export PIP_USER=0 # also where pip's configuration file says otherwise

fail() { # say it in a line; an environment that was there before stays
    echo "run_all.sh: $*" >&2
    if [ -d "$venv.before" ]; then rm -rf "$venv" && mv "$venv.before" "$venv"; fi
    exit 1
}

find_python() { # prints the first Python that the locked packages support
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 python3.14; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

ready() { # today's packages, and this odnlib: a .venv that was copied or moved with its folder has that of the old place
    local where='from importlib.util import find_spec; print(*find_spec("odnlib").submodule_search_locations)'
    cmp -s "$root/requirements.lock" "$venv/installed.lock" &&
        [ "$("$venv/bin/python" -Ic "$where" 2>/dev/null)" -ef "$root/odnlib" ]
}

install() { # install ARGUMENTS...: by uv where it can be had (much faster), else by pip
    if command -v uv >/dev/null && uv pip install --python "$venv/bin/python" "$@" >>"$log" 2>&1; then
        return
    fi
    if [ -x "$venv/bin/uv" ] && "$venv/bin/uv" pip install --python "$venv/bin/python" "$@" >>"$log" 2>&1; then
        return
    fi
    "$venv/bin/python" -m pip install "$@" >>"$log" 2>&1
}

set_up() {
    local python free_gb
    python=$(find_python) || fail "no Python 3.11 to 3.14 found on PATH: install one (python.org, or your package manager)"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python has no venv module: install it (on Debian and Ubuntu: apt install python3-venv)"
    free_gb=$(($(df -Pk "$root" | awk 'NR == 2 {print $4}') / 1000000))
    [ "$free_gb" -ge "$needed_gb" ] ||
        fail "the packages need $needed_gb GB, and $root has $free_gb GB free: free some, or clone to another disk"
    echo "Setting up .venv with $("$python" --version) from requirements.lock (once; 1 to 10 minutes, up to 6 GB)"
    : >"$log"
    if [ -d "$venv.before" ]; then rm -rf "$venv"; fi # left by a set-up that was killed
    if [ -d "$venv" ]; then mv "$venv" "$venv.before"; fi
    "$python" -m venv "$venv" || fail "$python -m venv $venv failed: see the lines above"
    command -v uv >/dev/null || "$venv/bin/python" -m pip install -q uv >>"$log" 2>&1 || true
    install -r "$root/requirements.lock" || fail "the packages could not be installed, $(reason)"
    install --no-deps --no-build-isolation -e "$root" || fail "odnlib could not be installed, $(reason)"
    cp "$root/requirements.lock" "$venv/installed.lock"
    ready || fail "the packages were not installed into .venv: a setting sends them elsewhere, see pip config list (log: $log)"
    rm -rf "$venv.before"
}

reason() { # why an installation failed, in a few words
    if grep -qiE 'name resolution|resolve host|dns error|failed to connect|network is unreachable|connection (refused|reset)|timed out|offline' "$log"; then
        echo "the package index cannot be reached: connect to the network and start again (log: $log)"
    else
        echo "the log $log ends: $(tail -n 1 "$log")"
    fi
}

for argument in "$@"; do
    if [ "$argument" = --help ] || [ "$argument" = -h ]; then
        "$venv/bin/python" "$root/run_all.py" --help 2>/dev/null || sed '/^"""$/,$d; s/^"""//' "$root/run_all.py"
        exit
    fi
done
ready || set_up
[ "${1:-}" = --setup-only ] && exit 0
exec "$venv/bin/python" "$root/run_all.py" "$@"
