"""Markers of the suite."""


def pytest_configure(config):
    config.addinivalue_line("markers", "once: does not depend on the instruction set; one run of the suite is enough")
