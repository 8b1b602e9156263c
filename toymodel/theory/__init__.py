"""What the model does, derived: closed forms where there are any, else small integrations and equations to be solved.

Each module names the derivation that it comes from.
"""
