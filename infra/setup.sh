#!/bin/sh
# Makes .venv hold exactly requirements.lock and this checkout, and does nothing when it already does.
#   infra/setup.sh         what `make run` needs
#   infra/setup.sh lint    requirements-lint.lock on top, which a later plain set-up keeps
#   infra/setup.sh uv      prints the path of a uv, for `make lock`
# Needs Python 3.11 or newer and a way to reach a package index once; every download is pinned by its hash.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
here=$(pwd -P)
tier=${1:-run}
stamp=.venv/.outlast-setup
log=.outlast/setup.log
sums=$(cat requirements.lock requirements-lint.lock pyproject.toml infra/setup.sh infra/setup.lock | cksum)

say() { printf '%s\n' "$*" >&2; }
fail() { printf '%s\n' "$@" >&2; exit 1; }

# The path is part of the stamp: a moved folder's editable install points to the old place.
stamped() { [ "$(cat "$stamp" 2>/dev/null)" = "$1 $sums $here" ] && .venv/bin/python -S -c '' 2>/dev/null; }
case $tier in
  run) if stamped run || stamped lint; then exit 0; fi ;;
  lint) if stamped lint; then exit 0; fi ;;
  uv) ;;
  *) fail "infra/setup.sh knows no '$tier'; say nothing, lint or uv." ;;
esac

# The interpreter itself, not the virtual environment that may be active (it may be the .venv to be remade).
python=
for name in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11; do
  python=$("$name" -c 'import sys; print(sys._base_executable if sys.version_info >= (3, 11) else "")' 2>/dev/null) || python=
  [ -z "$python" ] || break
done
[ -n "$python" ] || fail "Outlast needs Python 3.11 or newer; python3 here is $(python3 -V 2>/dev/null || echo missing)." \
  "Another one can be named: make setup PYTHON=/path/to/python3.12"

# One set-up at a time in this folder. The kernel holds the lock, so a killed set-up leaves none behind, and one
# whose installer outlived it is waited for.
if [ "${OUTLAST_SETUP_LOCKED:-}" != "$here" ]; then
  OUTLAST_SETUP_LOCKED=$here exec "$python" -c '
import fcntl, os, sys
lock = os.open("requirements.lock", os.O_RDONLY)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    print("Waiting for another set-up of this folder to end", file=sys.stderr)
    fcntl.flock(lock, fcntl.LOCK_EX)
os.dup2(lock, 9)  # inheritable; every child but the dots keeps it
os.execvp("sh", ["sh", "infra/setup.sh", sys.argv[1]])' "$tier"
fi

mkdir -p .outlast 2>/dev/null && (: > "$log") 2>/dev/null || fail "This folder ($here) cannot be written by $(id -un 2>/dev/null || id -u)."
dots=
trap 'kill $dots 2>/dev/null; say; say "Interrupted; the next set-up begins again."; exit 130' INT

# step "Doing this" command…: the text, a dot a second, the seconds it took. The command's own words go to the log.
step() {
  printf '%s ' "$1" >&2
  shift
  began=$(date +%s)
  (while sleep 1 2>/dev/null && kill -0 $$ 2>/dev/null; do printf . >&2; done) </dev/null >/dev/null 9>&- &
  dots=$!
  result=0
  ("$@") >>"$log" 2>&1 || result=$?
  kill "$dots" 2>/dev/null || true
  wait "$dots" 2>/dev/null || true
  dots=
  if [ "$result" = 0 ]; then say " $(($(date +%s) - began)) s"; else say " failed"; fi
  return "$result"
}
show_log() { tail -n 30 "$log" >&2; }

uv_version=$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' infra/setup.lock)
own_uv=$here/.outlast/uv-$uv_version/bin/uv

# UV_SYSTEM_CERTS and all the options used here exist since 0.11.
recent() { "$1" --version 2>/dev/null | awk '{ split($2, v, "."); new = v[1] > 0 || v[2] >= 11 } END { exit !new }'; }

# pip from the interpreter, else from a virtual environment made for this and thrown away.
fetch_uv() {
  target=.outlast/uv-$uv_version
  rm -rf "$target" "$target.part" "$target.pip"
  pip_python=$python
  if ! "$python" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv "$target.pip" || return 1
    pip_python=$target.pip/bin/python
  fi
  PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 "$pip_python" -m pip install --quiet --disable-pip-version-check --no-deps \
    --only-binary :all: --require-hashes --target "$target.part" -r infra/setup.lock || return 1
  rm -rf "$target.pip"
  mv "$target.part" "$target"
}

uv=$(command -v uv || true)
if [ -z "$uv" ] || ! recent "$uv"; then
  uv=$own_uv
  if ! recent "$uv" && ! step "Getting uv $uv_version" fetch_uv; then
    if "$python" -c 'import ensurepip, venv' 2>/dev/null || "$python" -m pip --version >/dev/null 2>&1; then
      show_log
      fail "uv $uv_version could not be fetched with pip; a uv on PATH would be used."
    fi
    rm -rf ".outlast/uv-$uv_version.pip"
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    fail "$python can neither make a virtual environment nor run pip." \
      "On Debian or Ubuntu: apt-get install python3-venv   (for this interpreter: $package)"
  fi
fi
if [ "$tier" = uv ]; then
  printf '%s\n' "$uv"
  exit 0
fi

# What the machine says about certificates and pip about its index is true for uv as well.
pip_settings=$("$python" -m pip config list 2>/dev/null || true)
pip_setting() {
  for scope in :env: install global; do
    value=$(printf '%s\n' "$pip_settings" | sed -n "s/^$scope\.$1='\(.*\)'\$/\1/p" | sed 's/\\n/ /g')
    if [ -n "$value" ]; then
      printf '%s' "$value"
      return
    fi
  done
}
index=${PIP_INDEX_URL:-$(pip_setting index-url)}
more=${PIP_EXTRA_INDEX_URL:-$(pip_setting extra-index-url)}
cert=${PIP_CERT:-$(pip_setting cert)}
[ -z "$index" ] || [ -n "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] || export UV_DEFAULT_INDEX="$index"
# pip looks at all indexes alike; with versions and hashes locked that is safe.
[ -z "$more" ] || [ -n "${UV_INDEX:-}${UV_EXTRA_INDEX_URL:-}" ] || export UV_EXTRA_INDEX_URL="$more" UV_INDEX_STRATEGY=unsafe-best-match
[ -z "$cert" ] || [ -n "${SSL_CERT_FILE:-}" ] || export SSL_CERT_FILE="$cert"
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}" UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1
unset UV_SYSTEM_PYTHON UV_REQUIRE_HASHES
cache=$("$uv" cache dir 2>/dev/null || true)
if [ -z "$cache" ] || ! mkdir -p "$cache" 2>/dev/null || ! [ -w "$cache" ]; then
  export UV_CACHE_DIR="$here/.outlast/cache"  # no writable home
fi

# A .venv without a stamp was made by somebody else or was interrupted: nobody knows what is in it.
old=$(cat "$stamp" 2>/dev/null || true)
case $old in lint*) tier=lint ;; esac
rm -f "$stamp"
doing=Updating
if [ -z "$old" ] || ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  doing=Installing
  say "Making .venv with $("$python" -V)"
  rm -rf .venv
  # Relocatable: the programs in .venv/bin find their interpreter in a moved folder, and in a path with a space.
  "$uv" venv --quiet --relocatable --python "$python" .venv >>"$log" 2>&1 || { show_log; exit 1; }
fi

files=requirements.lock
[ "$tier" = run ] || files="requirements.lock requirements-lint.lock"
sync() { # shellcheck disable=SC2086
  "$uv" pip sync --python .venv/bin/python --require-hashes "$@" $files
}
# What is in uv's cache needs no network, and a failing network should not matter then.
install() { sync --offline >/dev/null 2>&1 || sync; }
# shellcheck disable=SC2086
count=$(cat $files | sed -n 's/^\([a-z0-9][^=]*\)==.*/\1/p' | sort -u | grep -c .)
step "$doing $count locked packages" install || { show_log; exit 1; }
"$uv" pip install --python .venv/bin/python --offline --no-deps --no-build-isolation --editable . >>"$log" 2>&1 || { show_log; exit 1; }
# Each part once: Python then has the bytecode of what it imports, and the first start is as quick as the later ones.
warm() {
  for modules in outlast.infra.cli.dev outlast.api.server outlast.worker.app outlast.infra.checkpoint_tables \
    outlast.worker.agents.langgraph,examples.assistant.graph,examples.assistant.endpoint; do
    .venv/bin/python -c "import $modules" &
  done
  wait
}
step "Compiling" warm || true
printf '%s' "$tier $sums $here" > "$stamp.part"
mv "$stamp.part" "$stamp"
