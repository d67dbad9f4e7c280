"""Shared by all tests. Must come before torch is imported: small tensors are slower on several threads."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session")
def ray_address():
    """One Ray of two cores for the whole session; its address, for drivers in processes of their own."""
    import ray

    from sbp_tune.study import ray_session  # noqa: F401 - switches Ray's usage statistics off before it starts

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=256 * 2**20)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
