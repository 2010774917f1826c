#!/bin/sh
# Train sentiment, NER, QA and summaries of dialogues on the shipped data and print their scores and some summaries.
# Usage: quickstart.sh PATH-TO-RESEARCH
set -eu
research=$1
for task in sentiment ner qa; do
    echo "== $task"
    "$research" train "experiments/quickstart/$task.yaml"
done
echo "== dialogue, before and after training"
"$research" train experiments/quickstart/dialogue.yaml optim.max_steps=0 run_dir=runs/quickstart/untrained/dialogue
"$research" train experiments/quickstart/dialogue.yaml
"$(dirname "$research")/python" scripts/quickstart_table.py runs/quickstart
cat <<'NEXT'

Next, try your own settings or your own data:
  .venv/bin/research train experiments/quickstart/sentiment.yaml optim.lr=5e-5 seed=1 run_dir=runs/mine
  .venv/bin/research predict runs/quickstart/ner/seed0 --input research/quickstart/ner/test.conll --output tagged.jsonl
NEXT
