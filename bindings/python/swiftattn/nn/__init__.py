"""Blocks with torch.nn's constructor arguments, parameter names and masks, computed by swiftattn.

The batch is always the first dim. load_state_dict takes torch's state dicts, and arrays of any kind.
"""

from .attention import MultiheadAttention
from .checkpoint import load_checkpoint, save_checkpoint
from .encoder_decoder import EncoderDecoder, Written
from .tokens import TokenModel, TokenOutput
from .transformer import (
    Transformer,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)

__all__ = [
    "EncoderDecoder",
    "MultiheadAttention",
    "TokenModel",
    "TokenOutput",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "Written",
    "load_checkpoint",
    "save_checkpoint",
]
