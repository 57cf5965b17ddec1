#!/usr/bin/env bash
# Judge the champion of models/registry.yaml against the one of an earlier commit, as `pneumo promote` did where it was made:
#   bash .github/scripts/gate.sh COMMIT
# models/ holds the bundles, data/ the data set. A promotion that somebody forced is told, and left to the approval.
set -euo pipefail
before=$1
pneumo=${PNEUMO:-.venv/bin/pneumo}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

shown=$("$pneumo" models show champion --models-dir models --json) # fails where a file is not what was sealed
ask() { python3 -c "import json, sys; shown = json.load(sys.stdin); print($1)" <<< "$shown"; }

cp -R models/. "$work"
if ! git show "$before:models/registry.yaml" > "$work/registry.yaml" 2> /dev/null; then
  rm "$work/registry.yaml"
  echo "there was no registry before"
fi
if "$pneumo" promote "./$(ask 'shown["folder"]')" --models-dir "$work" --data data; then
  exit 0
fi
reason=$(ask '(shown["promotions"] or [{}])[-1].get("forced") or ""')
[ -n "$reason" ] || exit 1
echo "::warning::The gate refuses this model. It was forced, because: $reason"
