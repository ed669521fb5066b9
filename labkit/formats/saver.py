"""Who calls the operators that save and restore a SavedModel's variables: its own saver, and nobody else.

Every SavedModel holds them, and they write and read files of any name. What TensorFlow runs by itself, when it loads
a model or when the model is called, are the functions that the object graph lists, and, in a model of TensorFlow 1,
the operators that the signatures lead to. From there none of them may be reached.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from labkit.formats.child import Problem

_SAVER = {
    *("Save", "SaveV2", "SaveSlices", "Restore", "RestoreV2", "RestoreSlice", "MergeV2Checkpoints"),
    *("DTensorRestoreV2", "ShardedFilename"),
}


def check_saver(content: bytes) -> None:
    """Raise Problem for a `saved_model.pb` in which running the model would save, restore or leave the folder."""
    from tensorflow.core.protobuf import saved_model_pb2

    for meta in saved_model_pb2.SavedModel.FromString(content).meta_graphs:
        for asset in meta.asset_file_def:
            if asset.filename.startswith("/") or ".." in asset.filename.split("/"):
                raise Problem(f"its asset {asset.filename[:80]!r} leads out of the folder: refused")
        bodies = {each.signature.name: each.node_def for each in meta.graph_def.library.function}
        waiting = list(meta.object_graph_def.concrete_functions)
        if not waiting:
            waiting = _called(_leading_to_signatures(meta), bodies)
        reached: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in bodies and name not in reached:
                reached.add(name)
                waiting += _called(bodies[name], bodies)


def _called(nodes: Iterable[Any], bodies: Any) -> list[str]:
    """The functions that the nodes call. Raises Problem if one of them is an operator of a saver."""
    names = []
    for node in nodes:
        if node.op in _SAVER:
            raise Problem(f"running it would reach the operator {node.op}, which is for files: refused")
        names += [node.op] if node.op in bodies else []
        for value in node.attr.values():
            names += [each.name for each in (value.func, *value.list.func) if each.name]
    return names


def _leading_to_signatures(meta: Any) -> list[Any]:
    """The nodes of the graph that a signature or an initializer needs."""
    nodes = {node.name: node for node in meta.graph_def.node}
    waiting = [info.name for each in meta.signature_def.values() for info in each.outputs.values()]
    for key in ("saved_model_main_op", "legacy_init_op", "main_op", "table_initializer"):
        if key in meta.collection_def:
            waiting += meta.collection_def[key].node_list.value
    needed: dict[str, Any] = {}
    while waiting:
        name = waiting.pop().lstrip("^").split(":")[0]
        if name in nodes and name not in needed:
            needed[name] = nodes[name]
            waiting += nodes[name].input
    return list(needed.values())
