"""Fits of a model to curves: `fit.py` is where to begin, `docs/fit.md` shows how."""
