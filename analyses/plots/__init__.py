"""Results in, figures out. The public names stand in `__init__.pyi`; `plot` draws a result of any kind."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
