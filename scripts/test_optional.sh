#!/usr/bin/env bash
# Runs the tests marked `ci`: those that are slow, or need an optional package or a browser.
#
#   bash scripts/test_optional.sh [pytest arguments]
#
# Installs every requirements/*.txt into an environment of its own, .venv-ci, and leaves .venv as it is. Installs Chromium
# where apt and root are at hand; without a browser the tests that need one are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
say() { echo "test_optional: $*" >&2; }

python=.venv-ci/bin/python
install() {
    if [ -x .venv/bin/uv ] && .venv/bin/uv pip install --python "$python" "$@" >&2; then return; fi
    "$python" -m ensurepip > /dev/null && "$python" -m pip install --disable-pip-version-check "$@" >&2
}

wanted=(-r requirements.txt)
for file in requirements/*.txt; do wanted+=(-r "$file"); done
fingerprint=$(cat requirements.txt requirements/*.txt constraints.optional.txt | cksum)
if [ "$(cat .venv-ci/richsem.stamp 2> /dev/null)" != "$fingerprint" ]; then
    say "creating .venv-ci"
    # Made from the interpreter below .venv: with .venv's own it would find .venv's packages.
    "$(.venv/bin/python -c 'import sys; print(sys._base_executable)')" -m venv --clear --without-pip .venv-ci
    if ! install "${wanted[@]}" -c constraints.optional.txt; then
        say "these versions are not available; installing what the requirements allow"
        install "${wanted[@]}"
    fi
    echo "$fingerprint" > .venv-ci/richsem.stamp
fi

if ! { command -v chromium || command -v chromium-browser || command -v google-chrome; } > /dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
        say "installing Chromium"
        { apt-get update -q && apt-get install -q -y --no-install-recommends chromium fonts-dejavu; } >&2 ||
            say "Chromium cannot be installed; the tests that need it are skipped"
    else
        say "there is no Chromium; the tests that need it are skipped"
    fi
fi

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
# Without bytecode each process that a test starts recompiles torch.
unset PYTHONDONTWRITEBYTECODE
# As scripts/test.sh does it.
exec "$python" -m pytest -n auto --maxprocesses 4 --dist loadfile -m ci -rs "$@"
