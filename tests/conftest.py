"""Shared by all tests. Must come before torch is imported: small tensors are slower on several threads."""

import os
import sys
import uuid
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

MODULES = str(Path(__file__).parent / "modules")
sys.path.append(MODULES)

settings.register_profile("no time limit", deadline=None)  # a busy machine is not a wrong result
settings.load_profile("no time limit")


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory):
    """One Ray of two cores and four GPUs that nobody computes on, said to be T4s, for the whole session.

    Its address, for drivers in processes of their own. Its workers find tests/modules, the keys of `object_storage`,
    and keep what they have of studies there in a folder of the session.
    """
    import ray
    from object_storage import KEYS

    from sbp_tune.study import ray_session  # noqa: F401 - switches Ray's usage statistics off before it starts

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), MODULES]))
    options = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 256 * 2**20}
    with pytest.MonkeyPatch.context() as environment:
        for name, value in (KEYS | {"SBP_TUNE_STATE": str(tmp_path_factory.mktemp("state"))}).items():
            environment.setenv(name, value)
        ray.init("local", num_cpus=2, num_gpus=4, resources={"accelerator_type:T4": 1}, **options)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(scope="session")
def object_storage():
    """An S3 server for the whole session."""
    from object_storage import ObjectStorage

    server = ObjectStorage()
    yield server
    server.stop()


@pytest.fixture
def bucket(object_storage, monkeypatch, tmp_path):
    """A folder in a bucket of the test's own, by its URI; what this machine keeps of studies there is in tmp_path."""
    from object_storage import KEYS

    for name, value in (KEYS | {"SBP_TUNE_STATE": str(tmp_path / "state")}).items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    object_storage.client().create_bucket(Bucket=name)
    return object_storage.uri(name)
