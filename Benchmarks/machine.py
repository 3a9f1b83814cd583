"""The machine by its CPU features: vector units, caches, processors; nothing that names it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

_CPUS = Path("/sys/devices/system/cpu")
_UNITS = ("sse4_2", "avx", "fma", "f16c", "amx", "asimd", "neon", "sve", "bf16", "i8mm", "fphp")


def describe() -> dict[str, Any]:
    return {
        "architecture": platform.machine(),
        "features": features(),
        "caches": caches(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def features() -> list[str]:
    """The vector units among the flags that the kernel shows."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        word, _, flags = line.partition(":")
        if word.strip() in ("flags", "Features"):
            return sorted(flag for flag in flags.split() if flag.startswith(_UNITS))
    return []


def caches() -> dict[str, int]:
    """Bytes by name, as L2 or L1 Data, of what one processor sees."""
    found = {}
    for cache in sorted((_CPUS / "cpu0" / "cache").glob("index*")):
        kind = (cache / "type").read_text().strip()
        size = (cache / "size").read_text().strip()
        name = "L" + (cache / "level").read_text().strip() + ("" if kind == "Unified" else " " + kind)
        found[name] = int(size.rstrip("KM")) << {"K": 10, "M": 20}[size[-1]]
    return found


def last_level_cache() -> int:
    return max(caches().values(), default=32 << 20)


def processors(count: int) -> list[int]:
    """`count` processors of the affinity mask, on different cores as far as there are so many."""
    allowed = sorted(os.sched_getaffinity(0))
    cores: dict[str, list[int]] = {}
    for processor in allowed:
        siblings = _CPUS / f"cpu{processor}" / "topology" / "thread_siblings_list"
        core = siblings.read_text().strip() if siblings.exists() else str(processor)
        cores.setdefault(core, []).append(processor)
    firsts = [members[0] for members in cores.values()]
    others = [processor for members in cores.values() for processor in members[1:]]
    return (firsts + others)[:count]
