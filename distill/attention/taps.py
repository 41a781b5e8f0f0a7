"""Reading layer outputs through forward hooks that exist only inside a `with` block."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from distill.errors import InputError, SilentTapError
from distill.text import nearest


class Taps:
    """Forward hooks on named modules of one network, as a context manager.

    >>> with Taps(model, ["model.16"]) as taps:
    ...     model(images)
    ...     features = taps.read()          # {"model.16": (B, C, H, W)}

    Hooks are removed on exit, also after an exception. Reading empties the taps, so that no step sees the tensors of
    another; a tap whose module did not run since the last reading is an error, never a silent zero. A module that
    runs several times keeps its last output. One object may be entered again and again, and then uses the same hook
    functions each time: `torch.compile` burns those of the first call into its graph.

    Raises InputError for a name that the network lacks, SilentTapError for a tap that did not fire, that gave no
    feature map, or whose tensor an activation such as `SiLU(inplace=True)` has overwritten since.
    """

    def __init__(self, module: nn.Module, layers: Iterable[str]) -> None:
        self.layers = tuple(dict.fromkeys(layers))
        known = dict(module.named_modules())
        for layer in self.layers:
            if layer not in known:
                raise InputError(f"layer '{layer}' not found{nearest(layer, known)}")
        self._modules = {layer: known[layer] for layer in self.layers}
        self._outputs: dict[str, Any] = {}
        self._hooks = {layer: self._keeper(layer) for layer in self.layers}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Taps:
        self._outputs.clear()
        for layer, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._hooks[layer]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _keeper(self, layer: str) -> Callable[[nn.Module, Any, Any], None]:
        outputs = self._outputs  # the same dict for good, for the compiled graph's sake: emptied, never replaced

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            # a compiled graph cannot ask for the version; whoever compiles has run the network as it is before
            outputs[layer] = output, None if torch.compiler.is_compiling() else _version(output)

        return keep

    def read(self) -> dict[str, Tensor]:
        """The outputs since the last reading, by layer name, each (B, C, *S)."""
        outputs = dict(self._outputs)
        self._outputs.clear()
        for layer in self.layers:
            if layer not in outputs:
                kind = type(self._modules[layer]).__name__
                raise SilentTapError(f"layer '{layer}' ({kind}) did not run in this forward pass: tap another layer")
            output, version = outputs[layer]
            if not isinstance(output, Tensor) or output.ndim < 3:
                raise SilentTapError(
                    f"layer '{layer}' gives {_shape(output)}, not a feature map (B, C, H, W): tap another layer"
                )
            if version is not None and _version(output) != version:
                raise SilentTapError(
                    f"the output of layer '{layer}' is overwritten in place by the layer behind it: tap that one"
                )
        return {layer: outputs[layer][0] for layer in self.layers}


def _version(output: Any) -> int:
    """Counts the in-place changes of a tensor."""
    return output._version if isinstance(output, Tensor) and not output.is_inference() else 0


def _shape(output: Any) -> str:
    return f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
