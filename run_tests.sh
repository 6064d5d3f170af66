#!/usr/bin/env bash
# Run the tests; .venv is made as by run_all.sh. Arguments go to pytest, e.g. ./run_tests.sh -m 'not slow' -k trainer
set -euo pipefail
unset CDPATH # as in run_all.sh
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
unset PYTHONDONTWRITEBYTECODE # as in run_all.sh
"$root/run_all.sh" --setup-only
cd "$root"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@" # two files at a time
