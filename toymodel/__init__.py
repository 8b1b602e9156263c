"""A minimal model of how in-context and in-weights learning compete and cooperate: see the README.

Names are imported from their modules when they are first used, so that a script depends on what it uses and on
nothing else.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
