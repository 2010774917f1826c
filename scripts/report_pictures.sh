#!/bin/sh
# Two pictures of a report: table.png, the table as LaTeX sets it, and page.png, the top of index.html in a browser.
# What is missing (pdflatex, pdftoppm, chromium) is named and its picture left out.
# Usage: report_pictures.sh REPORT PYTHON
set -eu
python=$(command -v "$2")
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
cd "$1"
if command -v pdflatex > /dev/null && command -v pdftoppm > /dev/null; then
    sed -e '/begin{figure}/,/end{figure}/d' -e 's/begin{document}/&\\pagestyle{empty}/' page.tex > table.tex
    pdflatex -interaction=batchmode -halt-on-error table.tex > /dev/null
    pdftoppm -r 170 -png -singlefile table.pdf table
    rm -f table.tex table.pdf table.aux table.log
    "$python" -c "
from PIL import Image, ImageOps
page = Image.open('table.png').convert('L')
left, top, right, bottom = ImageOps.invert(page).getbbox()
page.crop((left - 20, top - 20, right + 20, bottom + 20)).save('table.png')"
else
    echo "pdflatex or pdftoppm is missing (Debian: texlive-latex-base texlive-latex-recommended poppler-utils): no table.png"
fi
if command -v chromium > /dev/null; then
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1280,1150 \
        --screenshot=page.png "file://$PWD/index.html" > /dev/null 2>&1
else
    echo "chromium is missing: no page.png"
fi
