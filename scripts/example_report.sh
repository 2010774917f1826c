#!/bin/sh
# The example report of the documentation, from training to the page: two learning rates, three seeds, two public data
# sets. DATA is a folder with sst2/ and wnut17/ (docs/example-report/README.md says what they hold). Started again it
# goes on. Usage: example_report.sh PATH-TO-RESEARCH DATA OUTPUT, in the repository's root
set -eu
export research="$1" data="$2" OMP_NUM_THREADS=1
output=$3
for file in sst2/test.jsonl wnut17/test.conll; do
    if [ ! -e "$data/$file" ]; then
        echo "$data/$file is missing: docs/example-report/README.md says what DATA holds" >&2
        exit 2
    fi
done
for seed in 0 1 2; do
    for set in wnut17,conll sst2,jsonl; do
        for lr in 1e-4 3e-4; do
            echo "${set%,*} ${set#*,} $lr $seed"
        done
    done
done | xargs -n 4 -P "${JOBS:-$(nproc)}" sh -c '
    "$research" train "docs/example-report/experiments/$1.yaml" "optim.lr=$3" "seed=$4" \
        "data.train=$data/$1/train.$2" "data.validation=$data/$1/validation.$2" "data.test=$data/$1/test.$2" \
        "run_dir=runs/example/$1-lr$3/seed$4" wandb.mode=disabled trainer.progress=false' research-train
"$research" report runs/example --output "$output"
"$research" report --check "$output"
sh scripts/report_pictures.sh "$output" "$(dirname "$research")/python"
