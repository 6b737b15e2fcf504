"""``python -m raytl``: the command line where no such program is installed, as in a job that brought the package."""

import sys

from raytl.cli import main

if __name__ == "__main__":
    sys.argv[0] = "raytl"
    main()
