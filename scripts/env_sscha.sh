#!/usr/bin/env bash
# Install CellConstructor and python-sscha (they build from source) into a virtual environment.
#
#   scripts/env_sscha.sh [PYTHON] [--toy]
#
# PYTHON: interpreter of the environment (default .venv/bin/python). --toy adds F3ToyModel, for the SnTe check.
# Idempotent: what can be imported already is left alone.
set -euo pipefail

python=.venv/bin/python
packages=(cellconstructor:cellconstructor==1.6.2 sscha:python-sscha==1.6.2)
for argument in "$@"; do
  case $argument in
    --toy) packages+=(fforces:F3ToyModel==1.1.1) ;;
    -*) echo "usage: $0 [PYTHON] [--toy]" >&2; exit 2 ;;
    *) python=$argument ;;
  esac
done
command -v "$python" >/dev/null || { echo "$0: no interpreter at $python" >&2; exit 2; }

missing=()
for entry in "${packages[@]}"; do
  "$python" -c "import ${entry%%:*}" >/dev/null 2>&1 || missing+=("${entry#*:}")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "python-sscha and CellConstructor are installed"
  exit 0
fi

# System packages: a Fortran compiler and LAPACK with their pkg-config files.
if ! { command -v gfortran && command -v gcc && command -v pkg-config && pkg-config --exists openblas lapack; } >/dev/null; then
  system=(gfortran gcc pkg-config libopenblas-dev liblapack-dev)
  if command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "${system[@]}"
  elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then
    sudo apt-get update -qq && sudo apt-get install -y -qq --no-install-recommends "${system[@]}"
  else
    echo "$0: install these system packages and run again: ${system[*]}" >&2
    exit 2
  fi
fi

# Meson links against MPI as soon as it sees mpicc, which fails where only the MPI runtime is installed
# (openmpi-bin without libopenmpi-dev). MPI is optional, so the wrappers are kept out of PATH.
clean=$(mktemp -d)
trap 'rm -rf "$clean"' EXIT
IFS=: read -ra directories <<<"$PATH"
build_path=""
for directory in "${directories[@]}"; do
  [ -d "$directory" ] || continue
  if compgen -G "$directory/mpi*" >/dev/null; then
    shadow=$clean/$(echo "$directory" | tr / _)
    mkdir -p "$shadow"
    find "$directory" -maxdepth 1 -mindepth 1 ! -name 'mpi*' -exec ln -s -t "$shadow" {} +
    directory=$shadow
  fi
  build_path+=${build_path:+:}$directory
done

# `six` is needed by CellConstructor but not declared.
"$python" -m pip install --quiet meson-python meson ninja six spglib matplotlib
bin=$(dirname "$(command -v "$python")")
for package in "${missing[@]}"; do
  PATH="$bin:$build_path" "$python" -m pip install --quiet --no-build-isolation --no-deps "$package"
done
"$python" -c "import cellconstructor, sscha; print('installed python-sscha and CellConstructor')"
