"""`python -m research.cli`, which ranks and other processes of ours are started by."""

import sys

from research.cli import main

sys.exit(main())
