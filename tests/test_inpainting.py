"""The picture and the mask that an inpainting model is told."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from sdcore.errors import InputError
from sdcore.inpainting import Canvas, Kept, open_canvas
from sdcore.models import VAE, VAEConfig
from sdcore.sampling import Prediction
from sdcore.written_forms import IN_MEMORY


@pytest.fixture
def canvas(tmp_path: Path) -> Canvas:
    """A red picture, right half to be repainted."""
    Image.new("RGBA", (32, 16), (255, 0, 0, 255)).save(tmp_path / "red.png")
    mask = Image.new("L", (32, 16))
    mask.paste(200, (16, 0, 32, 16))
    return open_canvas(tmp_path / "red.png", mask)


@pytest.fixture
def vae() -> VAE:
    torch.manual_seed(0)
    return VAE(VAEConfig(block_out_channels=(8,) * 4, norm_num_groups=4)).requires_grad_(False)


def test_names(canvas: Canvas) -> None:
    assert Path(canvas.names[0]).name == "red.png"
    assert canvas.names[1] == IN_MEMORY


def test_channels(canvas: Canvas, vae: VAE) -> None:
    noise = torch.randn(3, 4, 2, 4)
    extra = canvas.channels(vae, noise)
    assert extra.shape == (3, 5, 2, 4)
    assert torch.equal(extra[:, 0], torch.tensor([0.0, 0, 1, 1]).expand(3, 2, 4))
    masked = torch.zeros(1, 3, 16, 32)  # grey where it is repainted
    masked[:, :, :, :16] = torch.tensor([1.0, -1, -1])[:, None, None]
    code = vae.encode(masked)
    assert torch.equal(extra[:, 1:], code.mean + code.std * noise)


@pytest.mark.parametrize(("grey", "repainted"), [(127, 0.0), (128, 1.0)])
def test_the_mask_is_black_or_white(vae: VAE, grey: int, repainted: float) -> None:
    canvas = open_canvas(Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), (grey,) * 3))
    assert canvas.channels(vae, torch.zeros(1, 4, 1, 1))[0, 0].item() == repainted


def test_another_size(canvas: Canvas) -> None:
    larger = canvas.scaled(64, 24)
    assert larger.image.size == larger.mask.size == (64, 24)
    assert larger.names == canvas.names
    assert canvas.scaled(32, 16) is canvas


def test_the_digest_sees_every_pixel(canvas: Canvas) -> None:
    same = open_canvas(canvas.image.copy(), canvas.mask.copy())
    assert same.digest == canvas.digest
    same.mask.putpixel((0, 0), 1)
    assert same.digest != canvas.digest


def test_a_mask_of_another_size(canvas: Canvas) -> None:
    with pytest.raises(InputError, match="the mask has 16x32 pixels and the picture 32x16"):
        open_canvas(canvas.image, canvas.mask.resize((16, 32)))


def test_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("red")
    with pytest.raises(InputError, match=r"text\.png is no picture"):
        open_canvas(tmp_path / "text.png", Image.new("L", (8, 8)))


def test_what_is_kept_under_a_guidance_that_is_not_paired() -> None:
    """CFG++ says an eps that is not that of its x0: wholly where all is repainted, not at all where
    all is kept, and in between by as much as is repainted. Of a paired one nothing changes.
    """
    rng = torch.Generator().manual_seed(0)
    latents, noise, x, x0, eps = torch.randn(5, 1, 4, 1, 3, generator=rng).double().unbind(0)
    share, sigma = torch.tensor([0.0, 1 - 1e-9, 1.0], dtype=torch.float64).reshape(1, 1, 1, 3), 2.0

    def asked(unpaired: bool, eps: torch.Tensor) -> Prediction:
        kept = Kept(share, latents, noise, unpaired=unpaired)
        return kept(lambda seen, sigma: Prediction(x0, eps))(x, sigma)

    apart = asked(True, eps)
    assert torch.allclose(apart.eps[..., 1:], eps[..., 1:], atol=1e-7)
    assert torch.allclose(apart.eps[..., 0], ((x - latents) / sigma)[..., 0])
    assert not torch.allclose(asked(False, eps).eps[..., 1], eps[..., 1], atol=1e-2)
    seen = torch.lerp(latents + sigma * noise, x, share)
    paired = (seen - x0) / sigma
    assert torch.allclose(asked(True, paired).eps, asked(False, paired).eps, atol=1e-12)
