#!/bin/sh
# Two pictures of a report: table.png, what LaTeX makes of page.tex, and page.png, the top of index.html in a browser.
# What is missing (pdflatex, pdftoppm, chromium) is named and left out. Usage: report_pictures.sh REPORT
set -eu
cd "$1"
if command -v pdflatex > /dev/null && command -v pdftoppm > /dev/null; then
    pdflatex -interaction=batchmode -halt-on-error page.tex > /dev/null
    rm -f page.aux page.log
    pdftoppm -r 170 -f 1 -l 1 -x 100 -y 130 -W 1210 -H 620 -png -singlefile page.pdf table
else
    echo "pdflatex or pdftoppm is missing (Debian: texlive-latex-base texlive-latex-recommended poppler-utils): no table.png"
fi
if command -v chromium > /dev/null; then
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1280,1150 \
        --screenshot=page.png "file://$PWD/index.html" > /dev/null 2>&1
else
    echo "chromium is missing: no page.png"
fi
