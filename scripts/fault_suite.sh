#!/usr/bin/env bash
# Kills, damages and starves real training runs, and counts how many end as the run that nothing happened to.
#
#   bash scripts/fault_suite.sh [--json OUT] [--rows WORD] [--plant NAME] [--jobs 2] [--seed N]
#
# --plant breaks one promise on purpose, which must be reported as lost. Exit status 1: something was lost.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ -x .venv/bin/python ] || bash scripts/setup.sh
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
exec .venv/bin/python -m tests.faults.suite "$@"
