"""Following channels through a network: a forward pass on channel numbers instead of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from distill.networks.channels import UNKNOWN, Axis, Channels

# Functions by name, without underscores. They move channels and change none (all positions of a channel are alike):
MOVE = {
    *(
        "cat",
        "concat",
        "chunk",
        "split",
        "stack",
        "unbind",
        "getitem",
        "get",
        "narrow",
        "detach",
        "clone",
        "contiguous",
    ),
    *("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "transpose", "permute"),
    *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "interpolate"),
}
KEEP = {"silu", "relu", "leaky_relu", "hardtanh", "hardswish", "gelu", "mish", "sigmoid", "softmax", "dropout"}
JOIN = {way + name for way in ("", "i", "r") for name in ("add", "sub", "mul", "truediv")} | {"div"}


def trace_channels(network: nn.Module, shape: Sequence[int]) -> Channels:
    """Follow the channels of images of this shape (B, C, H, W) through the network's own forward pass.

    No weight is read and nothing is changed. What comes out of an operation that is not known here is `UNKNOWN`.
    """
    channels = Channels()
    images = channels.new(shape[1]).double().view(1, -1, 1, 1).expand(*shape)
    with torch.no_grad(), _Numbers(network, channels):
        network(images)
    return channels


class _Numbers(TorchFunctionMode):
    """Makes functions of torch compute on numbers: each element of an activation holds the number of its channel.

    Attention's scores have no channels; they hold numbers below `UNKNOWN`, which tell the head.
    """

    def __init__(self, network: nn.Module, channels: Channels) -> None:
        super().__init__()
        self.channels = channels
        self.names = {id(t): name for name, t in (*network.named_parameters(), *network.named_buffers())}
        self.scales: dict[str, Tensor] = {}
        self.weighted: Mapping[str, Callable[..., Tensor]] = {
            "conv2d": self._convolve,
            "conv_transpose2d": self._convolve,
            "linear": self._project,
            "batch_norm": self._normalise,
        }
        self.plain: Mapping[str, Callable[..., Any]] = {
            **dict.fromkeys(KEEP, lambda function, x, *more, **options: x),
            **dict.fromkeys(JOIN, self._join),
            **dict.fromkeys(("matmul", "rmatmul", "bmm"), self._attend),
        }

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, options = function.__name__.strip("_"), kwargs or {}
        if name in self.weighted:
            return self.weighted[name](function, *args, **options)
        args = [self._scale(x) if isinstance(x, Tensor) and id(x) in self.names else x for x in args]
        if name in self.plain:
            return self.plain[name](function, *args, **options)
        result = function(*args, **options)
        return result if name in MOVE or not isinstance(result, Tensor) else torch.full_like(result, UNKNOWN)

    # ---- with weights

    def _convolve(self, function: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Tensor:
        shape = function(*(torch.empty(t.shape, device="meta") for t in (x, weight)), None, *options).shape
        reads, writes = (0, 1) if "transpose" in function.__name__ else (1, 0)
        inside, groups = self._along(x, 1), options[3]
        if groups == 1:
            self._note(inside, weight, axis=reads)
            self.channels.readers.add((self.names[id(weight)], reads))
            out = self.channels.new(shape[1])
        else:  # a convolution by channel hands them on
            out = inside if groups == len(inside) == shape[1] else torch.full((shape[1],), UNKNOWN)
        self._note(out, weight, axis=writes)
        self._note(out, bias)
        return out.double().view(1, -1, 1, 1).expand(shape)

    def _project(self, function: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        self._note(self._along(x, -1), weight, axis=1)
        self.channels.readers.add((self.names[id(weight)], 1))
        out = self.channels.new(len(weight))
        self._note(out, weight)
        self._note(out, bias)
        return out.double().expand(*x.shape[:-1], -1)

    def _normalise(self, function: Any, x: Tensor, *args: Any, **options: Any) -> Tensor:
        for value in (*args, *options.values()):
            self._note(self._along(x, 1), value)
        return x

    def _scale(self, tensor: Tensor) -> Tensor:
        """A parameter that stands by itself, such as a factor per channel: what it meets tells what it is."""
        name = self.names[id(tensor)]
        if tensor.dim() != 1:
            return torch.full(tensor.shape, UNKNOWN).double()
        if name not in self.scales:
            self.scales[name] = self.channels.new(len(tensor))
            self._note(self.scales[name], tensor)
        return self.scales[name].double()

    def _along(self, x: Tensor, axis: int) -> Tensor:
        """The numbers along an axis (C,), `UNKNOWN` if they differ between positions."""
        flat = x.movedim(axis, 0).flatten(1).round().long()
        alike = bool((flat == flat[:, :1]).all())
        return flat[:, 0].clamp(min=UNKNOWN) if alike else torch.full((len(flat),), UNKNOWN)

    def _note(self, numbers: Tensor, tensor: Any, axis: int = 0) -> None:
        if isinstance(tensor, Tensor):
            found: Axis = (self.names[id(tensor)], axis)
            self.channels.numbers[found] = self.channels.seen(numbers)

    # ---- without

    def _join(self, function: Any, x: Any, y: Any) -> Any:
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            return x if isinstance(x, Tensor) else y
        one, other = (t.round().long() for t in torch.broadcast_tensors(x, y))
        self.channels.tie(one, other)
        fewer = len(one.unique()) < len(other.unique())  # a gate's one channel gives way to the many that it scales
        return torch.where(other > UNKNOWN if fewer else one <= UNKNOWN, other, one).double()

    def _attend(self, function: Any, x: Tensor, y: Tensor) -> Tensor:
        """(..., M, K) @ (..., K, N): queries with keys, which ties the channels along K, or values with scores."""
        shape = function(x, y).shape
        left, right = (t.round().long().expand(*shape[:-2], -1, -1).flatten(0, -3) for t in (x, y))
        found = [self._attend_once(*pair) for pair in zip(left, right, strict=True)]
        return torch.stack(found).view(shape).double()

    def _attend_once(self, left: Tensor, right: Tensor) -> Tensor:
        """In one head, in one part of the image: (M, K) and (K, N) give (M, N)."""
        result = torch.full((len(left), right.shape[1]), UNKNOWN)
        queries, keys = _alike(left), _alike(right.T)  # (K,)
        if queries is not None and keys is not None:
            self.channels.tie(queries, keys)
            self.channels.gather(torch.cat([queries, keys]))
            return result - 1 - queries[0]
        for values, scores, turned in ((_alike(left.T), right, result.T), (_alike(right), left, result)):
            if values is not None and bool((scores < UNKNOWN).all()):
                self.channels.gather(torch.cat([values, UNKNOWN - 1 - scores.flatten()]))
                turned[:] = values
        return result


def _alike(rows: Tensor) -> Tensor | None:
    """What each row of (P, C) holds, (C,), if all hold the same and it is channels."""
    return rows[0] if bool(((rows == rows[0]) & (rows > UNKNOWN)).all()) else None
