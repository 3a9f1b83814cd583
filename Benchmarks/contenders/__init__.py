"""The contenders, one module each.

A module has two functions:

    start(threads) -> dict of version and facts     raises ImportError if the package is not installed
    formulations(case, inputs) -> {label: build}    empty if it has no kernel for the case

A formulation is one way to ask a library for the same result, the plainest first. The fastest one stands for the
library, so that ours is compared with what a peer can do rather than with one of its entry points. `build()` prepares
it and returns a Call; one that raises counts as not supported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

OURS = "swiftattn"
PEERS = ("torch", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Call:
    """A prepared call, to be timed."""

    run: Callable[[], Any]
    read: Callable[[Any], np.ndarray]  # run's result with the elements in the order of the reference
    calls: int = 1  # how many calls of the library one run makes
