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
found=$(command -v "$python") || { echo "$0: no interpreter at $python" >&2; exit 2; }
# Absolute: pip builds in other directories, and its PATH has to lead to meson and ninja from there.
python=$("$found" -c 'import sys; print(sys.executable)')
bin=$("$python" -c 'import sysconfig; print(sysconfig.get_path("scripts"))')

missing=()
for entry in "${packages[@]}"; do
  "$python" -c "import ${entry%%:*}" >/dev/null 2>&1 || missing+=("${entry#*:}")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "python-sscha and CellConstructor are installed"
  exit 0
fi

# What the build needs of the system: C and Fortran compilers that link, LAPACK with its pkg-config files, and the
# headers of this Python.
lacking() {
  local try
  try=$(mktemp)
  command -v pkg-config >/dev/null || echo "pkg-config"
  pkg-config --exists openblas lapack 2>/dev/null || echo "LAPACK (openblas.pc, lapack.pc)"
  gcc -x c - -o "$try" <<<'int main(void) { return 0; }' 2>/dev/null || echo "a C compiler (gcc) with the C library's headers"
  gfortran -ffree-form -x f95 - -o "$try" <<<'end' 2>/dev/null || echo "a Fortran compiler (gfortran)"
  test -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ||
    echo "the headers of Python (Python.h for $python)"
  rm -f "$try"
}
if [ -n "$(lacking)" ]; then
  system=(gcc gfortran libc6-dev pkg-config libopenblas-dev liblapack-dev)
  # Only the system's own interpreter has its headers in a package of their own.
  system+=($("$python" -c 'import sys; print(f"python3.{sys.version_info.minor}-dev" if sys.base_prefix == "/usr" else "")'))
  become=()
  [ "$(id -u)" -eq 0 ] || become=(sudo -n)
  if command -v apt-get >/dev/null && "${become[@]}" true 2>/dev/null; then
    "${become[@]}" apt-get update -qq >/dev/null &&
      "${become[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${system[@]}" >/dev/null || true
  fi
  if still=$(lacking) && [ -n "$still" ]; then
    echo "$0: python-sscha builds from source and needs ${still//$'\n'/, }. On Debian and Ubuntu:" \
      "apt-get install ${system[*]}" >&2
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
for package in "${missing[@]}"; do
  PATH="$bin:$build_path" "$python" -m pip install --quiet --no-build-isolation --no-deps "$package"
done
"$python" -c "import cellconstructor, sscha; print('installed python-sscha and CellConstructor')"
