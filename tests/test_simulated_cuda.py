"""The simulated device is as strict as it says: else GPU tests that pass on it mean little."""

import threading

import numpy as np
import pytest
import torch

# A real device's errors would leave it unusable for the other tests.
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        torch.cuda.CUDAGraph.__module__ != "simulated_cuda", reason="needs --simulated-cuda"
    ),
]


def captured(step):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


@pytest.mark.parametrize(
    "operation",
    [
        lambda ours, theirs: ours + theirs,
        lambda ours, theirs: ours.addcmul_(ours, theirs),
        lambda ours, theirs: torch.cat((ours, theirs)),
        lambda ours, theirs: theirs.matmul(ours),
        lambda ours, theirs: theirs[ours.long()],
        lambda ours, theirs: ours.index_select(0, theirs[0].long()),
        lambda ours, theirs: torch.add(ours, 1, out=theirs),
    ],
)
def test_two_devices_in_one_operation_are_an_error(operation):
    ours, theirs = torch.zeros(2, 2, device="cuda"), torch.zeros(2, 2)
    with pytest.raises(RuntimeError, match="same device"):
        operation(ours, theirs)


def test_numbers_of_the_host_are_welcome():
    ours = torch.ones(2, device="cuda") * torch.tensor(3.0)
    ours[torch.tensor([0])] = torch.tensor(1.0)
    assert ours.device == torch.device("cuda:0")
    assert ours.tolist() == [1.0, 3.0]


def test_numpy_sees_the_host_alone():
    ours = torch.zeros(2, device="cuda")
    for ask in (lambda: ours.numpy(), lambda: np.asarray(ours)):
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            ask()
    assert ours.cpu().numpy().tolist() == [0.0, 0.0]


def test_generators_draw_where_they_live():
    here, there = torch.Generator("cpu"), torch.Generator("cuda")
    assert torch.randn(2, generator=there, device="cuda").device.type == "cuda"
    assert torch.randn(2, generator=here).device.type == "cpu"
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(2, generator=here, device="cuda")
    with pytest.raises(RuntimeError, match="generator"):
        torch.zeros(2, device="cuda").normal_(generator=here)
    with pytest.raises(RuntimeError, match="generator"):
        torch.randperm(2, generator=there, device="cpu")


def test_a_second_device_is_not_there():
    with pytest.raises(RuntimeError, match="ordinal"):
        torch.zeros(2, device="cuda:1")


def test_other_threads_have_the_device():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.zeros(2, device="cuda") + 1))
    thread.start()
    thread.join()
    assert found[0].tolist() == [1.0, 1.0]


def test_views_are_of_the_same_memory():
    whole = torch.zeros(3, 2, device="cuda")
    whole[1:].T[0].add_(1)
    whole.view(-1)[0] = 5
    assert whole.tolist() == [[5.0, 0.0], [1.0, 0.0], [1.0, 0.0]]


def test_autograd_goes_through_the_device():
    weight = torch.nn.Parameter(torch.tensor([2.0, 3.0], device="cuda"))
    (weight**2).sum().backward()
    assert weight.grad.device.type == "cuda"
    assert weight.grad.tolist() == [4.0, 6.0]


def test_capturing_runs_nothing_and_replays_follow_the_memory():
    total, position = torch.zeros(2, device="cuda"), torch.zeros(1, dtype=torch.long, device="cuda")
    table, on_host, seen = torch.arange(6.0, device="cuda").view(3, 2), 10.0, []

    def step():
        row = table.index_select(0, position)[0] * on_host
        seen.append(row)
        total.add_(row)
        position.add_(1)

    replay = captured(step)
    assert total.tolist() == [0.0, 0.0]
    assert position.tolist() == [0]
    assert np.isnan(seen[0].tolist()).all()
    on_host = 1.0  # which the graph does not hear of
    replay()
    assert total.tolist() == [0.0, 10.0]
    table[1] = 7.0  # but of this it does
    replay()
    assert total.tolist() == [70.0, 80.0]
    assert seen[0].tolist() == [70.0, 70.0]


def test_a_graph_has_what_autograd_does_in_its_thread():
    weight, slope = torch.tensor([2.0], device="cuda"), torch.zeros(1, device="cuda")

    def step():
        leaf = weight.detach().requires_grad_()
        slope.copy_(torch.autograd.grad((leaf**2).sum(), leaf)[0])

    replay = captured(step)
    assert slope.tolist() == [0.0]
    weight.fill_(5.0)
    replay()
    assert slope.tolist() == [10.0]


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: x.new_tensor([1.0]),
        lambda x: x.copy_(torch.zeros(2)),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.normal_(),
        lambda x: x.repeat_interleave(torch.ones(2, dtype=torch.long, device="cuda")),
    ],
)
def test_what_waits_for_the_device_cannot_be_captured(step):
    x = torch.zeros(2, device="cuda")
    with pytest.raises(RuntimeError, match="capturing"):
        captured(lambda: step(x))
    step(x)


def test_other_threads_may_wait_while_one_captures():
    x, found = torch.zeros(2, device="cuda"), []

    def step():
        thread = threading.Thread(target=lambda: found.append(x.tolist()))
        thread.start()
        thread.join()

    captured(step)
    assert found == [[0.0, 0.0]]


def test_memory_that_was_freed_is_not_read_again():
    x, total = torch.ones(2, device="cuda"), torch.zeros(2, device="cuda")
    part = x[:1]

    def capture_of(x):
        return captured(lambda: total.add_(x))

    replay = capture_of(x)
    del x
    replay()  # a view is left
    del part
    with pytest.raises(RuntimeError, match="freed"):
        replay()
