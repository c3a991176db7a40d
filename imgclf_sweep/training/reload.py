"""The child that proves an exported model: it knows plain Keras and nothing of how the model was made.

Asked {"type": "reload", "model": path, "images": path.npy, "expected": path.npy}, it answers {"type": "reloaded",
"difference": the largest absolute difference} or {"type": "failed", "reason": one line}.
"""

from __future__ import annotations

from ..child import connect
from .failures import classify


def main() -> None:
    channel = connect()
    request = channel.receive()
    try:
        import keras
        import numpy as np

        model = keras.models.load_model(request["model"], safe_mode=True)
        expected = np.load(request["expected"], allow_pickle=False)
        outputs = model.predict(np.load(request["images"], allow_pickle=False), verbose=0)
        difference = float(np.max(np.abs(outputs - expected))) if outputs.shape == expected.shape else float("inf")
        if not np.isfinite(difference):
            raise ValueError(f"outputs {outputs.shape} against {expected.shape}, or not finite")
    except Exception as error:
        channel.send(type="failed", reason=classify(error, began=True)[1])
        return
    channel.send(type="reloaded", difference=difference)


if __name__ == "__main__":
    main()
