"""Shared by all tests. Must come before torch is imported: small tensors are slower on several threads."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
