"""`python -m symbiont_datad`."""

from symbiont_datad.cli import main

main()
