"""``python -m rheos.cli``: the command line without the console script."""

import sys

from rheos.cli import main

sys.exit(main())
