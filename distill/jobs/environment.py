"""What a bug report needs to know of this machine."""

from __future__ import annotations

import os
import platform

from distill import __version__
from distill.records import cpuinfo, has_bfloat16, versions


def environment() -> dict[str, str]:
    """Versions and hardware, by name."""
    import torch

    facts = {"distill": __version__, **versions()}
    facts["processor"] = _processor()
    facts["cores"] = f"{os.cpu_count()} ({torch.get_num_threads()} threads)"
    facts["fast bfloat16"] = "yes" if has_bfloat16() else "no (the teacher is likely to stay in float32 on this CPU)"
    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        facts[f"GPU {i}"] = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    if not torch.cuda.is_available():
        facts["GPU"] = "none that torch can use"
    return facts


def _processor() -> str:
    for line in cpuinfo():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
