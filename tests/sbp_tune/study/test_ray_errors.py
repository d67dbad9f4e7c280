import pytest
import ray.exceptions as rays
from ray import cloudpickle
from ray.air.execution._internal import RayActorManager
from ray.air.execution._internal.tracked_actor import TrackedActor

from sbp_tune.study.ray_errors import LostWorker, as_actor_error, understand_lost_workers, unwrapped

MEMORY = rays.OutOfMemoryError("Task was killed due to the node running low on memory.")


@pytest.mark.parametrize(
    "error", [rays.ActorDiedError(), rays.RayTaskError("step", "text", ValueError("nan")), ValueError("nan")]
)
def test_what_the_tuner_knows_stays_as_it_is(error):
    assert as_actor_error(error) is error


@pytest.mark.parametrize("error", [MEMORY, rays.NodeDiedError("gone"), rays.LocalRayletDiedError()])
def test_all_else_of_ray_is_a_worker_that_was_lost(error):
    lost = cloudpickle.loads(cloudpickle.dumps(as_actor_error(error)))
    assert isinstance(lost, rays.RayActorError) and str(lost) == str(error)
    assert type(unwrapped(lost)) is type(error) and str(unwrapped(lost)) == str(error)


def test_the_manager_of_actors_takes_it_as_the_end_of_one_actor(monkeypatch):
    told = []
    monkeypatch.setattr(RayActorManager, "_cleanup_actor", lambda self, tracked_actor: None)
    understand_lost_workers()
    understand_lost_workers()
    actor = TrackedActor(1, on_error=lambda actor, error: told.append(error))
    RayActorManager(resource_manager=None)._actor_start_failed(tracked_actor=actor, exception=MEMORY)
    assert [type(error) for error in told] == [LostWorker] and unwrapped(told[0]) is MEMORY
