#!/usr/bin/env bash
# Fills scripts/wheels with what gpu_check.sh needs beside torch 2.11 and transformers 5.17, on
# Python 3.12 and x86-64: about 8 MB.  Versions are those of constraints.txt where it has them.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
needed=(
  # rlvr_zoo's
  annotated-types platformdirs pydantic pydantic_core typing-inspection torchao
  # TRL's
  trl==1.16.0 datasets dill multiprocess
  # to install the checkout
  hatchling pathspec trove-classifiers
)
platforms=()
for tag in manylinux_2_{28,27,24,17}_x86_64 manylinux2014_x86_64; do
  platforms+=(--platform "$tag")
done
pinned=()
for name in "${needed[@]}"; do
  pinned+=("$(grep -ixE "${name//[-_]/[-_]}==.*" constraints.txt || echo "$name")")
done
rm -rf scripts/wheels
"$python" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
  --python-version 3.12 --implementation cp "${platforms[@]}" -d scripts/wheels "${pinned[@]}"
du -ch scripts/wheels/*.whl
