"""Closed forms: what the model does, derived; each module names the derivation that it comes from."""
