"""CUDA without a card: see :mod:`cuda.bindings.runtime` beside this."""
