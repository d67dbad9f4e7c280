"""Folders on object storage, on a real S3 server: what is there, and what a user is told who may not go there."""

import json

import pytest
from object_storage import Wire

from sbp_tune.errors import InputError, StorageError
from sbp_tune.remote import Remote, is_uri, state_folder

pytestmark = pytest.mark.slow


@pytest.fixture(params=["s3", "fsspec"])
def remote(request, tmp_path):
    """A folder that does not exist yet."""
    uri = request.getfixturevalue("bucket") if request.param == "s3" else f"fsspec+file://{tmp_path}/far"
    return Remote(uri).child("demo")


def test_files_come_back_as_they_went(remote, tmp_path):
    assert remote.files() == {} and remote.folders() == [] and remote.read("a") is None
    remote.write("a", b"one")
    remote.write("a", b"other")
    assert remote.read("a") == b"other"
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "weights").write_bytes(bytes(range(256)) * 1000)
    remote.upload(tmp_path / "here", "checkpoint")
    remote.upload(tmp_path / "here" / "weights", "b")
    assert {name: entry.size for name, entry in remote.files().items()} == {"a": 5, "b": 256_000}
    assert remote.folders() == ["checkpoint"] and list(remote.child("checkpoint").files()) == ["weights"]
    remote.child("checkpoint").download("weights", tmp_path / "back" / "weights")
    assert (tmp_path / "back" / "weights").read_bytes() == (tmp_path / "here" / "weights").read_bytes()
    remote.delete("b")
    remote.delete("b")
    assert list(remote.files()) == ["a"]
    with pytest.raises(StorageError, match=r"demo.*nothing"):
        remote.download("nothing", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    remote.check_writable()
    assert list(remote.files()) == ["a"]


def refused(uri):
    with pytest.raises(InputError) as raised:
        Remote(uri).child("demo").check_writable()
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


def test_what_cannot_be_written_to_is_one_line(bucket):
    missing = refused(bucket.replace("s3://bucket", "s3://no-bucket"))
    assert missing.startswith("s3://no-bucket")
    assert "not found" in missing and "allow_bucket_creation" not in missing
    assert "nothing here reads foo://; allowed: a directory, s3://" in refused("foo://bucket/studies")
    assert "Install adlfs" in refused("az://container/studies")
    assert "'colour'" in refused(f"{bucket}&colour=red")


def test_credentials_belong_to_the_environment():
    told = refused("s3://me:secret@bucket/studies")
    assert told.startswith("s3://...@bucket/studies: holds credentials") and "secret" not in told


@pytest.fixture
def guarded(bucket, object_storage, monkeypatch):
    """let(*actions): the environment has the keys of a user who may do no more than these in the bucket."""
    iam = object_storage.client("iam")

    def let(*actions):
        object_storage.let_in(strangers=True)
        name = f"user{len(iam.list_users()['Users'])}"
        iam.create_user(UserName=name)
        allowed = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=document)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        object_storage.let_in(strangers=False)
        return bucket

    yield let
    object_storage.let_in(strangers=True)


def test_who_may_write(guarded):
    Remote(guarded("s3:*")).child("demo").check_writable()


def test_who_may_only_read_is_told(guarded):
    told = refused(guarded("s3:GetObject", "s3:ListBucket"))
    assert "ACCESS_DENIED" in told and told.endswith("~/.aws, or the machine's role")


def test_keys_that_are_nobodys_are_told(guarded, monkeypatch):
    uri = guarded("s3:*")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA0000000000000000")
    told = refused(uri)
    assert told.endswith("~/.aws, or the machine's role") and "AKIA" not in told


def test_no_credentials_at_all_are_told(guarded, monkeypatch, tmp_path):
    uri = guarded("s3:*")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert refused(uri).endswith("~/.aws, or the machine's role")


@pytest.mark.slow  # pyarrow asks again for 6 s
def test_a_cut_wire_is_an_error_and_mended_nothing_happened(bucket, object_storage):
    wire = Wire(object_storage.port)
    remote = Remote(object_storage.uri(bucket.split("/")[2], wire.port))
    remote.write("a", b"one")
    wire.cut()
    with pytest.raises(StorageError, match=r"^s3://bucket.*NETWORK_CONNECTION"):
        remote.write("a", b"two")
    with pytest.raises(StorageError, match="NETWORK_CONNECTION"):
        remote.files()
    wire.mend()
    assert remote.read("a") == b"one"
    remote.write("a", b"two")
    assert remote.read("a") == b"two"
    wire.cut()


def test_uris_and_directories():
    assert is_uri("s3://bucket/x") and is_uri("fsspec+memory://x") and not is_uri("file:///mnt/x")
    assert not is_uri("results/x") and not is_uri("/mnt/s3://x") and not is_uri("s3:/x")


def test_children_keep_the_options():
    child = Remote("s3://bucket/studies/?region=eu-west-1").child("a", "b")
    assert child.uri == "s3://bucket/studies/a/b?region=eu-west-1" and child.name == "b"


def test_every_uri_has_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("SBP_TUNE_STATE", str(tmp_path))
    uris = ["s3://a/b", "s3://a/b?endpoint_override=c", "s3://a/b?endpoint_override=d", "gs://a/b", "s3://a/b/c"]
    folders = [state_folder(uri, "studies") for uri in uris]
    assert len(set(folders)) == 5 and all(folder.is_relative_to(tmp_path / "studies") for folder in folders)
    assert state_folder("s3://a/../../b", "studies") == tmp_path / "studies" / "s3" / "a" / "b"
    assert state_folder("s3://a/b", "spool") == tmp_path / "spool" / "s3" / "a" / "b"
    monkeypatch.delenv("SBP_TUNE_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_folder("s3://a/b", "studies") == tmp_path / "xdg" / "sbp-tune" / "studies" / "s3" / "a" / "b"
