"""`python -m sdcore.webui` is `sdcore ui`."""

import sys

from sdcore.cli import main

if __name__ == "__main__":
    main(["ui", *sys.argv[1:]])
