"""Writes the seeds of the fuzzer: the smallest models of a few formats. Run it when what is worth reaching changes."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "Python"))

from gguf_files import write_model  # noqa: E402

small = dict(layers=1, heads=2, kv_heads=1, head_dim=16, hidden=32, vocabulary=8, context=8)
for kind in ("F16", "BF16", "Q4_0", "Q4_1", "Q8_0"):
    write_model(HERE / f"corpus/{kind}.gguf", format=kind, table=kind, **small)
write_model(HERE / "corpus/yarn.gguf", format="Q4_0", table="Q8_0", scaling=("yarn", 2.0, 4), arch="qwen2", **small)
small.update(heads=1, head_dim=8, hidden=8, vocabulary=40)
write_model(HERE / "corpus/tokens.gguf", format="F16", table="F16", tokenizer=True, divisors=True, tied=False, **small)
