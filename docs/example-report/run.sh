#!/bin/sh
# The runs behind this report: two learning rates, five seeds, three data sets. From the repository's root.
set -eu
for seed in 0 1 2 3 4; do
    for data in sst2 wnut17 squad; do
        for lr in 5e-5 2e-4; do
            research train "docs/example-report/experiments/$data.yaml" "optim.lr=$lr" "seed=$seed" \
                "run_dir=runs/example/$data-lr$lr/seed$seed" trainer.progress=false
        done
    done
done
research report runs/example --output docs/example-report
