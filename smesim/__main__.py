"""`python -m smesim` is the command line."""

from smesim.cli import main

main()
