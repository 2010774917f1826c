#!/bin/sh
# Train the three tasks on the shipped data and print one table. Usage: quickstart.sh PATH-TO-RESEARCH
set -eu
research=$1
for task in sentiment ner qa; do
    echo "== $task"
    "$research" train "experiments/quickstart/$task.yaml"
done
"$(dirname "$research")/python" scripts/quickstart_table.py runs/quickstart
cat <<'NEXT'

Next, try your own settings or your own data:
  .venv/bin/research train experiments/quickstart/sentiment.yaml optim.lr=5e-5 seed=1 run_dir=runs/mine
  .venv/bin/research predict runs/quickstart/ner/seed0 --input research/quickstart/ner/test.conll --output tagged.jsonl
NEXT
