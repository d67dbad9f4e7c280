"""The products, each alone, equal torch's own backward pass; so does the autograd function around them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sbp_tune.sparsity.operators import Linear, operator_of, padded
from sbp_tune.sparsity.products import Products, SparseBackward

CONVOLUTIONS = {
    "plain": {"kernel_size": 3, "padding": 1},
    "pointwise": {"kernel_size": 1},
    "stride": {"kernel_size": 3, "stride": 2, "padding": 1},
    "uneven": {"kernel_size": (3, 5), "stride": (1, 2), "padding": (0, 2)},
    "dilation": {"kernel_size": 3, "dilation": 2, "padding": 2},
    "grouped": {"kernel_size": 3, "groups": 2, "padding": 1},
    "depthwise": {"kernel_size": 3, "groups": 8, "padding": 1, "stride": 2},
    "same": {"kernel_size": 4, "padding": "same"},
    "reflect": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
}


def dense_rule(products):
    """Both products, one by one."""
    return products.grad_input(), products.grad_weight()


def sparse_forward(module, x):
    return SparseBackward.apply(
        padded(module, x), module.weight, module.bias, operator_of(module), dense_rule, lambda *_: None
    )


def gradients(module, x, run):
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    module.zero_grad(set_to_none=True)
    y = run(module, x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
    return [y.detach(), x.grad, *(parameter.grad for parameter in module.parameters())]


def laid_out_alike(one, other):
    """As autograd asks of a gradient it keeps without a copy: the stride of a dimension of one element is no matter."""
    pairs = zip(one.shape, one.stride(), other.stride(), strict=True)
    return all(mine == theirs for size, mine, theirs in pairs if size > 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("settings", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_equals_torchs_own(settings, dtype, layout, bias):
    torch.manual_seed(0)
    module = nn.Conv2d(8, 8, bias=bias, **settings).to(dtype, memory_format=layout)
    x = torch.randn(3, 8, 9, 10).to(dtype, memory_format=layout)
    theirs = gradients(module, x, lambda layer, x: layer(x))
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype is torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    for mine, other in zip(gradients(module, x, sparse_forward), theirs, strict=True):
        assert mine.dtype is dtype
        torch.testing.assert_close(mine, other, **tolerance)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("settings", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_grad_weight_from_few_positions_equals_torchs_own(settings, layout):
    torch.manual_seed(0)
    module = nn.Conv2d(8, 256, **settings).to(memory_format=layout)
    x = torch.randn(2, 8, 7, 8).to(memory_format=layout)
    positions = module(x)[:, 0].numel()
    assert positions <= 256
    theirs = gradients(module, x, lambda layer, x: layer(x))
    for mine, other in zip(gradients(module, x, sparse_forward), theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
        assert laid_out_alike(mine, other)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(5, 3), (4, 5)),
        (nn.Linear(5, 3, bias=False), (4, 2, 5)),
        (nn.Conv1d(4, 6, 3, stride=2), (2, 4, 11)),
        (nn.Conv3d(2, 4, 3, padding=1), (2, 2, 5, 4, 6)),
    ],
)
def test_other_layers_equal_torchs_own(module, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    theirs = gradients(module, x, lambda layer, x: layer(x))
    torch.testing.assert_close(gradients(module, x, sparse_forward), theirs, rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(4, 9),
    st.sampled_from([(4, torch.float64, 1e-9), (128, torch.float32, 1e-4)]),
)
def test_any_shape_equals_torchs_own(samples, groups, kernel, stride, padding, size, kind):
    channels, dtype, tolerance = kind
    module = nn.Conv2d(2 * groups, channels * groups, kernel, stride, padding, groups=groups).to(dtype)
    x = torch.randn(samples, 2 * groups, size, size + 1, dtype=dtype)
    theirs = gradients(module, x, lambda layer, x: layer(x))
    torch.testing.assert_close(gradients(module, x, sparse_forward), theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("module", [nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), nn.Linear(3, 2)])
def test_gradcheck(module):
    module = module.double()
    shape = (2, 2, 5, 5) if isinstance(module, nn.Conv2d) else (2, 3)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    operator = operator_of(module)

    def run(x, weight, bias):
        return SparseBackward.apply(x, weight, bias, operator, dense_rule, lambda *_: None)

    assert torch.autograd.gradcheck(run, (x, module.weight, module.bias))


def test_none_for_a_weight_leaves_its_grad_alone():
    module = nn.Conv2d(2, 2, 3)
    x = torch.randn(1, 2, 5, 5, requires_grad=True)
    y = SparseBackward.apply(
        x, module.weight, module.bias, operator_of(module), lambda products: (products.grad_input(), None), print
    )
    y.sum().backward()
    assert module.weight.grad is None and module.bias.grad is not None and x.grad is not None


def test_a_product_that_nobody_wants_does_not_run():
    counted = []
    x, weight = torch.randn(2, 3), torch.randn(4, 3)
    products = Products(Linear(), torch.randn(2, 4), x, weight, False, True, lambda name, flops: counted.append(name))
    assert products.grad_input() is None and products.dense()[0] is None
    assert counted == ["grad_weight"]


def test_layers_that_torch_does_not_run_itself_stay_dense():
    class Standardized(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)

    assert operator_of(Standardized(2, 2, 3)) is None
    assert operator_of(nn.Conv2d(2, 2, 3)) is not None
