"""The CLIP text encoder (Radford et al. 2021): token ids to embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdcore.models.layers import attend
from sdcore.models.text_encoder_config import TextEncoderConfig


@dataclass(frozen=True)
class TextEncoding:
    """What a text encoder says of a prompt. L: tokens, D: width.

    hidden_states: the input embeddings and every layer's output, each [B, L, D], before the
    final LayerNorm. last: the last of them after it: what SD 1.x and 2.x condition on.
    pooled: `last` at the end-of-text token [B, D], projected where the model has a projection.
    """

    hidden_states: tuple[Tensor, ...]
    last: Tensor
    pooled: Tensor


class SelfAttention(nn.Module):
    """Attention of each token [B, L, D] to itself and those before it."""

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        d = config.hidden_size
        self.heads = config.num_attention_heads
        self.q_proj, self.k_proj = nn.Linear(d, d), nn.Linear(d, d)
        self.v_proj, self.out_proj = nn.Linear(d, d), nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return self.out_proj(attend(q, k, v, self.heads, causal=True))


class MLP(nn.Module):
    """Two linear layers with a GELU between them, in its quick form x sigmoid(1.702 x) or exact."""

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.quick = config.hidden_act == "quick_gelu"
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x)
        return self.fc2(h * torch.sigmoid(1.702 * h) if self.quick else F.gelu(h))


class Layer(nn.Module):
    """One pre-LN transformer block."""

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = MLP(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Embeddings(nn.Module):
    """Token ids [B, L] to the sum of token and position embeddings [B, L, D]."""

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        # Called, not sliced: where weights only visit the device, a call is what brings them.
        places = torch.arange(ids.shape[1], device=ids.device)
        return self.token_embedding(ids) + self.position_embedding(places)


class CLIPEncoder(nn.Module):
    """The layers, under the name that they have in the published keys."""

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))


class Transformer(nn.Module):
    """Embeddings, layers and final norm, as the published keys group them."""

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = CLIPEncoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)


class TextEncoder(nn.Module):
    """CLIPTextModel, and CLIPTextModelWithProjection where the config says so."""

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.config = config
        self.text_model = Transformer(config)
        if config.with_projection:
            self.text_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)

    def forward(self, ids: Tensor) -> TextEncoding:
        """ids: [B, L] integers below vocab_size, L <= max_position_embeddings."""
        model = self.text_model
        states = [model.embeddings(ids)]
        for layer in model.encoder.layers:
            states.append(layer(states[-1]))
        last = model.final_layer_norm(states[-1])
        pooled = last[torch.arange(len(ids), device=ids.device), self._end_of_text(ids)]
        if self.config.with_projection:
            pooled = self.text_projection(pooled)
        return TextEncoding(tuple(states), last, pooled)

    def _end_of_text(self, ids: Tensor) -> Tensor:
        """Position of the first end-of-text token, [B]."""
        # The published configs say eos_token_id 2, which is wrong (it is 49407, the largest id)
        # and was kept: for them the end is where the largest id stands.
        if self.config.eos_token_id == 2:
            return ids.argmax(dim=-1)
        return (ids == self.config.eos_token_id).int().argmax(dim=-1)
