"""
Estimate the memory that an instance needs to serve an artefact.

An instance needs most while it loads: the arrays of the file and those of the model are in memory together. The numbers
were measured for 1,000 to 1,000,000 items, with and without neighbours; the estimate was 2 to 10 % above each of them
(docs/adr/0037-filters-and-rules.md).
"""

from pathlib import Path

from recrank.artefact import ARRAYS, ENCODER, ITEMS, RANKER

MIB = 2**20

# The program and its libraries, and the scratch of loading and of a batch.
_PROGRAM_MIB = 95
# MiB for each MiB of the files. Ids become Python strings in a list and in a table.
_FOR_ARRAYS, _FOR_ITEMS = 2.1, 6.0
# ONNX Runtime, and MiB for each MiB of an ONNX file, which is in memory three times while it loads.
_RUNTIME_MIB, _FOR_OWN = 40, 3.0


def estimate_mib(folder: Path) -> int:
    """Return the MiB that an instance needs at most to load and serve the artefact in *folder*."""
    arrays, items = ((folder / file).stat().st_size / MIB for file in (ARRAYS, ITEMS))
    own = [each.stat().st_size / MIB for name in (RANKER, ENCODER) if (each := folder / name).exists()]
    extra = _RUNTIME_MIB + _FOR_OWN * sum(own) if own else 0
    return round(extra + _PROGRAM_MIB + _FOR_ARRAYS * arrays + _FOR_ITEMS * items)
