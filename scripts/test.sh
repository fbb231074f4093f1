#!/usr/bin/env bash
# Sets up, checks style, types and imports, and runs the tests (all of them, unless pytest arguments choose some):
#   bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh

# Tests use small tensors and several processes: on few cores, spinning threads only slow each other down.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"

# uv installs no bytecode. Where Python may not write any either, each process that a test starts recompiles torch.
unset PYTHONDONTWRITEBYTECODE

.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m mypy
.venv/bin/lint-imports --no-logo
# Tests of a file share what is slow to make, so they stay in one process. `-n 0` runs all in this one.
exec .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
