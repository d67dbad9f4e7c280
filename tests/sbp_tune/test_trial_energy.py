import pytest

from sbp_tune.config import EnergyConfig
from sbp_tune.energy import Component, Reading
from sbp_tune.trial_energy import TrialEnergy


def burn(count=200_000):
    return sum(i * i for i in range(count))


def energy_of(**values):
    return TrialEnergy(EnergyConfig(**values), gpus=[], cpus=1, synchronize=lambda: None)


def test_epochs_add_up_and_go_on_after_a_resume():
    energy = energy_of(country="IRL")
    with energy.epoch():
        burn()
    first = energy.row()
    again = energy_of(country="IRL")
    again.load_state_dict(energy.state_dict())
    with again.epoch():
        burn()
    second = again.row()
    assert 0 < first["kwh"] < second["kwh"] and first["train_time_s"] < second["train_time_s"]
    assert second["kwh"] == pytest.approx(second["kwh_cpu"] + second["kwh_ram"])
    assert second["co2_kg"] / second["kwh"] == pytest.approx(first["co2_kg"] / first["kwh"])
    assert second["kwh_cpu_source"] == "model" and second["kwh_gpu_source"] is None and second["kwh_gpu"] is None


def test_time_between_epochs_is_not_billed():
    energy = energy_of()
    with energy.epoch():
        burn()
    before = energy.row()
    burn()
    assert energy.row() == before


def test_an_epoch_that_fails_is_no_epoch():
    energy = energy_of()
    with pytest.raises(RuntimeError), energy.epoch():
        raise RuntimeError("out of memory")
    assert energy.row()["kwh"] == 0
    with energy.epoch():
        burn()
    assert energy.row()["kwh"] > 0


def test_the_device_is_waited_for_at_both_edges():
    calls = []
    energy = TrialEnergy(EnergyConfig(), gpus=[], cpus=1, synchronize=lambda: calls.append("sync"))
    with energy.epoch():
        calls.append("work")
    assert calls == ["sync", "work", "sync"]


def test_without_the_gpus_energy_there_is_no_total(monkeypatch):
    """A trial whose GPU cannot be read must not look cheap."""
    energy = energy_of(country="IRL")
    energy._meter = UnreadableGpu()
    with energy.epoch():
        pass
    row = energy.row()
    for name in ("kwh", "kwh_gpu", "co2_kg", "mean_power_w", "kwh_measured_share"):
        assert row[name] is None
    assert row["kwh_cpu"] == 0.0 and row["kwh_gpu_source"] == "none"


class UnreadableGpu:
    """A meter on a MIG instance."""

    def start(self):
        pass

    def read(self):
        components = {"gpu": Component(None, "none", None), "cpu": Component(1.0, "model", 0.5)}
        return Reading(components, 1.0, 1.0, None)


def test_a_component_that_could_not_be_read_once_has_no_sum():
    energy = energy_of()
    energy._add("gpu", 1.0)
    energy._add("gpu", None)
    energy._add("gpu", 2.0)
    assert energy.row()["kwh_gpu"] is None
