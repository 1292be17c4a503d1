"""The text encoder: a transformer in GPT-2's layout, so that its published weights load name for name.

Captions become tokens (bpe.py), and every token a vector that knows what stands before it (Radford et al. 2019,
"Language models are unsupervised multitask learners", section 2.3). A caption as a whole is the vector of its last real
token, the end of text: the only one that has seen everything. Shorter captions of a batch are padded behind it, where
nothing real can look.
"""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from ..errors import WavelldmError
from ..mel.published import fetch
from .bpe import Tokenizer


@dataclass(frozen=True)
class TextConfig:
    """GPT-2's layout, small. With width 768, 12 layers and 12 heads, context 1024 and its merges it is GPT-2."""

    merges: str = ""  # of the byte-pair encoding, one a line
    words: str = ""  # those that training has met, with blanks between them
    width: int = 96
    layers: int = 3
    heads: int = 4
    context: int = 77  # tokens of a caption, as MS-CLAP 2023 has it; longer ones are cut
    dropout: float = 0.0


class Affine(nn.Module):
    """x W + b with W (in, out): the other way round than nn.Linear, as GPT-2 stores it."""

    def __init__(self, a: int, b: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(a, b).normal_(std=0.02)), nn.Parameter(torch.zeros(b))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class SelfAttention(nn.Module):
    """Every token looks at itself and those before it."""

    def __init__(self, c: TextConfig):
        super().__init__()
        self.heads, self.c_attn, self.c_proj = c.heads, Affine(c.width, 3 * c.width), Affine(c.width, c.width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.c_attn(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, L, C / heads)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).flatten(-2))


class MLP(nn.Module):
    def __init__(self, c: TextConfig):
        super().__init__()
        self.c_fc, self.c_proj = Affine(c.width, 4 * c.width), Affine(4 * c.width, c.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Layer(nn.Module):
    def __init__(self, c: TextConfig):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(c.width), SelfAttention(c)
        self.ln_2, self.mlp, self.drop = nn.LayerNorm(c.width), MLP(c), nn.Dropout(c.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attn(self.ln_1(x)))
        return x + self.drop(self.mlp(self.ln_2(x)))


class TextEncoder(nn.Module):
    """Numbers of tokens (B, L) -> vectors (B, L, C)."""

    Config = TextConfig

    def __init__(self, config: TextConfig):
        super().__init__()
        c = self.config = config
        if c.width % c.heads:
            raise WavelldmError(f"{c.width} channels cannot be shared among {c.heads} heads; choose a multiple of them")
        self.wte, self.wpe = nn.Embedding(len(self.tokenizer), c.width), nn.Embedding(c.context, c.width)
        nn.init.normal_(self.wte.weight, std=0.02)
        nn.init.normal_(self.wpe.weight, std=0.01)
        self.h, self.ln_f = nn.ModuleList(Layer(c) for _ in range(c.layers)), nn.LayerNorm(c.width)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_text(self.config.merges)

    @cached_property
    def words(self) -> set[str]:
        return set(self.config.words.split())

    def unknown(self, text: str) -> list[str]:
        """Words of a text that training has never met. They have tokens, but what they mean was not learnt."""
        found = words_of(text)
        return [word for i, word in enumerate(found) if word not in self.words and word not in found[:i]]

    def tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Captions -> numbers (B, L), with the end of text behind each, and which of them are real (B, L)."""
        end, room = self.tokenizer.end, self.config.context - 1
        rows = [[*self.tokenizer.encode(text)[:room], end] for text in texts]
        longest = max(map(len, rows))
        numbers = torch.tensor([row + [end] * (longest - len(row)) for row in rows])
        real = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
        return numbers.to(self.wte.weight.device), real.to(self.wte.weight.device)

    def forward(self, numbers: Tensor) -> Tensor:
        if numbers.shape[1] > self.config.context:
            raise WavelldmError(f"a caption has {self.config.context} tokens at most, not {numbers.shape[1]}; cut it")
        x = self.wte(numbers) + self.wpe.weight[: numbers.shape[1]]  # (B, L, C)
        for layer in self.h:
            x = layer(x)
        return self.ln_f(x)


def words_of(text: str) -> list[str]:
    """The words of a text in small letters, of any script."""
    return re.findall(r"[^\W_]+", text.lower())


def last_real(states: Tensor, real: Tensor) -> Tensor:
    """The vector of each caption's last real token: (B, L, C), (B, L) -> (B, C)."""
    place = real.sum(1) - 1  # (B,)
    return states[torch.arange(len(states), device=states.device), place]


def load_gpt2(name: str = "gpt2") -> TextEncoder:
    """GPT-2 as published: a folder with model.safetensors and merges.txt, or a name that transformers finds."""
    folder = Path(name)
    if folder.is_dir():
        try:
            tensors = safetensors.torch.load_file(folder / "model.safetensors")
        except (OSError, SafetensorError) as error:
            raise WavelldmError(
                f"{folder} holds no whole model.safetensors ({type(error).__name__}); download it again"
            ) from None
        merges = Tokenizer.from_file(folder / "merges.txt")
    else:
        tensors = fetch("transformers", "GPT2Model", name, "text_encoder").state_dict()
        merges = published_merges(name)
    return from_gpt2(tensors, merges.text)


def published_merges(name: str) -> Tokenizer:
    """The merges of a published GPT-2, from the file that its tokenizer reads."""
    found = fetch("transformers", "GPT2Tokenizer", name, "tokenizer")
    merges = json.loads(found.backend_tokenizer.to_str())["model"]["merges"]
    return Tokenizer.from_text("\n".join(m if isinstance(m, str) else " ".join(m) for m in merges))


def from_gpt2(tensors: dict[str, Tensor], merges: str) -> TextEncoder:
    """A GPT2Model's or GPT2LMHeadModel's state_dict -> ours, equal in every hidden state."""
    own = {k.removeprefix("transformer."): v for k, v in tensors.items()}
    own = {k: v for k, v in own.items() if not re.search(r"\.attn\.(masked_)?bias$|^lm_head", k)}
    if "wte.weight" not in own or "wpe.weight" not in own:
        raise WavelldmError("these weights have no wte and wpe, which GPT-2 has; give a GPT2Model's")
    (_, width), (context, _) = own["wte.weight"].shape, own["wpe.weight"].shape
    layers = 1 + max(int(m[1]) for m in map(re.compile(r"h\.(\d+)\.").match, own) if m)
    model = TextEncoder(TextConfig(merges, "", width, layers, max(1, width // 64), context))
    try:
        model.load_state_dict(own)
    except RuntimeError as error:
        why = str(error).splitlines()[-1].strip()
        raise WavelldmError(f"these weights do not fit GPT-2's layout and the merges ({why}); give both") from None
    return model.eval()
