"""Which extra of pyproject.toml brings a package that is missing."""

from __future__ import annotations

EXTRAS = {
    "models": ("tokenizers", "jinja2", "safetensors", "ml_dtypes"),
    "plots": ("matplotlib",),
}


def missing(error: ImportError) -> str:
    """The error as a message that says what to install. Its cause may know the package's name better."""
    for cause in (error, error.__cause__, error.__context__):
        package = (getattr(cause, "name", None) or "").partition(".")[0]
        for extra, packages in EXTRAS.items():
            if package in packages:
                return (
                    f"this needs the Python package {package}: pip install {' '.join(packages)} "
                    f"(what the extra swiftattn[{extra}] brings)"
                )
    return str(error)
