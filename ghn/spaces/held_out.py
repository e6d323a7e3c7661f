"""Networks that no hypernetwork of this package is trained on: other families, or deeper or wider ones."""

from typing import Any

from ghn.spaces.architecture import Architecture
from ghn.spaces.causal import NO_DROPOUT

VERSION = 1
"""Of the list; results name it. A change of any entry is a new version."""


def held_out(image_size: int = 32, sequence_length: int = 128, vocabulary: int = 384) -> list[Architecture]:
    """The list, fixed but for what the data decides.

    Args:
        image_size: Of square images, in pixels.
        sequence_length: Tokens of a text.
        vocabulary: Token ids of the text's tokenizer.
    """
    return [*_images(image_size), *_texts(sequence_length, vocabulary)]


def _images(size: int) -> list[Architecture]:
    patches = {"img_size": size, "patch_size": 4}
    mixer = {"block": "mixer", "mlp_ratio": (0.5, 4.0), **patches}
    window = {"img_size": size, "patch_size": 2, "window_size": 4}
    rows: list[tuple[str, dict[str, Any], str, int, int]] = [
        # Larger than what was trained on.
        ("timm:resnet18", {}, "resnet", 8, 512),
        ("timm:resnet34", {}, "resnet", 16, 512),
        ("timm:resnet50", {}, "resnet", 16, 2048),
        ("timm:convnext_atto", {"patch_size": max(1, size // 16)}, "convnext", 12, 320),
        ("timm:convnext_femto", {"patch_size": max(1, size // 16)}, "convnext", 12, 384),
        ("timm:densenet121", {"block_config": (6, 12, 16)}, "densenet", 34, 768),
        ("timm:mobilenetv2_100", {}, "inverted", 17, 320),
        ("timm:efficientnet_b0", {}, "inverted", 16, 320),
        ("timm:vit_tiny_patch16_224", patches, "vit", 12, 192),
        ("timm:vit_small_patch16_224", patches, "vit", 12, 384),
        # Of families that were not when the list was made; smaller Mixers, StarNets and MobileViTs are by now.
        ("timm:deit_tiny_distilled_patch16_224", patches, "deit_distilled", 12, 192),
        ("timm:cait_xxs24_224", {**patches, "depth": 10}, "cait", 12, 192),
        ("timm:swin_tiny_patch4_window7_224", _swin(window, 48), "swin", 6, 192),
        ("timm:swin_tiny_patch4_window7_224", _swin(window, 96), "swin", 6, 384),
        ("python:ghn.spaces.factories:mlp", {**mixer, "num_blocks": 6, "embed_dim": 128}, "mixer", 6, 128),
        ("python:ghn.spaces.factories:mlp", {**mixer, "num_blocks": 8, "embed_dim": 512}, "mixer", 8, 512),
        ("timm:regnetx_002", {}, "regnet", 13, 368),
        ("timm:regnety_004", {}, "regnet", 16, 440),
        ("timm:mobilenetv3_small_050", {}, "mobilenetv3", 11, 48),
        ("timm:mobilenetv3_small_100", {}, "mobilenetv3", 11, 96),
        ("timm:ghostnet_100", {}, "ghostnet", 16, 160),
        ("timm:poolformer_s12", {}, "poolformer", 12, 512),
        ("timm:starnet_s1", {}, "starnet", 15, 192),
        ("timm:mobilevit_xxs", {}, "mobilevit", 16, 80),
    ]
    return [
        Architecture(spec=spec, kwargs=kwargs, family=family, depth=depth, width=width)
        for spec, kwargs, family, depth, width in rows
    ]


def _swin(window: dict[str, Any], width: int) -> dict[str, Any]:
    heads = [max(1, width // 32) * 2**stage for stage in range(3)]
    return {**window, "embed_dim": width, "depths": (2, 2, 2), "num_heads": heads}


def _texts(length: int, vocabulary: int) -> list[Architecture]:
    shared = {"vocab_size": vocabulary}
    neox = {
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "max_position_embeddings": length,
    }
    opt = {
        "hidden_size": 256,
        "word_embed_proj_dim": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "ffn_dim": 1024,
        "max_position_embeddings": length,
        "dropout": 0.0,
    }
    llama = {
        "hidden_size": 384,
        "num_hidden_layers": 10,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "intermediate_size": 1024,
        "max_position_embeddings": length,
    }
    rows = [
        ("hf:gpt2:AutoModelForCausalLM", _gpt2(6, 384, length), "gpt2", 6, 384),
        ("hf:gpt2:AutoModelForCausalLM", _gpt2(12, 384, length), "gpt2", 12, 384),
        ("hf:llama:AutoModelForCausalLM", llama, "llama", 10, 384),
        ("hf:gpt_neox:AutoModelForCausalLM", neox, "gpt_neox", 6, 256),
        ("hf:opt:AutoModelForCausalLM", opt, "opt", 6, 256),
    ]
    return [
        Architecture(
            spec=spec, kwargs={**shared, **kwargs}, family=family, depth=depth, width=width, task="text"
        )
        for spec, kwargs, family, depth, width in rows
    ]


def _gpt2(depth: int, width: int, length: int) -> dict[str, Any]:
    return {"n_layer": depth, "n_embd": width, "n_head": width // 64, "n_positions": length, **NO_DROPOUT}
