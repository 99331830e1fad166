"""One thread per test process, and helpers that tests share are imported by name."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

torch.set_num_threads(1)  # tests are small and run side by side
sys.path.insert(0, str(Path(__file__).parent))
