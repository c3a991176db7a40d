"""The model families, and the adapter for a user's `build(hp)`. Only functions in here import Keras, when called."""
