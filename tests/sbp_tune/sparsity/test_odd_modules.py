"""Modules and calls that are not a plain layer on a batch: right, or one clear line."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from sbp_tune.config import SparsityConfig, plugin_names
from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.sparsity import sparsify

ESTIMATORS = [name for name in plugin_names("sparsity/estimators") if name != "branch_drop"]


class Scaled(nn.Conv2d):
    """A forward and a signature of its own."""

    def forward(self, x, *, scale):
        return self._conv_forward(x, scale * self.weight, self.bias)


class Tied(nn.Module):
    """An embedding and a head that share their weight."""

    def __init__(self):
        super().__init__()
        self.embed, self.inner, self.head = nn.Embedding(6, 4), nn.Linear(4, 4), nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(torch.relu(self.inner(self.embed((x.flatten(1)[:, :3].abs() * 3).long() % 6)).mean(1)))[:, :4]


class Twins(nn.Module):
    """Two convolutions of one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        self.b.weight, self.head = self.a.weight, nn.Linear(4, 4)

    def forward(self, x):
        return self.head(self.b(torch.relu(self.a(self.first(input=x)))).mean((2, 3)))


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.attention, self.head = nn.Linear(12, 8), nn.MultiheadAttention(8, 2), nn.Linear(8, 4)

    def forward(self, x):
        x = self.first(x.mean(2))
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.scaled, self.head = nn.Conv2d(3, 4, 3), Scaled(4, 4, 3), nn.Linear(4, 4)

    def forward(self, x):
        return self.head(input=self.scaled(self.first(input=x), scale=2.0).mean((2, 3)))


def between(middle, flat=False):
    """A layer that may be anything, between two plain ones."""
    first = nn.Flatten(2) if flat else nn.Identity()
    return nn.Sequential(
        first, nn.Conv1d(3, 4, 3) if flat else nn.Conv2d(3, 4, 3), middle, nn.Flatten(), nn.LazyLinear(4)
    )


NETS = {
    "weight_norm": lambda: between(parametrizations.weight_norm(nn.Conv2d(4, 4, 3))),
    "spectral_norm": lambda: between(parametrizations.spectral_norm(nn.Conv2d(4, 4, 3))),
    "old_weight_norm": lambda: between(torch.nn.utils.weight_norm(nn.Conv2d(4, 4, 3))),
    "transposed": lambda: between(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2)),
    "conv1d": lambda: between(nn.Sequential(nn.Conv1d(4, 8, 3, stride=2), nn.ReLU()), flat=True),
    "conv3d": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 4, 1), nn.Conv3d(4, 4, (1, 3, 3)), nn.Flatten(), nn.LazyLinear(4)
    ),
    "keywords": Keywords,
    "tied": Tied,
    "twins": Twins,
    "attention": Attends,
}  # fmt: skip


@pytest.fixture(params=NETS, ids=NETS)
def make(request, batch):
    """make(): always the same network, which a deep copy of an old weight norm could not be."""

    def made():
        torch.manual_seed(0)
        net = NETS[request.param]()
        with torch.no_grad():
            net(batch[0])
        return net

    return made


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_trains_them_and_goes(estimator, make, batch, config_of, train):
    net = make()
    handle = sparsify(net, config_of(estimator))
    losses = train(net, handle, batch, steps=6)
    assert losses[-1] < max(losses)
    handle.remove()
    assert list(net.state_dict()) == list(make().state_dict())


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_keeping_everything_is_dense_to_the_last_buffer(estimator, make, batch, config_of, train):
    """A spectral norm moves on whenever its weight is read."""
    net, twin = make(), make()
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for _ in range(6):
        optimizer.zero_grad()
        nn.functional.cross_entropy(twin(batch[0]), batch[1]).backward()
        optimizer.step()
    train(net, sparsify(net, config_of(estimator, 1.0)), batch)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[name], msg=name)


@pytest.mark.parametrize("name", ["transposed", "weight_norm", "conv1d", "conv3d", "twins", "tied"])
def test_their_flops_are_torchs(name, batch):
    net = NETS[name]()
    net(batch[0])
    handle = sparsify(net, SparsityConfig())
    with FlopCounterMode(display=False) as counter:
        net(batch[0]).sum().backward()
    if name == "transposed":  # torch counts the backward pass of a grouped convolution as ungrouped
        forward = {layer: counts["forward"] for layer, counts in handle.executed_flops_by_layer.items()}
        assert forward["2"] == 2 * (8 * 4 * 10 * 10) * 3 * 9
        assert handle.executed_flops == 3 * sum(forward.values()) - forward["1"]
    else:
        assert handle.executed_flops == counter.get_total_flops()


def test_reasons(batch):
    reasons = {}
    for name, make in NETS.items():
        net = make()
        net(batch[0])
        reasons[name] = sparsify(net, SparsityConfig(estimator="batch_slice", p0=0.5)).dense_layers
    assert reasons["transposed"]["2"] == "a transposed convolution"
    assert reasons["keywords"]["scaled"] == "its forward is its own"
    assert reasons["tied"]["head"] == reasons["twins"]["a"] == "its weight is another module's too"
    assert reasons["attention"]["attention.out_proj"] == "attention uses its weight without calling it"


def test_a_prefix_does_not_take_a_tied_weight_from_the_head(batch, config_of, train):
    torch.manual_seed(0)
    net = Tied()
    handle = sparsify(net, config_of("prefix", 0.3))
    train(net, handle, batch, epochs=[0])
    assert handle.estimator.runs_without_graph("embed")
    assert net.head.weight.grad is not None and net.inner.weight.grad is None


def test_a_forward_of_the_instance_is_respected(batch, config_of):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    own = lambda x: 0 * nn.Conv2d.forward(net[1], x)  # noqa: E731
    net[1].forward = own
    handle = sparsify(net, config_of("batch_slice"))
    handle.start_epoch(0, 1)
    assert not net[1](torch.ones(2, 4, 8, 8)).any()
    assert handle.dense_layers["1"] == "its forward is its own"
    handle.remove()
    assert net[1].forward is own


def test_lazy_layers_need_a_batch_first():
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(4))
    with pytest.raises(
        InputError, match="lazy layers have no shape before the model has seen a batch; run one first: 0"
    ):
        sparsify(net, SparsityConfig())


def test_one_handle_at_a_time(model, config_of):
    handle = sparsify(model, config_of("layer"))
    with pytest.raises(InputError, match=r"sparse already; call remove\(\)"):
        sparsify(model.block, config_of("mask"))
    handle.remove()
    handle.remove()
    sparsify(model, config_of("layer")).remove()


@pytest.mark.parametrize("estimator", ["layer", "mask", "channel_block", "prefix"])
def test_a_removed_handle_freezes_nothing(estimator, model, batch, config_of, train):
    handle = sparsify(model, config_of(estimator))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, handle, batch, epochs=[0], optimizer=optimizer)
    handle.remove()
    before = copy.deepcopy(list(model.parameters()))
    train(model, handle, batch, epochs=[1], optimizer=optimizer)
    assert all(parameter.grad.count_nonzero() for parameter in model.parameters())
    assert not any(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("estimator", ["batch_slice", "channel_block", "grid"])
def test_what_cannot_be_differentiated_twice_says_so(estimator, model, batch, attached):
    attached(model, estimator)
    x = batch[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.square().sum().backward()


def test_torch_func(model, batch, attached):
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(parameters):
        return torch.func.functional_call(model.eval(), parameters, (batch[0],)).square().sum()

    expected = torch.func.grad(loss)(parameters)
    handle = attached(model, "mask")  # its layers are dense
    torch.testing.assert_close(torch.func.grad(loss)(parameters), expected)
    handle.remove()
    attached(model, "batch_slice")
    with pytest.raises(SbpTuneError, match=r"block.conv1: sparse layers do not work under torch.func"):
        torch.func.grad(loss)(parameters)


def test_a_replica_on_another_device_says_so(model, attached):
    """What nn.DataParallel does on each device."""
    attached(model, "layer")
    replica = model.dilated._replicate_for_data_parallel()
    with pytest.raises(SbpTuneError, match=r"dilated: .*DataParallel cannot copy a sparse layer"):
        replica(torch.zeros(1, 8, 4, 4, device="meta"))


@pytest.mark.parametrize("estimator", plugin_names("sparsity/estimators"))
def test_other_passes_between_steps_change_nothing(estimator, model, batch, config_of, train):
    def losses(interrupted):
        twin = copy.deepcopy(model)
        handle = sparsify(twin, config_of(estimator, 0.5))
        if estimator == "budget":
            handle.estimator._time_next_step = lambda optimizers: None
        hook = twin.register_forward_pre_hook(lambda module, _: look_around(module) if interrupted else None)
        found = (
            train(twin, handle, batch, steps=3)
            if estimator != "budget"
            else train(twin, handle, batch, epochs=[0], steps=1)
        )
        hook.remove()
        return found, handle.executed_flops

    def look_around(module):
        training = module.training
        for context in (torch.no_grad(), torch.inference_mode()):
            with context:
                module.eval().__class__.forward(module, batch[0][:3])
                module.train(training)

    assert losses(True) == losses(False)


@pytest.mark.parametrize("estimator", ["mask", "batch_slice", "channel_topk", "layer", "prefix"])
def test_an_exception_in_the_forward_pass_leaves_nothing_broken(estimator, model, batch, config_of, train):
    def losses(fails):
        twin = copy.deepcopy(model)
        handle = sparsify(twin, config_of(estimator))
        found = train(twin, handle, batch, epochs=[0])
        if fails:
            with pytest.raises(RuntimeError):
                twin(batch[0][:, :2])  # the stem
            for hook in [twin.down.register_forward_pre_hook(lambda *_: 1 / 0)]:
                with pytest.raises(ZeroDivisionError), torch.no_grad():
                    twin.eval()(batch[0])
                hook.remove()
            twin.train()
        return found + train(twin, handle, batch, epochs=[1])

    assert losses(True) == losses(False)


@pytest.mark.parametrize(
    "estimator", ["mask", "batch_slice", "channel_block", "channel_topk", "layer", "grid", "variance"]
)
def test_half_precision_models_and_gradient_hooks(estimator, model, batch, config_of):
    seen = []
    model.down.weight.register_hook(lambda gradient: seen.append(gradient.dtype))
    handle = sparsify(model, config_of(estimator, 0.5, layers={"overrides": {"down": 0.99}}))
    model.half()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for epoch in range(3):
        handle.start_epoch(epoch, 3)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch[0].half()).float(), batch[1]).backward()
        handle.before_step(optimizer)
        optimizer.step()
    assert len(seen) >= 2 and set(seen) == {torch.float16}
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("estimator", ["batch_slice", "channel_block", "grid", "variance", "layer"])
def test_an_empty_batch(estimator, model, batch, attached):
    attached(model.eval(), estimator)
    model(batch[0][:0]).sum().backward()
    assert not any(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


class Segments(nn.Module):
    """Checkpointed or not, with a layer that runs in two segments."""

    def __init__(self, block, reentrant):
        super().__init__()
        self.reentrant = reentrant
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), block(8), block(8)
        self.shared, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        for segment in (self.a, self.mix, self.b, self.mix):
            x = segment(x) if self.reentrant is None else checkpoint(segment, x, use_reentrant=self.reentrant)
        return self.head(x.mean((2, 3)))

    def mix(self, x):
        return torch.relu(self.shared(x))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("estimator", [name for name in plugin_names("sparsity/estimators") if name != "budget"])
def test_checkpointing(estimator, reentrant, model, batch, config_of, train):
    def run(reentrant, **more):
        torch.manual_seed(0)
        net = Segments(type(model.block), reentrant)
        handle = sparsify(net, config_of(estimator, 0.4, **more))
        return train(net, handle, batch, epochs=range(2)), list(handle._order)

    if reentrant and estimator == "prefix":
        with pytest.raises(SbpTuneError, match=r"its checkpoint is reentrant.*use_reentrant=False"):
            run(True)
        return
    assert run(reentrant) == run(None)
    run(reentrant, auto_dense=True)  # decisions are not made between a pass and its repetition


@pytest.mark.parametrize("estimator", ["layer", "channel_block", "branch_drop"])
def test_a_copy_of_a_copy_may_be_sparse_too(estimator, model, batch, config_of, train):
    handle = sparsify(model, config_of(estimator))
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    other = sparsify(twin, config_of(estimator))
    assert other.sparse_layers == handle.sparse_layers
    assert train(twin, other, batch) == train(model, handle, batch)
