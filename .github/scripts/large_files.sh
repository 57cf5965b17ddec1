#!/usr/bin/env bash
# Refuse files that belong into DVC or into the registry: what is above 1 MB, and what holds images, weights or keys.
set -euo pipefail
refused=0
for file in "$@"; do
  case "$file" in
    *.dcm | *.onnx | *.pt | *.pth | *.ckpt | *.safetensors | *.parquet | *.sqlite3 | *keys.yaml)
      echo "$file: data, weights and keys stay out of git" >&2
      refused=1 ;;
  esac
done
while IFS= read -r file; do
  echo "$file: above 1 MB; data belongs into data/ (tracked by data.dvc)" >&2
  refused=1
done < <(find "$@" -prune -type f -size +1000000c)
exit "$refused"
