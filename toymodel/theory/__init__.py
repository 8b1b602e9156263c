"""What the model does, derived: closed forms where there are any, else small integrations and equations to be solved.

`tm.theory.X` is the one way to all public names, which are listed in the stub beside this file. Each module names the
derivation that it comes from. Theory predicts: no module here imports an integrator of runs, nor a record.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
