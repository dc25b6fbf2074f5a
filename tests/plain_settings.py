"""Settings of a picture that nobody drew: every field that one must have."""

from sdcore.settings import Settings

PLAIN = Settings(
    prompt="a red house",
    negative="",
    seed=7,
    model="picturebook",
    scheduler="euler",
    spacing="a1111:normal",
    eta=None,
    steps=20,
    cfg=7.5,
    width=512,
    height=640,
    device="cpu",
    dtype="float32",
    version="1.2.3",
)
