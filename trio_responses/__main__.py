"""The command line as ``python -m trio_responses``, for when its script is not on the PATH."""

import sys

from trio_responses._cli import main

if __name__ == "__main__":
    sys.exit(main())
