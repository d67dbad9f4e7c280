"""cluster.yaml, as Ray's own launcher reads it, against AWS as moto plays it. No machine is started."""

import copy
from pathlib import Path

import boto3
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

ROOT = Path(__file__).parents[1]
TRIAL = {"GPU": 1, "CPU": 12}  # of a search on four-T4 machines


@pytest.fixture(scope="module")
def written():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    """An account without anything but a default network, and a home without keys."""
    home = tmp_path_factory.mktemp("home")
    for folder in (".ssh", ".ray"):
        (home / folder).mkdir()
    (home / ".ray" / "auth_token").write_text("secret", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name, value in {"HOME": home, "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}.items():
            patch.setenv(name, str(value))
        patch.chdir(ROOT)  # what `.` in file_mounts is
        yield


@pytest.fixture(scope="module")
def bootstrapped(written, aws):
    return _bootstrap_config(copy.deepcopy(written), no_config_cache=True)


def test_rays_schema_accepts_it(written):
    validate_config(prepare_config(copy.deepcopy(written)))


def test_rays_schema_refuses_what_it_does_not_know(written):
    with pytest.raises(Exception, match="Additional properties are not allowed"):
        validate_config(prepare_config({**copy.deepcopy(written), "idle_minutes": 5}))


def test_a_worker_is_a_machine_of_four_t4s(bootstrapped):
    types = bootstrapped["available_node_types"]
    for name in ("t4_spot", "t4_on_demand"):
        resources = types[name]["resources"]
        assert (resources["CPU"], resources["GPU"], resources["accelerator_type:T4"]) == (48, 4, 1)
    spot, on_demand = (types[name]["node_config"] for name in ("t4_spot", "t4_on_demand"))
    assert spot == {**on_demand, "InstanceMarketOptions": {"MarketType": "spot"}}


def test_only_ssh_is_open_to_the_world(bootstrapped):
    [name] = {tuple(one["node_config"]["SecurityGroupIds"]) for one in bootstrapped["available_node_types"].values()}
    permissions = (
        boto3.resource("ec2", region_name=bootstrapped["provider"]["region"]).SecurityGroup(*name).ip_permissions
    )
    to_the_world = [rule for rule in permissions if rule["IpRanges"] or rule["Ipv6Ranges"]]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in to_the_world] == [(22, 22)]
    assert any("--dashboard-host=127.0.0.1" in command for command in bootstrapped["head_start_ray_commands"])


def test_every_node_shows_the_token(bootstrapped):
    assert "-e RAY_AUTH_MODE=token" in bootstrapped["docker"]["run_options"]
    assert bootstrapped["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"


def test_every_node_installs_the_project_and_asks_its_doctor(bootstrapped):
    for kind in ("head_setup_commands", "worker_setup_commands"):
        *_, install, doctor = [command for command in bootstrapped[kind] if "sbp-tune" in command]
        assert "pip install" in install and "constraints.txt" in install and doctor == "sbp-tune doctor"


def test_rays_version_is_that_of_the_constraints(written):
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    version = written["docker"]["image"].split(":")[1].split("-")[0]
    assert f"ray=={version}\n" in constraints


def launched(config, trials, availability=None):
    """What Ray's autoscaler starts for so many waiting trials."""
    requests = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(TRIAL) for _ in range(trials)])
    autoscaling = AutoscalingConfig(config, skip_content_hash=True)
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=autoscaling.get_node_type_configs(),
        max_num_nodes=autoscaling.get_max_num_nodes() - 1,  # the head, which runs already
        resource_requests=requests,
        recoverable_resource_availabilities=availability or {},
    )
    reply = ResourceDemandScheduler(event_logger=None).schedule(request)
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def test_a_trial_gets_a_gpu_with_twelve_cores_on_a_spot_machine(bootstrapped):
    assert launched(bootstrapped, 4) == {"t4_spot": 1}
    assert launched(bootstrapped, 5) == {"t4_spot": 2}


def test_without_spot_machines_it_falls_back_to_on_demand_ones(bootstrapped):
    assert launched(bootstrapped, 4, {"t4_spot": 0.0}) == {"t4_on_demand": 1}


def test_no_more_machines_are_started_than_the_file_allows(bootstrapped):
    assert sum(launched(bootstrapped, 1000).values()) == bootstrapped["max_workers"]


@pytest.mark.slow
def test_a_single_machine_can_be_the_whole_cluster(written, aws):
    """The variant that the file's comment describes."""
    single = copy.deepcopy(written)
    single["max_workers"], single["head_node_type"] = 0, "t4_on_demand"
    single["available_node_types"] = {
        "t4_on_demand": {**single["available_node_types"]["t4_on_demand"], "max_workers": 0}
    }
    bootstrapped = _bootstrap_config(single, no_config_cache=True)
    assert bootstrapped["available_node_types"]["t4_on_demand"]["resources"]["GPU"] == 4
