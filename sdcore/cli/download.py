"""`sdcore download`: a model from the hub into the Hugging Face cache."""

import click

from sdcore.cli.echo import echo
from sdcore.errors import InputError


@click.command()
@click.argument("model", metavar="ID", required=False)
@click.option("--variant", metavar="NAME", help="Which form of the weights: fp16, non_ema ...")
@click.option("--revision", metavar="REV", help="A branch, a tag or a commit.")
@click.option("--vocabulary", is_flag=True, help="CLIP's, which single files need: 1.5 MB.")
def download(
    model: str | None, variant: str | None, revision: str | None, vocabulary: bool
) -> None:
    """Fetch the model ID ("owner/name"), only what will be read of it, and print its folder.

    It goes into the ordinary Hugging Face cache; HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE
    mean what they mean everywhere. `--model ID` finds it there without the network.
    """
    from sdcore.checkpoints.find import is_hub_id
    from sdcore.checkpoints.hub import fetch, fetch_vocabulary

    if (model is None) != vocabulary:
        raise InputError("name a model (owner/name), or --vocabulary")
    if model is not None and not is_hub_id(model):
        raise InputError(f"{model!r} is no hub id: write it as owner/name")
    echo(fetch_vocabulary() if model is None else fetch(model, variant, revision))
