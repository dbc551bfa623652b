"""SOAP does what its paper says, matrix by matrix."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from pyg_schnet.training.soap import Soap
from tests.gpu_like import LaunchCounter, gpu_like

# Covariances of full rank after one step, else the first basis is any: square, or the longer side has none.
SHAPES = [torch.Size(shape) for shape in ((5, 5), (5,), (5, 5), (6, 4), (4, 9), (12, 12), (2, 3, 4))]
MAX_SIDE = 5


def random(seed, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def run(weights, gradients, **options):
    """Give the weights after each step."""
    params = [nn.Parameter(weight.clone()) for weight in weights]
    optimizer = Soap(params, **{"lr": 0.1, "max_side": MAX_SIDE} | options)
    history = []
    for step in gradients:
        for param, gradient in zip(params, step, strict=True):
            param.grad = gradient
        optimizer.step()
        history.append([param.detach().clone() for param in params])
    return history


def plain(weight, gradients, lr=0.1, beta1=0.95, beta2=0.98, refresh_every=10):
    """Algorithm 3 of the paper for one matrix, written down step by step."""
    weight, history = weight.clone(), []
    sides = [side for side in (0, 1) if 1 < weight.shape[side] <= MAX_SIDE]
    covariance = [torch.zeros(n, n, dtype=weight.dtype) for n in weight.shape]
    basis = [torch.eye(n, dtype=weight.dtype) for n in weight.shape]
    mean, squares = torch.zeros_like(weight), torch.zeros_like(weight)
    for step, gradient in enumerate(gradients, 1):
        outer = gradient @ gradient.T, gradient.T @ gradient
        for side in sides:
            covariance[side] = beta2 * covariance[side] + (1 - beta2) * outer[side]
            if step == 1:
                basis[side] = torch.linalg.eigh(covariance[side])[1].flip(-1)
        turned = basis[0].T @ gradient @ basis[1]
        mean = beta1 * mean + (1 - beta1) * gradient
        squares = beta2 * squares + (1 - beta2) * turned**2
        turned_mean = basis[0].T @ mean @ basis[1] / (1 - beta1**step)
        change = turned_mean / ((squares / (1 - beta2**step)).sqrt() + 1e-8)
        if step > 1:
            weight = weight - lr * basis[0] @ change @ basis[1].T
        history.append(weight)
        if step % refresh_every == 0:
            for side in sides:
                sizes = torch.diagonal(basis[side].T @ covariance[side] @ basis[side])
                order = sizes.argsort(descending=True)
                squares = squares.index_select(side, order)
                basis[side] = torch.linalg.qr(covariance[side] @ basis[side][:, order])[0]
    return history


def test_batches_of_matrices_are_what_one_after_the_other_is():
    gradients = [random(seed) for seed in range(25)]
    history = run(random(100), gradients, refresh_every=4)
    for index, shape in enumerate(SHAPES):
        if len(shape) == 2:
            of_one = [step[index] for step in gradients]
            expected = plain(random(100)[index], of_one, refresh_every=4)
            assert_close([step[index] for step in history], expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("index", [1, 5, 6], ids=["vector", "both sides too long", "three dimensions"])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_weights_without_a_basis_take_steps_of_adamw(index, decay):
    gradients = [random(seed) for seed in range(12)]
    history = [step[index] for step in run(random(100), gradients, weight_decay=decay)]
    weight = random(100)[index].requires_grad_()
    adam = torch.optim.AdamW([weight], 0.1, betas=(0.95, 0.98), weight_decay=decay)
    before = weight.detach().clone()
    for number, (step, found) in enumerate(zip(gradients, history, strict=True)):
        weight.grad = step[index]
        adam.step()
        if number == 0:  # only a look at the gradients
            assert_close(found, before, atol=0, rtol=0)
            with torch.no_grad():
                weight.copy_(before)
        assert_close(found, weight.detach(), atol=1e-12, rtol=0)


def test_weight_decay_shrinks_matrices_by_rate_times_decay():
    gradients = [random(seed) for seed in range(6)]
    plain, decayed = (run(random(100), gradients, weight_decay=decay) for decay in (0.0, 0.5))
    for index in range(len(SHAPES)):
        before = random(100)[index]
        shrunk = before.clone()
        for step in range(1, len(gradients)):  # the first step only initializes the bases
            move = plain[step][index] - plain[step - 1][index]
            shrunk = shrunk * (1 - 0.1 * 0.5) + move
        assert_close(decayed[-1][index], shrunk, atol=1e-12, rtol=0)


def test_a_rotation_of_rows_and_columns_rotates_the_steps():
    """Adam's steps depend on the basis the weights happen to be in, these do not."""
    left, right = (torch.linalg.qr(matrix)[0] for matrix in random(7, [torch.Size((5, 5))] * 2))
    shape = [torch.Size((5, 5))]
    gradients = [random(seed, shape) for seed in range(25)]
    (start,) = random(100, shape)
    history = run([start], gradients)
    rotated = run([left @ start @ right], [[left @ gradient @ right] for (gradient,) in gradients])
    assert_close(
        [step[0] for step in rotated], [left @ step[0] @ right for step in history], atol=1e-8, rtol=0
    )


def test_a_badly_conditioned_layer_is_learned_where_adam_is_not():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))[0]
    inputs = torch.randn(200, 8, generator=generator, dtype=torch.float64) * torch.logspace(0, -3, 8)
    inputs, wanted = inputs @ mixing, random(1, [torch.Size((8, 8))])[0]

    def loss_after(make):
        weight = nn.Parameter(torch.zeros(8, 8, dtype=torch.float64))
        optimizer = make(weight)
        for step in range(400):
            optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 400)
            optimizer.zero_grad()
            loss = (inputs @ (weight - wanted)).square().mean()
            loss.backward()
            optimizer.step()
        return loss.item()

    soap = loss_after(lambda weight: Soap([weight], lr=0.1))
    adam = loss_after(lambda weight: torch.optim.Adam([weight], lr=0.1))
    assert soap < 0.01 * adam


def test_the_same_bits_for_any_number_of_threads():
    shapes = [torch.Size(shape) for shape in ((64, 64),) * 12 + ((64, 301), (64,))]
    gradients = [[t.float() for t in random(seed, shapes)] for seed in range(12)]
    weights = [t.float() for t in random(100, shapes)]
    before = torch.get_num_threads()
    histories = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            histories.append(run(weights, gradients, max_side=128)[-1])
    finally:
        torch.set_num_threads(before)
    assert_close(*histories, atol=0, rtol=0)


def test_groups_have_options_of_their_own():
    weights, gradients = random(100), [random(seed) for seed in range(12)]
    params = [nn.Parameter(weight.clone()) for weight in weights]
    groups = [{"params": params[:3]}, {"params": params[3:], "lr": 0.02, "betas": (0.8, 0.9)}]
    optimizer = Soap(groups, lr=0.1, max_side=MAX_SIDE)
    for step in gradients:
        for param, gradient in zip(params, step, strict=True):
            param.grad = gradient
        assert optimizer.step(lambda: 7.0) == 7.0
    first = run(weights[:3], [step[:3] for step in gradients])[-1]
    second = run(weights[3:], [step[3:] for step in gradients], lr=0.02, betas=(0.8, 0.9))[-1]
    assert_close([param.detach() for param in params], first + second, atol=1e-12, rtol=0)


def test_weights_without_a_gradient_stay():
    used, unused = (nn.Parameter(torch.ones(5, 5)) for _ in range(2))
    optimizer = Soap([used, unused])
    for seed in range(3):
        used.grad = random(seed, [torch.Size((5, 5))])[0].float()
        optimizer.step()
    assert torch.equal(unused, torch.ones(5, 5))
    assert not torch.equal(used, unused)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "`lr`.*at least 0.*finite.*-1.0"),
        ({"betas": (0.9, 1.0)}, r"`betas`.*\[0.*1\).*\(0.9, 1.0\)"),
        ({"refresh_every": 0}, "`refresh_every`.*at least 1.*0"),
        ({"max_side": 0}, "`max_side`.*at least 1.*0"),
        ({"eps": -1.0}, "`eps`.*at least 0.*finite.*-1.0"),
        ({"weight_decay": -1.0}, "`weight_decay`.*at least 0.*finite.*-1.0"),
    ],
)
def test_wrong_options_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        Soap([nn.Parameter(torch.ones(2))], **options)
    with pytest.raises(ValueError, match=message):
        Soap([{"params": [nn.Parameter(torch.ones(2))], **options}])


@pytest.mark.parametrize("factor", [1.0, 1e3, 1e6])
def test_rows_that_no_gradient_reaches_stay(factor):
    """An embedding's unseen elements: rounding in the basis of all rows must not move them."""
    torch.manual_seed(0)
    embedding = nn.Embedding(100, 64)
    seen, before = torch.tensor([1, 6, 7, 8]), embedding.weight.detach().clone()
    optimizer = Soap(embedding.parameters(), lr=4e-3)
    for _ in range(60):
        wanted = torch.randn(4, 64)
        optimizer.zero_grad()
        (factor * (embedding(seen) - wanted).square().mean()).backward()
        optimizer.step()
    moved = (embedding.weight.detach() - before).abs().amax(1)
    unseen = torch.ones(100, dtype=torch.bool).index_fill(0, seen, False)
    assert moved[seen].min() > 0.02
    assert moved[unseen].max() < 0.004


def test_frozen_weights_stop():
    first, second = (nn.Parameter(torch.ones(5, 5)) for _ in range(2))
    optimizer = Soap([first, second])
    for seed in range(12):
        first.grad, second.grad = (g.float() for g in random(seed, [torch.Size((5, 5))] * 2))
        if seed == 5:
            kept = second.detach().clone()
        if seed >= 5:
            second.grad = None
        optimizer.step()
    assert torch.equal(second, kept)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_goes_on(duplicate):
    param = nn.Parameter(torch.ones(5, 5))
    optimizer = Soap([param])
    for seed in range(3):
        param.grad = random(seed, [torch.Size((5, 5))])[0].float()
        optimizer.step()
    other = duplicate(optimizer)
    (twin,) = other.param_groups[0]["params"]
    for step, weight in ((optimizer, param), (other, twin)):
        weight.grad = random(9, [torch.Size((5, 5))])[0].float()
        step.step()
    assert torch.equal(param, twin)


def test_types_and_devices_may_change_before_the_first_step_and_differ():
    model = nn.Linear(5, 5)
    optimizer = Soap([*model.parameters(), other := nn.Parameter(torch.ones(5, 5).bfloat16())], lr=0.05)
    model.double()
    for _ in range(12):
        optimizer.zero_grad()
        (model(torch.ones(5).double()).square().sum() + other.float().square().sum()).backward()
        optimizer.step()
    assert model.weight.dtype == torch.float64
    assert other.isfinite().all()
    assert (other < 1).all()


def test_a_gradient_that_is_no_number_shows_in_the_weights():
    param = nn.Parameter(torch.ones(5, 5))
    optimizer = Soap([param])
    for _ in range(11):
        param.grad = torch.full((5, 5), float("nan"))
        optimizer.step()
    assert param.isnan().all()


def test_sparse_gradients_are_refused():
    embedding = nn.Embedding(9, 5, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r"gradients.*dense"):
        Soap(embedding.parameters()).step()


def per_batch(state, matrices, gradients, step, lr=0.1, beta1=0.95, beta2=0.98, refresh_every=4):
    """A step for matrices of one shape by one operation after the other, in place."""
    gradient = torch.stack(gradients)
    for side, covariance in enumerate(state["covariances"]):
        left, right = (gradient, gradient.mT) if side == 0 else (gradient.mT, gradient)
        covariance.baddbmm_(left, right, beta=beta2, alpha=1 - beta2)
        if step == 1:
            state["bases"][side] = torch.linalg.eigh(covariance)[1].flip(-1).contiguous()
    left, right = state["bases"]
    gradient = left.mT @ gradient @ right
    state["mean"].lerp_(gradient, 1 - beta1)
    state["squares"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    root = state["squares"].sqrt().div_(math.sqrt(1 - beta2**step)).add_(1e-8)
    root = torch.maximum(root, 1e-5 * root.amax((1, 2), keepdim=True))
    change = (left @ (state["mean"] / root).div_(1 - beta1**step) @ right.mT).unbind()
    if step > 1:
        for matrix, direction in zip(matrices, change, strict=True):
            matrix.sub_(direction, alpha=lr)
    if step % refresh_every == 0:
        mean = left @ state["mean"] @ right.mT
        for side, covariance in enumerate(state["covariances"]):
            product = covariance @ state["bases"][side]
            order = (state["bases"][side] * product).sum(1).argsort(1, descending=True)
            rows = order[:, :, None] if side == 0 else order[:, None, :]
            state["squares"] = state["squares"].gather(1 + side, rows.expand_as(state["squares"]))
            columns = order[:, None, :].expand_as(product)
            state["bases"][side] = torch.linalg.qr(product.gather(2, columns))[0].contiguous()
        state["mean"] = state["bases"][0].mT @ mean @ state["bases"][1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_operations_on_all_batches_at_once_have_the_bits_of_single_ones(dtype):
    shapes = [torch.Size((8, 8)), torch.Size((6, 8)), torch.Size((8, 8)), torch.Size((5,))]
    weights = [weight.to(dtype) for weight in random(100, shapes)]
    gradients = [[g.to(dtype) for g in random(seed, shapes)] for seed in range(14)]
    history = run(weights, gradients, max_side=8, refresh_every=4)
    for members in ((0, 2), (1,)):
        matrices = [weights[index].clone() for index in members]
        like = torch.stack(matrices)
        square = [like.new_zeros(len(members), length, length) for length in like.shape[1:]]
        state = {"mean": torch.zeros_like(like), "squares": torch.zeros_like(like), "covariances": square}
        state["bases"] = [None, None]
        for step, found in enumerate(history, 1):
            per_batch(state, matrices, [gradients[step - 1][index] for index in members], step)
            assert all(torch.equal(found[i], m) for i, m in zip(members, matrices, strict=True)), step


def test_the_paths_of_accelerators_take_the_same_steps():
    gradients, options = [random(seed) for seed in range(25)], {"refresh_every": 4, "weight_decay": 0.5}
    expected = run(random(100), gradients, **options)
    with gpu_like():
        found = run(random(100), gradients, **options)
    # Products with reciprocals instead of quotients: some ulp a step, amplified by the decompositions.
    assert_close(found, expected, atol=1e-11, rtol=0)


def test_steps_between_refreshes_wait_for_no_device():
    params = [nn.Parameter(weight) for weight in random(100)]
    with gpu_like():
        optimizer = Soap(params, lr=0.1, max_side=MAX_SIDE, refresh_every=4)
        for seed in range(6):
            for param, gradient in zip(params, random(seed), strict=True):
                param.grad = gradient
            with LaunchCounter() as counter:
                optimizer.step()
            waits = seed == 0 or seed == 3  # the first bases and their refresh after four steps
            assert bool(counter.synchronizations) == waits, counter.report()
