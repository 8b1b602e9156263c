"""What the model does, derived: closed forms where there are any, else small integrations and equations to be solved.

It predicts and does not simulate. Each module names the derivation that it comes from; names are imported from their
modules when they are first used.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
