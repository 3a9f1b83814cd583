"""Which extra of pyproject.toml brings a package that is missing."""

from __future__ import annotations

EXTRAS = {
    "models": ("tokenizers", "jinja2", "safetensors", "ml_dtypes"),
    "plots": ("matplotlib",),
}


def missing(error: ImportError) -> str:
    """The error as a message that says what to install."""
    package = (error.name or "").partition(".")[0]
    for extra, packages in EXTRAS.items():
        if package in packages:
            return (
                f"this needs {package}, which is not installed: "
                f"pip install {' '.join(packages)}, what the extra swiftattn[{extra}] brings"
            )
    return str(error)
