"""`python -m imgclf_sweep` is `sweep`."""

from .cli import main

main()
