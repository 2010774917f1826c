#!/bin/sh
# The runs behind this report: two learning rates, five seeds, three data sets. From the repository's root; README.md
# beside this file says what data/ holds. Started again it goes on.
set -eu
here=docs/example-report
for file in sst2/test.jsonl wnut17/test.conll squad/test.json; do
    if [ ! -e "data/$file" ]; then
        echo "data/$file is missing: $here/README.md says how to fill data/" >&2
        exit 2
    fi
done
for data in sst2 wnut17 squad; do
    for seed in 0 1 2 3 4; do
        for lr in 5e-5 2e-4; do
            research train "$here/experiments/$data.yaml" "optim.lr=$lr" "seed=$seed" \
                "run_dir=runs/example/$data-lr$lr/seed$seed" trainer.progress=false
        done
    done
done
research report runs/example --output "$here"
