import pytest
import torch
from torch import nn

from sbp_tune.config import LrScheduleConfig, OptimizerConfig
from sbp_tune.optimizers import build_optimizer, lr_factor


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW")])
def test_optimizers_take_the_configured_values(name, kind):
    config = OptimizerConfig(name=name, lr=0.3, momentum=0.5, betas=(0.8, 0.9), weight_decay=0.01)
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    optimizer = build_optimizer(model, config)
    assert type(optimizer).__name__ == kind
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.3 and group["weight_decay"] == 0.01 and len(group["params"]) == 1
    assert group.get("momentum", 0.5) == 0.5 and group.get("betas", (0.8, 0.9)) == (0.8, 0.9)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize(
    ("device", "asked", "taken"),
    [("cpu", None, True), ("cpu", False, None), ("cpu", True, True), ("meta", None, None), ("meta", False, None)],
)
def test_on_a_cpu_the_update_is_one_kernel_unless_the_config_says_otherwise(name, device, asked, taken):
    optimizer = build_optimizer(nn.Linear(2, 2, device=device), OptimizerConfig(name=name, fused=asked))
    assert optimizer.defaults["fused"] is taken  # None: torch chooses


def factors(epochs, **values):
    return [lr_factor(LrScheduleConfig(**values), epoch, epochs) for epoch in range(epochs)]


def test_constant():
    assert factors(3, name="constant") == [1, 1, 1]


def test_cosine_agrees_with_torch():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    expected = []
    for _ in range(7):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert factors(7, name="cosine") == pytest.approx(expected)


def test_steps_at_half_and_three_quarters_as_the_second_paper():
    assert factors(8, name="step") == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_warm_up_rises_to_the_peak():
    assert factors(5, name="constant", warmup_epochs=3) == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert factors(6, name="cosine", warmup_epochs=2)[2] == 1


def test_per_step_it_falls_within_the_epoch_and_per_epoch_it_does_not():
    each_step = LrScheduleConfig(per="step", warmup_epochs=1)
    found = [lr_factor(each_step, epoch, 3, step, 4) for epoch in range(3) for step in range(4)]
    assert found[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8]) and found[4] == 1
    assert found[4:] == sorted(found[4:], reverse=True) and 0 < found[-1] < 0.05
    assert lr_factor(LrScheduleConfig(), 1, 3, 3, 4) == lr_factor(LrScheduleConfig(), 1, 3)
