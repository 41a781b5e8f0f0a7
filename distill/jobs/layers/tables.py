"""An analysis of layers in words: tables, and the suggested pairs with their reasons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distill.attention.layers import LayerInfo
from distill.jobs.layers.findings import Compared, Costed, Findings, Surveyed

HEADS = ("layer", "type", "role", "grid", "stride", "channels", "parameters", "ms", "share", "up to here")


def text(analysis: Findings) -> str:
    """Everything that the command prints of it."""
    parts = [_network(network, analysis.imgsz) for network in analysis.networks]
    if analysis.compared is not None:
        parts.append("\n".join(_suggestion(analysis.compared)))
    parts += [f"note: {note}" for note in analysis.notes]
    return "\n\n".join(parts)


def short_name(name: str) -> str:
    """`model.16` -> `16`."""
    return name.removeprefix("model.")


def _network(network: Surveyed, imgsz: int) -> str:
    rows = [HEADS, *map(_row, network.layers)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = 3  # columns of words; numbers stand to the right
    lines = [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    state = "" if network.trained else ", untrained"
    head = (
        f"{network.key} {network.file} ({network.task}{state}): {network.parameters:,} parameters, "
        f"{1e3 * network.seconds:.1f} ms for one image of {imgsz} px"
    )
    rest = 1 - sum(layer.share or 0.0 for layer in network.layers)
    if rest >= 0.005:  # the head of a semantic network gives a feature map too
        lines.append(f"the head, which gives no feature map, takes the other {rest:.0%}")
    return "\n".join([head, *lines])


def _row(layer: Costed) -> tuple[str, ...]:
    info = layer.info
    return (
        short_name(info.name),
        info.type,
        " ".join(info.roles),
        "x".join(map(str, info.size)),
        f"{max(info.stride):g}",
        str(info.channels),
        f"{info.parameters:,}",
        "" if layer.seconds is None else f"{1e3 * layer.seconds:.2f}",
        "" if layer.share is None else f"{layer.share:.1%}",
        f"{layer.reach:.0%}",
    )


def _suggestion(compared: Compared) -> Iterator[str]:
    images = f"{len(compared.images)} images"
    if not compared.suggested:
        yield f"suggested pairs, from {images}: none"
        return
    yield f"suggested pairs, from {images}, those of the same role first, best score first:"
    width = max(len(pair.pattern) for pair in compared.suggested)
    for pair in compared.suggested:
        learner, guide = _side(pair.student, compared.student), _side(pair.teacher, compared.teacher)
        yield f"  {pair.pattern.ljust(width)}  student's {learner} and teacher's {guide}"
        yield f"  {'':{width}}  {pair.reason}"
    yield f"teacher's forward pass up to the deepest of them: {compared.teacher_share:.0%} of the whole"
    yield f"\n  --layers {','.join(pair.pattern for pair in compared.suggested)}"


def _side(name: str, layers: Sequence[LayerInfo]) -> str:
    types = {layer.name: layer.type for layer in layers}
    return f"{short_name(name)} ({types[name]})"
