"""Half of the articles of a SQuAD file for validation, half for test: SQuAD's own test set is not public.

Usage: split_squad.py SQUAD.json FOLDER
"""

import json
import sys
from pathlib import Path

source, folder = Path(sys.argv[1]), Path(sys.argv[2])
content = json.loads(source.read_text(encoding="utf-8"))
for name, start in (("validation", 0), ("test", 1)):
    half = {**content, "data": content["data"][start::2]}
    (folder / f"{name}.json").write_text(json.dumps(half), encoding="utf-8")
