#!/bin/sh
# Two learning rates, five seeds, three tasks on the shipped data, as many runs at a time as there are cores; then the
# report over all of them. Started again it continues. Usage: report.sh PATH-TO-RESEARCH OUTPUT-FOLDER
set -eu
export research=$1 OMP_NUM_THREADS=1
for seed in 0 1 2 3 4; do
    for task in sentiment ner qa; do
        for lr in 5e-5 3e-4; do
            echo "$task $lr $seed"
        done
    done
done | xargs -n 3 -P "$(nproc)" sh -c '
    "$research" train "experiments/quickstart/$1.yaml" "optim.lr=$2" "seed=$3" optim.epochs=3 \
        "run_dir=runs/report/$1-lr$2/seed$3" trainer.progress=false' research-train
"$research" report runs/report --output "$2"
"$research" report --check "$2"
if command -v pdflatex > /dev/null; then
    (cd "$2" && pdflatex -interaction=batchmode -halt-on-error page.tex > /dev/null && rm -f page.aux page.log)
    echo "LaTeX: $2/page.pdf"
else
    echo "pdflatex is missing (Debian: texlive-latex-base texlive-latex-recommended): $2/page.tex was not compiled"
fi
