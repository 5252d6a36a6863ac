"""Questions asked of a model: each returns an `xarray.Dataset` with units and provenance; `plot` draws it.

The public names stand in `__init__.pyi`. They are imported when they are first used, so that the command line shows its help without
loading torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
