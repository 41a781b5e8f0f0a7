"""What the processes of apart.py start with: the command line, the framework behind its door, what it imports late."""

import torch
import torch._inductor
import torchvision

from distill import cli, loading

loading.ultralytics_adapter()
torch.set_num_threads(1)
__all__ = ["cli", "torchvision"]
