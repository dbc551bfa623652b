"""Run the program as ``python -m pyg_schnet.cli``."""

import sys

from pyg_schnet.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
