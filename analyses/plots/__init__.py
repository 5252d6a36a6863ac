"""Results in, figures out. The public names stand in `__init__.pyi`; `plot` draws a result of any kind."""

from importlib import import_module

import lazy_loader

import_module("analyses.plots.theme")  # registers the template that figures name

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
