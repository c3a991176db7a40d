"""K trials of one shape as one compiled JAX program: a lane each. `shape.py`, `count.py` and `rates.py` do without JAX."""
