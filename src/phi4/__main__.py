"""`python -m phi4`: the same as the command `phi4`."""

from __future__ import annotations

import sys

from phi4.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
