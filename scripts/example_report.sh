#!/bin/sh
# The example report of the documentation, from training to the page: two learning rates and three seeds on SST-2. DATA is
# a folder with sst2/ (docs/example-report/README.md says what it holds). Started again it continues.
# Usage: example_report.sh PATH-TO-RESEARCH DATA OUTPUT, in the repository's root
set -eu
export research="$1" data="$2" OMP_NUM_THREADS=1
output=$3
if [ ! -e "$data/sst2/test.jsonl" ]; then
    echo "$data/sst2/test.jsonl is missing: docs/example-report/README.md says what DATA holds" >&2
    exit 2
fi
for seed in 0 1 2; do
    for lr in 1e-4 3e-4; do
        echo "$lr $seed"
    done
done | xargs -n 2 -P "${JOBS:-$(nproc)}" sh -c '
    "$research" train docs/example-report/sst2.yaml "optim.lr=$1" "seed=$2" "data.train=$data/sst2/train.jsonl" \
        "data.validation=$data/sst2/validation.jsonl" "data.test=$data/sst2/test.jsonl" \
        "run_dir=runs/example/lr$1/seed$2" wandb.mode=disabled trainer.progress=false' research-train
"$research" report runs/example --output "$output"
"$research" report --check "$output"
sh scripts/report_pictures.sh "$output" "$(dirname "$research")/python"
