#!/usr/bin/env bash
# Install the wheel with every documented choice of extras, and with each extra alone, into an environment of its own,
# and try the commands there.
#   scripts/check_extras.sh DIRECTORY [--python 3.12] [--resolution lowest-direct] [EXTRAS...]    # needs the index
# With --resolution lowest-direct the lower bounds of pyproject.toml are installed (torch as in constraints.txt).
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && cd "$1" && shift
python=3.11 resolution="" chosen=()
while [ $# -gt 0 ]; do
  case $1 in
    --python) python=$2; shift 2 ;;
    --resolution) resolution=$2; shift 2 ;;
    *) chosen+=("$1"); shift ;;
  esac
done
test -x tools/bin/uv || { python3 -m venv tools && tools/bin/pip install --quiet uv build; }
export UV_FIND_LINKS=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}} OMP_NUM_THREADS=1
rm -rf wheel && tools/bin/python -m build --quiet --wheel --outdir wheel "$here"
wheel=$(echo "$PWD"/wheel/*.whl)

if [ ${#chosen[@]} -eq 0 ]; then
  # What the documents say (README.md, docs), then every extra alone; sscha builds from source (scripts/env_sscha.sh).
  mapfile -t chosen < <(
    grep -rhoE "'\.\[[a-z,]+\]'" "$here/README.md" "$here/docs" | tr -d "'.[]" | grep -v mace,fairchem | sort -u
    sed -n '/optional-dependencies/,/^$/s/^\([a-z]*\) = .*/\1/p' "$here/pyproject.toml" | grep -v sscha
    echo ""
  )
fi
failed=0
for extras in "${chosen[@]}"; do
  name=${extras:-none}$resolution-$python
  constraints=$here/constraints$([[ $extras == *fairchem* ]] && echo -fairchem || true).txt
  if [ -n "$resolution" ]; then
    grep '^torch==' "$constraints" >torch.txt
    constraints=$PWD/bounds-$name.txt
    tools/bin/uv pip compile --quiet "$here/pyproject.toml" ${extras:+--extra ${extras//,/ --extra }} -c torch.txt \
      --resolution "$resolution" --python-version "$python" -o "$constraints"
  fi
  rm -rf "$name"
  tools/bin/uv venv --quiet --python "$python" "$name"
  if VIRTUAL_ENV=$PWD/$name tools/bin/uv pip install --quiet "$wheel${extras:+[$extras]}" -c "$constraints" &&
    "$name/bin/hint" --version >/dev/null && "$name/bin/hint" doctor >"$name/doctor.txt" &&
    "$name/bin/python" "$here/scripts/check_imports.py" ${extras//,/ }; then
    # The demo works where its packages are; elsewhere one sentence names them before anything is done.
    status=0
    "$name/bin/hint" demo --structures 2 --steps 2 --out "$name/demo" >"$name/demo.txt" 2>&1 || status=$?
    grep -q Traceback "$name/demo.txt" && status=3
    echo "$name: demo $([ $status -eq 0 ] && echo works || tail -n 1 "$name/demo.txt") (status $status)"
    case $status in 0 | 2) ;; *) failed=1 ;; esac
  else
    echo "$name: FAILED"
    failed=1
  fi
done
exit $failed
