"""Sweeps: many runs of a model over declared grids of whatever can be varied, measured as they run, resumable."""
