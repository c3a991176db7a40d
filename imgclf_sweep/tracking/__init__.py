"""Listeners to a running sweep: the terminal and TensorBoard. They only hear; the record is the truth."""
