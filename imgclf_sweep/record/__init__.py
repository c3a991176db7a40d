"""`sweeps/<name>/`: what is true of a sweep. One writer, any number of readers."""
