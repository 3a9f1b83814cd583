"""Markers of the suite, and what is left out where torch is not installed."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("torch") else ["peers"]


def pytest_configure(config):
    config.addinivalue_line("markers", "once: does not depend on the instruction set; one run of the suite is enough")
