import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbp_tune.config import SparsityConfig, config_from_text
from sbp_tune.sparsity import sparsify
from sbp_tune.sparsity.allocation import layer_fractions

NAMES = ["stem", "layer1.conv", "layer2.conv", "layer4.conv", "layer4.down"]


def fractions(p, flops=None, **layers):
    return layer_fractions(SparsityConfig.model_validate({"estimator": "layer", "layers": layers}), p, NAMES, flops)


def test_uniform_ramp_and_stages():
    assert set(fractions(0.3).values()) == {0.3}
    ramp = fractions(0.4, profile="ramp", slope=0.5)
    assert list(ramp.values()) == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6])
    stages = fractions(0.4, profile="stages", stages={"layer1": 2, "layer4": 0.5, "*.down": 10})
    assert list(stages.values()) == pytest.approx([0.4, 0.8, 0.4, 0.2, 1.0])


def test_overrides_by_glob_win_and_the_last_of_them_first():
    found = fractions(0.4, profile="ramp", slope=1, overrides={"layer4.*": 0.1, "*.down": 0.7})
    assert found["layer4.conv"] == 0.1 and found["layer4.down"] == 0.7


@given(st.floats(0.2, 0.99), st.lists(st.integers(1, 1000), min_size=6, max_size=6))
def test_flops_makes_the_executed_fraction_p(p, flops):
    flops = dict(zip([*NAMES, "head"], flops, strict=True))
    found = fractions(p, flops, profile="flops")
    executed = flops["head"] + sum(found[name] * flops[name] for name in NAMES)
    if min(found.values()) > 0.01:
        assert executed == pytest.approx(p * sum(flops.values()))
    else:
        assert executed >= p * sum(flops.values())  # the dense layer alone is more than p


@given(st.floats(0.001, 1), st.floats(-1, 1))
def test_every_layer_keeps_something(p, slope):
    assert all(0.01 <= value <= 1 for value in fractions(p, profile="ramp", slope=slope).values())


def test_p_of_one_is_dense_whatever_the_profile():
    assert set(fractions(1.0, profile="ramp", slope=1, overrides={"stem": 0.1}).values()) == {1.0}


def test_a_study_file_may_nest_what_a_glob_joins():
    config = config_from_text("sparsity: {layers: {overrides: {layer4: {'*': 0.1, conv: 0.2}}}}").sparsity
    assert config.layers.overrides == {"layer4.*": 0.1, "layer4.conv": 0.2}


def test_the_flops_profile_knows_the_network_after_one_step(model, batch, config_of, train):
    handle = sparsify(model, config_of("batch_slice", 0.6, layers={"profile": "flops"}))
    train(model, handle, batch, epochs=[0], steps=1)
    assert set(handle.keep_fractions.values()) == {0.6}
    handle.start_epoch(1, 4)
    kept = handle.keep_fractions["down"]
    total = sum(handle._flops_of_layer.values())
    sparse = sum(handle._flops_of_layer[name] for name in handle.keep_fractions)
    assert kept * sparse + total - sparse == pytest.approx(0.6 * total)
