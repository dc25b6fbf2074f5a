"""`python -m sdcore` is the `sdcore` command."""

from sdcore.cli import main

main()
