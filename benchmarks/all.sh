#!/usr/bin/env bash
# All benchmarks one after the other; options go to each: benchmarks/all.sh --out=tables.md
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH=.  # this tree, installed or not
for script in startup limits leaf leaf_step extraction epoch layers loading corpus grid; do
    "${PYTHON:-python}" "benchmarks/$script.py" "$@"
done
