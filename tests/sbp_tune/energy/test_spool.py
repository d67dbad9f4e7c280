"""A node's ledger on its way to object storage, over a wire that is cut."""

import time

import pytest
from object_storage import Wire

from sbp_tune.energy import spool
from sbp_tune.energy.spool import Spool, Spooling, spool_folder
from sbp_tune.errors import StorageError
from sbp_tune.remote import Remote

pytestmark = pytest.mark.slow


@pytest.fixture
def line(bucket, object_storage):
    """The wire, the URI behind it, and the folder on this machine with a ledger that grows."""
    wire = Wire(object_storage.port)
    uri = Remote(object_storage.uri(bucket.split("/")[2], wire.port)).child("demo", "energy").uri
    spool_folder(uri).mkdir(parents=True)
    yield wire, uri, spool_folder(uri)
    wire.cut()


def sizes(uri):
    return {name: entry.size for name, entry in Remote(uri).files().items()}


def test_what_is_new_is_copied_once(line, monkeypatch):
    _, uri, folder = line
    sent = []
    upload = Remote.upload
    monkeypatch.setattr(Remote, "upload", lambda self, file, name: (sent.append(name), upload(self, file, name)))
    (folder / "ledger-n-0000.jsonl").write_bytes(bytes(100))
    (folder / ".ledger-n.lock").touch()
    spooled = Spool(uri)
    spooled.copy()
    spooled.copy()
    assert sizes(uri) == {"ledger-n-0000.jsonl": 100} and len(sent) == 1
    with (folder / "ledger-n-0000.jsonl").open("ab") as file:
        file.write(bytes(50))
    (folder / "ledger-n-0001.jsonl").write_bytes(bytes(10))
    spooled.copy()
    assert sizes(uri) == {"ledger-n-0000.jsonl": 150, "ledger-n-0001.jsonl": 10} and len(sent) == 3
    Spool(uri).copy()  # of the next meter on this machine
    assert len(sent) == 3


def test_what_a_crash_left_is_copied_by_the_next(line):
    _, uri, folder = line
    (folder / "ledger-dead-0000.jsonl").write_bytes(bytes(100))
    Spool(uri).copy()
    assert sizes(uri) == {"ledger-dead-0000.jsonl": 100}


@pytest.mark.slow  # pyarrow asks again for 6 s
def test_a_storage_that_is_away_loses_nothing(line, monkeypatch):
    wire, uri, folder = line
    monkeypatch.setattr(spool, "PERIOD_S", 0.1)
    (folder / "ledger-n-0000.jsonl").write_bytes(bytes(100))
    wire.cut()
    with pytest.raises(StorageError, match="NETWORK_CONNECTION"):
        Spool(uri).copy()
    spooling = Spooling(Spool(uri))
    problem = spooling.stop()
    assert problem.startswith("the end of the energy ledger of ") and f"it lies in {folder} there" in problem
    wire.mend()
    spooling = Spooling(Spool(uri))
    while sizes(uri) != {"ledger-n-0000.jsonl": 100}:
        time.sleep(0.05)
    (folder / "ledger-n-0001.jsonl").write_bytes(bytes(7))
    assert spooling.stop() is None and sizes(uri)["ledger-n-0001.jsonl"] == 7
