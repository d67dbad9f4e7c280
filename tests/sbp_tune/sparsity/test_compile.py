"""A compiled model trains as an eager one, in one graph that no selection compiles anew."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from sbp_tune.config import plugin_names
from sbp_tune.sparsity import sparsify

CUTS = ("branch_drop", "budget", "prefix")
ONE_GRAPH = [name for name in plugin_names("sparsity/estimators") if name not in CUTS]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def run(model, compiled, config, batch, train, before=False):
    """Losses of a model that is compiled before or after `sparsify`, or not at all; the handle."""
    runs = model
    if compiled and before:
        runs = compiled(model)
        runs(batch[0]).sum().backward()  # a graph of the dense model must not live on
        model.zero_grad(set_to_none=True)
    state = copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    handle = sparsify(runs if before else model, config)
    if compiled and not before:
        runs = compiled(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    return train(runs, handle, batch, epochs=range(2), steps=4, optimizer=optimizer), handle


BOTH = pytest.param("aot_eager", True, marks=pytest.mark.slow)


@pytest.mark.parametrize(("backend", "before"), [("eager", True), ("aot_eager", False), BOTH])
@pytest.mark.parametrize("estimator", [*ONE_GRAPH, "branch_drop", "prefix"])
def test_results_of_eager_in_one_graph(estimator, backend, before, model, batch, config_of, train):
    config = config_of(estimator, 0.5, schedule="linear", k=0.2, p_min=0.1)
    model.eval()  # the dense pass of `before` must not move running statistics
    twin = copy.deepcopy(model)
    expected, eager = run(twin, None, config, batch, train)
    fullgraph = estimator in ONE_GRAPH
    found, handle = run(
        model, lambda net: torch.compile(net, backend=backend, fullgraph=fullgraph), config, batch, train, before
    )
    assert found == pytest.approx(expected, rel=1e-5)
    assert handle.sparse_layers == eager.sparse_layers and not any("_orig_mod" in name for name in handle.sparse_layers)
    assert handle.executed_flops == eager.executed_flops
    for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, msg=name)
    if fullgraph:
        batches = 2 if estimator == "sample" else 1  # a batch of another size
        assert counters["stats"]["unique_graphs"] <= batches + before
    else:
        assert counters["stats"]["unique_graphs"] <= 40


@pytest.mark.parametrize("estimator", ["layer", "channel_block", "channel_topk"])
def test_what_was_not_selected_does_not_move(estimator, model, batch, config_of, train):
    handle = sparsify(model, config_of(estimator, 0.3))
    compiled = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    train(compiled, handle, batch, epochs=[0], optimizer=optimizer)
    before = copy.deepcopy(dict(model.named_parameters()))
    train(compiled, handle, batch, epochs=[1], steps=1, optimizer=optimizer)
    still = sum(int((parameter == before[name]).sum()) for name, parameter in model.named_parameters())
    assert still > 100


def test_auto_dense_times_layers_of_a_compiled_model(model, batch, config_of, train):
    handle = sparsify(model, config_of("grid", 0.25, auto_dense=True))
    train(torch.compile(model, backend="aot_eager"), handle, batch, epochs=[0])
    assert {key.split(":")[0] for key in handle.auto_dense.times} == set(handle.sparse_layers) - {"shared"}


def test_removed_means_dense(model, batch, config_of, train):
    handle = sparsify(model, config_of("layer", 0.3))
    compiled = torch.compile(model, backend="aot_eager")
    train(compiled, handle, batch, epochs=[0])
    handle.remove()
    model.zero_grad(set_to_none=True)
    flops = handle.executed_flops
    compiled(batch[0]).square().sum().backward()
    assert handle.executed_flops == flops and all(parameter.grad.any() for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("estimator", ["batch_slice", "channel_topk", "layer"])
def test_inductor(estimator, bf16, channels_last, model, config_of):
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    results = []
    for compiled in (False, True):
        net = copy.deepcopy(model)
        handle = sparsify(net, config_of(estimator))
        runs = torch.compile(net, fullgraph=True) if compiled else net
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        generator, losses = torch.Generator().manual_seed(1), []
        handle.start_epoch(0, 1)
        for samples in (8, 8, 6, 8):
            x = torch.randn(samples, 3, 12, 12, generator=generator)
            if channels_last:
                x = x.to(memory_format=torch.channels_last)
            labels = torch.randint(0, 4, (samples,), generator=generator)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = nn.functional.cross_entropy(runs(x), labels)
            loss.backward()
            handle.before_step(optimizer)
            optimizer.step()
            losses.append(loss.item())
        net.eval()
        with torch.no_grad():
            losses.append(runs(x).float().mean().item())
        results.append((losses, handle.executed_flops))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-2 if bf16 else 1e-4, abs=1e-2 if bf16 else 1e-5)
    assert results[0][1] == results[1][1]
