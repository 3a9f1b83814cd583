"""Pictures of attention weights: a PNG through matplotlib, and a page to explore them in a browser."""

from .attention_map import AttentionMap, Place
from .html import save_html
from .png import save_png

__all__ = ["AttentionMap", "Place", "save_html", "save_png"]
