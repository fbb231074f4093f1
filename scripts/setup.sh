#!/usr/bin/env bash
# Creates .venv in the project's folder and installs the requirements; returns at once if they are installed.
#
#   bash scripts/setup.sh                    then use .venv/bin/python
#   PYTHON=/path/to/python bash scripts/setup.sh
#
# Installs the exact versions of constraints.txt if they are available, else within the ranges of requirements.txt.
# Changes nothing outside .venv. May be sourced: it neither changes directory nor leaves variables behind.

richsem_setup() (
    set -euo pipefail
    cd "$(dirname "${BASH_SOURCE[0]}")/.."

    say() { echo "setup: $*" >&2; }
    fail() { say "$*"; exit 1; }

    # Prints the first interpreter that is new enough.
    find_python() {
        local candidate version tried=""
        if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3 python3.13 python3.12 python3.11 python3.10; fi
        for candidate in "$@"; do
            version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
            if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
                echo "$candidate"
                return
            fi
            tried="$tried; $candidate is $version"
        done
        fail "Python 3.10 or newer is needed${tried:-; not found: $*}. Set one with PYTHON=/path/to/python3"
    }

    make_environment() {
        local base
        base=$(find_python) || exit 1
        say "creating .venv with $("$base" --version 2>&1)"
        "$base" -m venv --clear .venv >&2 ||
            fail "'$base -m venv' failed: install Python's venv module (Debian and Ubuntu: the package python3-venv)"
    }

    # Installs with uv, which is many times faster, or with pip if uv is missing or cannot reach the index.
    install() {
        if [ -x .venv/bin/uv ] && .venv/bin/uv pip install --python .venv/bin/python "$@" >&2; then return; fi
        .venv/bin/python -m pip install --disable-pip-version-check "$@" >&2
    }

    # A checksum of the requirements: if it changes, install again.
    fingerprint() { cat requirements.txt constraints.txt | cksum; }

    stamp=.venv/richsem-setup.stamp
    .venv/bin/python -c '' 2>/dev/null || make_environment
    if [ "$(cat "$stamp" 2>/dev/null)" = "$(fingerprint)" ]; then exit 0; fi
    rm -f "$stamp"

    .venv/bin/python -m pip --version > /dev/null 2>&1 || .venv/bin/python -m ensurepip >&2
    if [ ! -x .venv/bin/uv ]; then
        .venv/bin/python -m pip install --disable-pip-version-check --quiet uv >&2 || say "uv is not available, using pip"
    fi
    say "installing requirements.txt with the versions of constraints.txt"
    if ! install -r requirements.txt -c constraints.txt; then
        say "these versions are not available; installing what requirements.txt allows"
        install -r requirements.txt || fail "cannot install requirements.txt (see above)"
    fi
    fingerprint > "$stamp"
    say "done: .venv/bin/python"
)

richsem_setup
richsem_setup_status=$?
unset -f richsem_setup
if [ "${BASH_SOURCE[0]}" = "$0" ]; then exit "$richsem_setup_status"; fi
if [ "$richsem_setup_status" -ne 0 ]; then
    unset richsem_setup_status
    return 1
fi
unset richsem_setup_status
