"""One browser for the whole suite."""

import pytest
from chromium import Chromium


@pytest.fixture(scope="session")
def browser():
    chromium = Chromium()
    yield chromium
    chromium.close()
