"""``python -m bgkit``."""

import sys

from bgkit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
