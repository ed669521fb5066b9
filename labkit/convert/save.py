"""Writing a converted model where the next tool looks for it."""

from __future__ import annotations

from pathlib import Path

from labkit.files import write_atomically
from labkit.variant import Variant, get_format


def save_as(variant: Variant, out: Path) -> list[Path]:
    """Write `variant` to `out`, and return what was written, the model's own files last.

    `out` may be a file with the format's own ending: then that is the model and nothing else is written (OpenVINO's
    weights lie beside it in a `.bin`). Anything else is a folder that keeps the whole variant; the model lies in it
    under a name made of its content.
    """
    shape = get_format(variant.format)
    if shape.suffix and out.suffix.lower() == shape.suffix and shape.kind != "object":
        if shape.kind == "file":
            write_atomically(out, variant.payload)
            return [out]
        weights = out.with_suffix(".bin")
        write_atomically(weights, variant.model["model.bin"])
        write_atomically(out, variant.model["model.xml"])
        return [weights, out]
    variant.save(out)
    models = sorted(out.glob("model-*"))
    return [out / "variant.json", *models]
