"""Where trials may run, on a real Ray of one node with two cores and four GPUs."""

import errno

import pytest
import ray
from ray.exceptions import ActorDiedError, RayTaskError

from sbp_tune import __version__
from sbp_tune.errors import InputError
from sbp_tune.study import node_check, nodes
from sbp_tune.study.node_check import ask, problem_of
from sbp_tune.study.nodes import TrialNodes
from sbp_tune.study.storage import REFUSED_NODES, create_study, open_study

pytestmark = pytest.mark.slow

GOOD = {"sbp-tune": __version__, "torch": node_check.version("torch"), "disk": "/tmp", "free": 1e9}
REPLAY = "trainable: trainables.replay:Replay\nsearch"


@pytest.fixture
def make(make_study, ray_address, monkeypatch):
    """make(asked, answer, old=new, ...): the nodes of a study; answer: what its node says instead of the truth."""

    def made(asked=True, answer=None, changes=()):
        if answer is not None:
            monkeypatch.setattr(nodes, "problem_of", lambda _: problem_of(GOOD | answer))
        return TrialNodes(make_study(("search", REPLAY), *changes), asked)

    return made


def test_a_node_tells_the_truth_and_is_good(make):
    [node] = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    answer = ray.get(ask(node, "trainables.replay:Replay"), timeout=120)
    assert answer == GOOD | {"disk": answer["disk"], "free": answer["free"]} and problem_of(answer) is None
    missing = ray.get(ask(node, "no_such_module:Class"), timeout=120)
    assert problem_of(missing).startswith("No module named 'no_such_module'; install sbp-tune")
    found = make()
    found.check()
    assert found.room() == 2 and found.avoided() == []


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({}, None),
        ({"torch": GOOD["torch"].partition("+")[0] + "+cu999"}, None),  # built for another device
        ({"missing": "No module named 'sbp_tune'"}, f"No module named 'sbp_tune'; install sbp-tune {__version__}, and"),
        ({"torch": "1.0"}, f"it has torch 1.0, and the driver {GOOD['torch']}; install the same there"),
        ({"sbp-tune": "0.0"}, f"it has sbp-tune 0.0, and the driver {__version__}; install the same there"),
        ({"free": 3e6}, "/tmp is full (3 MB left); make room there"),
    ],
)
def test_what_an_answer_says(answer, problem):
    found = problem_of(GOOD | answer)
    assert found is None if problem is None else found.startswith(problem)


def test_the_study_may_want_fewer_and_a_node_of_ones_own_is_not_asked(make):
    assert make(asked=False).room() == 2
    assert make(asked=False, changes=[("{trials: 6}", "{trials: 6, concurrent: 1}")]).room() == 1


def test_no_node_that_can_run_a_trial_is_an_error_that_names_each(make, capsys):
    [address] = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
    found = make(answer={"missing": "No module named 'sbp_tune'"})
    with pytest.raises(InputError) as error:
        found.check()
    assert error.value.problems == [
        f"demo.yaml: no node can run a trial: node {address}: No module named 'sbp_tune'; install sbp-tune "
        f"{__version__}, and what the study's trainable needs, there, and start Ray on it again"
    ]
    assert f"warning: node {address}: No module" in capsys.readouterr().err
    with pytest.raises(InputError, match="a trial asks for cpu 3 and gpu 0 on one node, but Ray has 2 CPUs and 4 GPUs"):
        make(asked=False, changes=[("{trials: 6}", "{trials: 6}\nresources: {cpu: 3}")]).check()


def test_with_an_autoscaler_it_waits_for_machines(make, monkeypatch):
    monkeypatch.setattr(nodes, "autoscaled_places", lambda demands: 16)
    found = make(changes=[("{trials: 6}", "{trials: 6}\nresources: {cpu: 3}")])
    found.check()
    assert found.room() == 16


def test_a_node_that_goes_and_comes_back_is_told_and_counts_no_more_and_again(make, monkeypatch):
    lines, found = [], make(asked=False)
    found._say = lines.append
    [node] = [node for node in ray.nodes() if node["Alive"]]
    address = node["NodeManagerAddress"]
    monkeypatch.setattr(nodes, "_LOOK_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(ray, "nodes", lambda: [node | {"Alive": False}])
        assert found.room() == 0 and found.room() == 0
    assert lines == [f"Nodes: {address} is gone.", "Nodes: none holds a trial any more; waiting for one that joins."]
    assert found.room() == 2
    assert lines[2:] == [f"Nodes: {address} has joined, which holds 2 trials."]


def error_on(address, cause):
    """As `ray.get` raises it."""
    return RayTaskError("step", f"ray::X.step() (pid=1, ip={address})", cause, ip=address).as_instanceof_cause()


def test_what_a_node_is_to_blame_for(make, tmp_path, make_study, storage_in_memory):
    [node] = [node for node in ray.nodes() if node["Alive"]]
    address = node["NodeManagerAddress"]
    create_study(tmp_path, "demo", {"kwh": "min"}, {})
    not_loaded = f"ray::X.__init__() (pid=1, ip={address}, actor_id=1): The actor failed to import on the worker."
    found, lines = make(answer={"missing": "No module named 'x'"}), []
    found.tell(tmp_path, lines.append)
    why = found.fault_of(ActorDiedError(RayTaskError("__init__", not_loaded, RuntimeError(not_loaded))))
    assert why.startswith(f"node {address}: No module named 'x'; install") and found.avoided() == [node["NodeID"]]
    assert open_study(tmp_path).user_attrs[REFUSED_NODES] == [why] and lines == [f"{why}: no trial runs there."]
    assert found.fault_of(RayTaskError("step", not_loaded, ImportError(not_loaded), ip=address)) == why
    assert found.fault_of(error_on("1.2.3.4", ImportError("failed to import on the worker"))) is None  # no such node
    assert found.fault_of(error_on(address, ValueError("loss is nan"))) is None


def test_a_full_disk_of_the_only_node_ends_the_search_and_one_that_is_not_full_is_not_to_blame(make, ray_address):
    [address] = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
    full = error_on(address, OSError(errno.ENOSPC, "No space left on device"))
    found = make(asked=False)
    assert found.fault_of(full) is None and found.refused == {}
    found = make(asked=False, answer={"free": 0.0})
    assert found.fault_of(full) is None and len(found.refused) == 1
