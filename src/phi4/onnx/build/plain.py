"""The decoder without branches for adapters: for packages that have none, while the user gives none.

    names = write_plain(folder, ("decoder", "prefill"))

Each of the released model's 128 linear layers is followed by a branch that a flag opens. Closed ones compute
nothing, but what passes one is copied, and operators around it are not fused. The graphs written here are
those of the package less these branches, and they read the same bytes of the same data files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from phi4.onnx.build.network.graph import save_graph
from phi4.onnx.package.parts import plain_form


def write_plain(folder: Path, graphs: Sequence[str]) -> tuple[str, ...]:
    """Write the plain form of graphs; the same graphs always give the same bytes.

    Args:
        folder: The package.
        graphs: Forms of the decoder it has.

    Returns:
        Names of the files, to be listed in the manifest.
    """
    return tuple(_write(folder, name) for name in graphs)


def _write(folder: Path, name: str) -> str:
    model = ir.load(folder / f"{name}.onnx")
    drop_branches(model.graph)
    drop_unused(model.graph)
    read = [value for value in model.graph.inputs if value.uses()]
    model.graph.inputs[:] = read
    file = f"{plain_form(name)}.onnx"
    save_graph(model, folder / file)
    return file


def drop_branches(graph: ir.Graph) -> None:
    """Every branch of adapters becomes what it is without any: the layer's own output."""
    for node in [node for node in graph if node.op_type == "If"]:
        (kept,) = node.attributes["else_branch"].as_graph().outputs
        passed = kept.producer()
        assert passed is not None and passed.op_type == "Identity", "a row without adapters runs none"
        base = passed.inputs[0]
        assert base is not None
        for branch in ("then_branch", "else_branch"):
            _forget(node.attributes[branch].as_graph())
        node.outputs[0].replace_all_uses_with(base)
        graph.remove(node, safe=True)


def _forget(graph: ir.Graph) -> None:
    """Values no longer count what a branch reads of them, inner branches first."""
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                _forget(attribute.as_graph())
        for place in range(len(node.inputs)):
            node.replace_input_with(place, None)


def drop_unused(graph: ir.Graph) -> None:
    """Nodes and weights of which nothing is read any more, such as those of adapters."""
    for node in reversed(list(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]
