"""A CUDA device simulated on the CPU: ``pytest --simulated-cuda -m gpu`` where there is no GPU.

It computes with the CPU's kernels and says nothing of speed, but it is strict where a GPU is:

- Tensors are on ``cuda:0``; an operation on tensors of both devices is an error, and so is numpy.
- A generator draws where it lives.
- While a graph is captured nothing is run: results are NaN or 0 until the first replay. To wait
  for the device, to copy from the host or to draw is an error.
- A replay does again what was captured, on the same memory, and hears nothing else from the host.
  Memory that was freed since is an error.

torch calls the device ``simulated`` and lets Python be its backend: a tensor is an empty one of
torch's that has the numbers in another tensor, ``host``. What is said of "cuda" becomes that device
on the way in (``_Names``), and every operation is done by the host's tensors (``_compute``).
"""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from types import SimpleNamespace

import torch
from torch._C import DispatchKey
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

_CUDA = torch.device("cuda:0")
_OURS = torch.device("privateuseone:0")

# What makes the host wait for the device.
_WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2"}
_COPYING = {"_to_copy", "copy_"}
# What draws from torch's own generator if it is not given one.
_DRAWING = {"normal_", "uniform_", "bernoulli_", "random_", "rand", "randn", "randint", "randperm"}
# Views, though their schemas do not say so.
_VIEWS = {"_unsafe_view", "_reshape_alias"}
# Of a pair of operands that may be on two devices, the one that may be the host's: indices.
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}

_capturing = SimpleNamespace(graph=None, thread=None)
_drawing = threading.local()


class _Memory:
    """A piece of the device's memory; it lives as long as a tensor that has it."""


class DeviceTensor(torch.Tensor):
    """A tensor on the simulated device."""

    @staticmethod
    def __new__(cls, host, memory=None):
        empty = torch.empty(host.storage_offset() + _extent(host), dtype=host.dtype, device="meta")
        empty = empty.as_strided(host.size(), host.stride(), host.storage_offset())
        self = torch.Tensor._make_subclass(
            cls, empty, False, dispatch_device=True, device_for_backend_keys=_OURS
        )
        self.host, self.memory = host, memory or _Memory()
        return self

    device = property(lambda self: _CUDA)
    is_cuda = property(lambda self: True)
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self, **_):
        return f"{self.host}, on the simulated device"

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), named=None):
        return _compute(function, arguments, named or {})


def _extent(tensor):
    """How many numbers there are from the first to the last."""
    if not tensor.numel():
        return 0
    steps = zip(tensor.size(), tensor.stride(), strict=True)
    return 1 + sum((size - 1) * stride for size, stride in steps)


class Generator(torch._C.Generator):
    """Of either device; that of the simulated one draws the numbers that the host's would."""

    def __new__(cls, device="cpu"):
        self = super().__new__(cls, "cpu")
        self.lives_at = _CUDA if torch.device(device).type == "cuda" else torch.device("cpu")
        return self

    def __init__(self, device="cpu"):
        pass

    device = property(lambda self: self.lives_at)


class _Names(TorchFunctionMode):
    """Calls of torch as they were written: "cuda" is our device, and some are for tensors alone."""

    def __torch_function__(self, function, types, arguments=(), named=None):
        named = named or {}
        if function is torch.device:
            return function(*arguments, **named)
        first = arguments[0] if arguments else None
        if isinstance(first, DeviceTensor):
            if function is torch.Tensor.tolist:
                return first.cpu().tolist()
            if function in (torch.Tensor.numpy, torch.Tensor.__array__):
                raise TypeError(
                    "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()"
                )
            if function == torch.Tensor.data.__set__:
                first.host, first.memory = arguments[1].host, arguments[1].memory
        if function is torch.Tensor.cuda:
            return first.to(_OURS)
        for argument in (*arguments, *named.values()):
            if isinstance(argument, Generator):  # an operation gets a copy that does not say
                _drawing.generator = argument
        return function(*map(_ours, arguments), **{name: _ours(a) for name, a in named.items()})


def _ours(argument):
    if isinstance(argument, str) and argument.startswith("cuda"):
        argument = torch.device(argument)
    if isinstance(argument, torch.device) and argument.type == "cuda":
        if argument.index:
            raise RuntimeError("CUDA error: invalid device ordinal")
        return _OURS
    return argument


class _Operations(TorchDispatchMode):
    """Operations that no tensor of the device takes part in, but that may make one."""

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        return _compute(function, arguments, named or {})


@functools.cache
def _is_composite(function):
    return torch._C._dispatch_has_kernel_for_dispatch_key(
        function.name(), DispatchKey.CompositeImplicitAutograd
    )


@functools.cache
def _is_view(function):
    of = function._schema.returns
    is_said = any(r.alias_info is not None and not r.alias_info.is_write for r in of)
    return is_said or _name(function) in _VIEWS


def _tensors(value):
    """All in tuples, lists and dicts. torch's own way of finding them takes most of the time."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [t for part in parts for t in _tensors(part)] if _is_nested(value) else []


def _mapped(change, value):
    """Tuples, lists and dicts as they are, with every tensor changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _mapped(change, part) for name, part in value.items()}
    parts = [_mapped(change, part) for part in value] if _is_nested(value) else value
    return tuple(parts) if isinstance(value, tuple) else parts


def _is_nested(value):
    return isinstance(value, tuple | list | dict)


def _name(function):
    return function.__name__.split(".")[0]


def _compute(function, arguments, named):
    """The operation, by the host's tensors."""
    if function is torch.ops.prim.device.default:
        return _OURS
    if _is_composite(function):  # as with autograd; in inference mode it comes whole
        with _Operations():
            return function.decompose(*arguments, **named)
    tensors = _tensors((arguments, named))
    ours = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
    wanted = named.get("device")
    if not ours and wanted != _OURS:
        _check_generator(function, named, torch.device("cpu"))
        return function(*arguments, **named)

    name = _name(function)
    is_ours = wanted in (None, _OURS)  # the result
    if name == "copy_":
        is_ours = isinstance(arguments[0], DeviceTensor)
    theirs = [tensor for tensor in tensors if not isinstance(tensor, DeviceTensor)]
    _check_devices(function, name, arguments, theirs)
    is_crossing = bool(theirs) or not is_ours
    is_drawing = name in _DRAWING or named.get("generator") is not None
    if is_ours:
        _check_generator(function, named, _CUDA)
    graph = _graph_of_this_thread()
    if graph is not None and (is_crossing or is_drawing or _is_waiting(name, arguments, named)):
        raise RuntimeError(
            f"CUDA error: operation not permitted when stream is capturing: {function}"
        )

    on_host, named_on_host = _mapped(lambda t: getattr(t, "host", t), (arguments, named))
    if wanted is not None:
        named_on_host["device"] = torch.device("cpu")
    if graph is not None:
        result = graph.record(function, on_host, named_on_host, ours)
    else:
        result = function(*on_host, **named_on_host)
    if not is_ours or not isinstance(result, torch.Tensor | tuple | list):
        return result
    return _on_device(function, arguments, named, result, ours, graph)


def _on_device(function, arguments, named, result, ours, graph):
    """What came of an operation as tensors of the device."""
    if function._schema.is_mutable:  # what was given is what comes back
        return return_and_correct_aliasing(function, arguments, named, result)
    is_view = _is_view(function)

    def wrapped(part):
        if is_view:  # made in inference mode or not, as what it is a view of
            with torch.inference_mode(ours[0].is_inference()):
                return DeviceTensor(part, ours[0].memory)
        tensor = DeviceTensor(part)
        if graph is not None:
            graph.own.add(tensor.memory)
        return tensor

    result = _mapped(wrapped, result)
    return return_and_correct_aliasing(function, arguments, named, result) if is_view else result


def _check_devices(function, name, arguments, theirs):
    if name in _COPYING:
        return
    foreign = [tensor for tensor in theirs if tensor.dim()]  # numbers are welcome
    if name in _INDEXING:
        foreign = [a for a in (arguments[0], *arguments[2:3]) if any(a is t for t in foreign)]
    if foreign:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"cuda:0 and cpu: {function}, {[tuple(tensor.shape) for tensor in foreign]}"
        )


def _check_generator(function, named, device):
    if named.get("generator") is not None and _drawing.generator.device != device:
        raise RuntimeError(f"Expected a {device.type!r} device type for generator: {function}")


def _is_waiting(name, arguments, named):
    if name == "repeat_interleave":
        return named.get("output_size") is None
    of_bits = name in _INDEXING and any(
        index is not None and index.dtype == torch.bool for index in arguments[1]
    )
    return of_bits or name in _WAITING


def _graph_of_this_thread():
    """That which is being captured by this thread, or by one that autograd works for it in."""
    thread = threading.current_thread()
    is_autograds = isinstance(thread, threading._DummyThread)
    return _capturing.graph if is_autograds or thread is _capturing.thread else None


class Graph:
    """Operations on memory that stays where it is."""

    def __init__(self):
        self.steps = []
        self.own = set()  # the memory of results
        self.others = {}  # what was read or written besides, by id; it is not kept alive

    def record(self, function, arguments, named, ours):
        for tensor in ours:
            if tensor.memory not in self.own:
                self.others[id(tensor.memory)] = weakref.ref(tensor.memory), function
        if _is_view(function):
            return function(*arguments, **named)
        if function._schema.is_mutable:
            self.steps.append((function, arguments, named, None))
            return () if function._schema.returns else None  # which tensors, torch knows
        result = function(*arguments, **named)
        for part in _tensors(result):
            part.fill_(torch.nan if part.is_floating_point() else 0)
        self.steps.append((function, arguments, named, result))
        return result

    def replay(self):
        for memory, function in self.others.values():
            if memory() is None:
                raise RuntimeError(f"CUDA error: an illegal memory access: freed, for {function}")
        with torch._C._DisableTorchDispatch(), torch.no_grad():
            for function, arguments, named, result in self.steps:
                now = function(*arguments, **named)
                if result is not None:
                    for part, new in zip(_tensors(result), _tensors(now), strict=True):
                        part.copy_(new)


@contextlib.contextmanager
def _capture(graph, pool=None, stream=None, capture_error_mode="global"):
    assert _capturing.graph is None, "two captures at once"
    _capturing.graph, _capturing.thread = graph, threading.current_thread()
    try:
        yield
    finally:
        _capturing.graph = _capturing.thread = None


class Stream:
    """All streams are one."""

    def __init__(self, device=None):
        pass

    def wait_stream(self, stream):
        assert isinstance(stream, Stream)


class _Module:
    """What torch asks of the module of a device."""

    is_available = is_initialized = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 1)
    current_device = staticmethod(lambda: 0)
    _is_in_bad_fork = staticmethod(lambda: False)
    _lazy_init = staticmethod(lambda: None)


def _enter():
    """In this thread: what is said to torch goes through the simulation."""
    torch._C._set_only_lift_cpu_tensors(True)  # numbers become a tensor here, and then are moved
    _Operations().__enter__()
    _Names().__enter__()


def install():
    """For all threads of this process, and for good."""
    # Where there is a GPU torch need not have it.
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    # Without a name of its own autograd would not take it for an accelerator.
    _setup_privateuseone_for_python_backend("simulated", backend_module=_Module())
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch.Generator = Generator
    on_the_device = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "synchronize": lambda device=None: None,
        "mem_get_info": lambda device=None: (2**33, 2**33),
        "memory_reserved": lambda device=None: 0,
        "memory_allocated": lambda device=None: 0,
        "device": lambda device: contextlib.nullcontext(),
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": lambda device=None: Stream(),
        "Stream": Stream,
        "CUDAGraph": Graph,
        "graph": _capture,
    }
    for name, value in on_the_device.items():
        setattr(torch.cuda, name, value)
    run = threading.Thread.run

    def run_with_the_device(thread):
        _enter()
        run(thread)

    threading.Thread.run = run_with_the_device
    _enter()
