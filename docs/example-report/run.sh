#!/bin/sh
# The runs behind this report: two learning rates, five seeds, three data sets, JOBS runs at a time (1). From the
# repository's root; README.md beside this file says what data/ holds. Started again it goes on.
set -eu
export here=docs/example-report OMP_NUM_THREADS=1
for file in sst2/test.jsonl wnut17/test.conll squad/test.json; do
    if [ ! -e "data/$file" ]; then
        echo "data/$file is missing: $here/README.md says how to fill data/" >&2
        exit 2
    fi
done
for seed in 0 1 2 3 4; do
    for data in squad wnut17 sst2; do
        for lr in 5e-5 2e-4; do
            echo "$data $lr $seed"
        done
    done
done | xargs -n 3 -P "${JOBS:-1}" sh -c '
    research train "$here/experiments/$1.yaml" "optim.lr=$2" "seed=$3" \
        "run_dir=runs/example/$1-lr$2/seed$3" trainer.progress=false' research-train
research report runs/example --output "$here"
