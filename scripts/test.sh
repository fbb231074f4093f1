#!/usr/bin/env bash
# Sets up, checks style, types and imports, runs the tests: bash scripts/test.sh [pytest arguments]. Without arguments, all tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh

# Small tensors and several processes on few cores: spinning threads only take time from each other.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"

# uv installs no bytecode. Where Python may not write any either, each process that a test starts recompiles torch.
unset PYTHONDONTWRITEBYTECODE

.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m mypy
.venv/bin/lint-imports --no-logo
exec .venv/bin/python -m pytest "$@"
