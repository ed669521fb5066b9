"""Weight coding: a pruned and clustered network in the fewest bytes that decode to it.

`encode` chooses for every tensor; the codes that it is made of, and those that it beats, each have a file of their
own here, to be read: bit packing, run-length, relative indices, Huffman, and a range coder.
"""

from __future__ import annotations

from labkit.encode.anatomy import Anatomy, anatomy, dissect
from labkit.encode.cluster import ClusterWeights
from labkit.encode.container import StreamReader, decode, encode, load_encoded, save_encoded
from labkit.encode.low_rank import FactorizeLowRank

__all__ = [
    "Anatomy",
    "ClusterWeights",
    "FactorizeLowRank",
    "StreamReader",
    "anatomy",
    "decode",
    "dissect",
    "encode",
    "load_encoded",
    "save_encoded",
]
