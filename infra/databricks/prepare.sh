#!/bin/sh
# Run by `databricks bundle deploy`: what the apps' folders lack, the wheel of this checkout and the agent.
set -eu
cd "$(dirname "$0")"
rm -f one/outlast-*.whl api/outlast-*.whl worker/outlast-*.whl
${PYTHON:-python3} -m pip wheel --quiet --no-deps --wheel-dir one ../..
cp one/outlast-*.whl api/
cp one/outlast-*.whl worker/
cp agent.py one/
cp agent.py worker/
