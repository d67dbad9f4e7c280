import pytest

from sbp_tune.config import EnergyConfig
from sbp_tune.energy import Component, EnergyMeter, Reading
from sbp_tune.trial_energy import TrialEnergy


def burn(count=200_000):
    return sum(i * i for i in range(count))


def energy_of(meter=None, synchronize=lambda: None, **values):
    return TrialEnergy(EnergyConfig(**values), meter or EnergyMeter(cpus=1), synchronize)


class Told:
    """A meter that has been told its readings."""

    def __init__(self, *readings):
        self.readings, self.calls = list(readings), []

    def start(self, epoch):
        self.calls.append(("start", epoch))

    def mark(self, epoch):
        self.calls.append(("mark", epoch))
        return self.readings.pop(0)

    def stop(self, reason):
        self.calls.append(("stop", reason))
        return self.readings.pop(0)


def reading(gpu=0.0, cpu=1.0, seconds=1.0):
    source = "none" if gpu is None else "counter"
    components = {"gpu": Component(gpu, source, None if gpu is None else 0.1), "cpu": Component(cpu, "model", 0.5)}
    return Reading(components, seconds, 1.0, None)


def test_epochs_add_up_and_go_on_after_a_resume():
    energy = energy_of(country="IRL")
    with energy.epoch(1):
        burn()
    first = energy.row()
    again = energy_of(country="IRL")
    again.load_state_dict(energy.state_dict())
    with again.epoch(2):
        burn()
    second = again.row()
    energy.stop("stopped"), again.stop("finished")
    assert 0 < first["kwh"] < second["kwh"] and first["train_time_s"] < second["train_time_s"]
    assert second["kwh"] == pytest.approx(second["kwh_cpu"] + second["kwh_ram"])
    assert second["co2_kg"] / second["kwh"] == pytest.approx(first["co2_kg"] / first["kwh"])
    assert second["kwh_cpu_source"] == "model" and second["kwh_gpu_source"] is None and second["kwh_gpu"] is None


def test_a_row_is_what_the_meter_said_last():
    """At the end of an epoch, and once more at the end of the run, which has a little more."""
    epochs = reading(gpu=1.0, cpu=0.5, seconds=10), reading(gpu=1.5, cpu=1.0, seconds=20)
    meter = Told(*epochs, reading(gpu=2.0, cpu=1.0, seconds=25))
    energy = energy_of(meter)
    energy.load_state_dict({"kwh": 4.0, "gpu": 3.0, "cpu": 1.0, "measured": 3.0, "seconds": 5.0, "gpu_busy": None})
    for epoch in (7, 8):
        with energy.epoch(epoch):
            pass
    assert energy.row()["kwh"] == 6.5
    energy.stop("finished"), energy.stop("failed")
    row = energy.row()
    assert meter.calls == [("start", 6), ("mark", 7), ("mark", 8), ("stop", "finished")]
    assert (row["kwh"], row["kwh_gpu"], row["train_time_s"]) == (7.0, 5.0, 30.0)
    assert row["kwh_measured_share"] == pytest.approx(5 / 7) and row["gpu_util"] is None


def test_before_the_first_epoch_nothing_is_billed():
    meter = Told()
    energy = energy_of(meter)
    energy.stop("stopped")
    assert meter.calls == [] and energy.row()["kwh"] == 0


def test_an_epoch_that_fails_is_no_epoch():
    energy = energy_of()
    with pytest.raises(RuntimeError), energy.epoch(1):
        raise RuntimeError("out of memory")
    assert energy.row()["kwh"] == 0
    with energy.epoch(1):
        burn()
    energy.stop("finished")
    assert energy.row()["kwh"] > 0


def test_the_device_is_waited_for_at_both_edges():
    calls = []
    energy = energy_of(Told(reading()), synchronize=lambda: calls.append("sync"))
    with energy.epoch(1):
        calls.append("work")
    assert calls == ["sync", "work", "sync"]


def test_without_the_gpus_energy_there_is_no_total():
    """A trial whose GPU cannot be read must not look cheap."""
    energy = energy_of(Told(reading(gpu=None)), country="IRL")
    with energy.epoch(1):
        pass
    row = energy.row()
    for name in ("kwh", "kwh_gpu", "co2_kg", "mean_power_w", "kwh_measured_share"):
        assert row[name] is None
    assert row["kwh_cpu"] == 1.0 and row["kwh_gpu_source"] == "none"


def test_a_component_that_could_not_be_read_once_has_no_sum():
    energy = energy_of(Told(reading(gpu=2.0)))
    energy.load_state_dict({"gpu": None, "kwh": None, "cpu": 1.0})
    with energy.epoch(3):
        pass
    assert energy.row()["kwh_gpu"] is None and energy.row()["kwh"] is None and energy.row()["kwh_cpu"] == 2.0
