#!/usr/bin/env bash
# Measures the trainer on this machine's GPU, in under 8 minutes and without a network; prints JSON.
#
#   scripts/gpu_check.sh [--only 7b/popo ...]     arguments are those of gpu_check.py
#
# It wants a python3 (PYTHON names another) with torch and transformers; what that lacks comes from
# scripts/wheels, which scripts/gpu_wheels.sh fills on a machine with a network.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
# Not a virtual environment: made from a python that is itself in one, it would see the base
# installation's packages in place of that one's, and no torch.
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
trap 'exit 143' TERM INT
into=(-m pip install -q --no-index --no-deps --no-compile --no-cache-dir
  --disable-pip-version-check --root-user-action=ignore --upgrade --target "$site")
shopt -s nullglob
wheels=(scripts/wheels/*.whl)
if ((${#wheels[@]})); then
  "$python" "${into[@]}" "${wheels[@]}" >&2
else
  echo "scripts/wheels is empty; going on with what $python has" >&2
fi
export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
"$python" "${into[@]}" --no-build-isolation . >&2
"$python" scripts/gpu_check.py "$@" &
child=$!
trap 'kill -TERM $child 2>/dev/null' TERM INT # bash would wait for its end first
wait $child && code=0 || code=$?
wait $child 2>/dev/null || true
exit $code
