"""The child that ends a sweep: exports one trained model, then opens the sealed test part and predicts it with all.

Asked {"type": "finish", "setup", "part", "params", "weights": [one file a seed], "model": where the export goes, "work": a
directory}, it says in this order
  {"type": "exported", "outputs", "scale", "offset", "parameters": [all, trainable], "summary": [lines]}
                          `model` is written, and in `work` images.npy and expected.npy to prove it;
  {"type": "open_test"}   and waits for {"type": "opened"}: the parent has committed that;
  {"type": "predicted"}   labels.npy and probabilities-<seed>.npy are in `work`; waits for {"type": "show", "images": [indices]};
  {"type": "done"}        shown.npy has these test images, for people to see: the test part is opened once for everything.
or {"type": "failed", "reason"} instead of any of these. Everything that can fail without the test part fails before it is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..child import Channel, connect
from .failures import classify
from .protocol import Setup

PROOF_IMAGES = 32


def main() -> None:
    channel = connect()
    request = channel.receive()
    try:
        finish(channel, request)
    except Exception as error:
        channel.send(type="failed", reason=classify(error, began=True)[1])


def finish(channel: Channel, request: Mapping[str, Any]) -> None:
    """Do what the module's text says."""
    import numpy as np  # here, not above: the channel must live before the tensor library loads

    from ..data.cache import open_test
    from ..models.build import Builder, count_parameters, summary_lines
    from ..space import frozen
    from .images import fitted
    from .serving import predict, serving_model
    from .weights import load_weights

    setup = Setup.from_json(request["setup"])
    work = Path(request["work"])
    chosen = fitted(setup, request["part"])
    prepared = chosen.prepared
    params = {name: frozen(value) for name, value in request["params"].items()}
    model = Builder(setup.sweep, pretrained=False).build(params, tuple(prepared.shape), len(prepared.classes)).model
    for path in reversed(request["weights"]):  # all of them, so that a torn one is seen now; the first one's stay
        load_weights(model, path)

    images = np.ascontiguousarray(chosen.x[chosen.train[:PROOF_IMAGES]])
    np.save(work / "images.npy", images)
    np.save(work / "expected.npy", predict(model, chosen.affine, images))
    _write(serving_model(model, chosen.affine, tuple(prepared.shape)), Path(request["model"]))
    channel.send(
        type="exported",
        outputs=int(model.output_shape[-1]),
        scale=[float(v) for v in chosen.affine.scale],
        offset=[float(v) for v in chosen.affine.offset],
        parameters=count_parameters(model),
        summary=summary_lines(model),
    )

    def commit() -> None:
        channel.send(type="open_test")
        if channel.receive()["type"] != "opened":
            raise RuntimeError("the test part was not to be opened")

    x, y = open_test(prepared, commit)
    np.save(work / "labels.npy", np.asarray(y, dtype="int64"))
    for seed, path in enumerate(request["weights"]):
        load_weights(model, path)
        np.save(work / f"probabilities-{seed}.npy", predict(model, chosen.affine, x))
    channel.send(type="predicted")
    np.save(work / "shown.npy", x[channel.receive()["images"]])
    channel.send(type="done")


def _write(served: Any, path: Path) -> None:
    """The model as one file, and beside it in two, for what reads no .keras: its architecture, and its weights in HDF5."""
    served.save(path)
    path.with_name("architecture.json").write_text(served.to_json(indent=1) + "\n", encoding="utf-8")
    served.save_weights(path.with_name("model.weights.h5"))


if __name__ == "__main__":
    main()
