"""The command line: a module for each command, a frame around them."""

from .frame import main

__all__ = ["main"]
