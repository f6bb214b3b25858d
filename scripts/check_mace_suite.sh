#!/usr/bin/env bash
# MACE's own test-suite, first without this package, then (the tests that passed) with it installed.
#   scripts/check_mace_suite.sh DIRECTORY      # about an hour of one core; needs the package index
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && cd "$1"
export OMP_NUM_THREADS=1
version=0.3.16
for kind in stock hint; do
    test -e $kind/.stamp && continue
    python3 -m venv $kind
    $kind/bin/python -m pip install --quiet torch==2.13.0 numpy wheel setuptools -c "$here/constraints.txt"
    $kind/bin/python -m pip install --quiet mace-torch==$version pytest pytest-timeout -c "$here/constraints.txt"
    touch $kind/.stamp
done
hint/bin/python -m pip install --quiet "$here" -c "$here/constraints.txt"
test -d mace_torch-$version || {
    stock/bin/python -m pip download --quiet --no-deps --no-binary :all: --no-build-isolation mace-torch==$version
    tar xzf mace_torch-$version.tar.gz
}
cd mace_torch-$version
run=(-m pytest -q -rA -p no:cacheprovider --timeout=600)
../stock/bin/python "${run[@]}" --deselect tests/test_benchmark.py tests >../stock.txt 2>&1 || true
grep '^PASSED ' ../stock.txt | cut -d' ' -f2- >../passed.txt || true
tail -n 1 ../stock.txt
test -s ../passed.txt
status=0
../hint/bin/python "${run[@]}" @../passed.txt >../hint.txt 2>&1 || status=$?
tail -n 1 ../hint.txt
exit $status
