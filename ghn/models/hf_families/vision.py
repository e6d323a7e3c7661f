"""Models of images and videos alone."""

from typing import Any

import torch

from ghn.models.hf_facts import Facts
from ghn.models.hf_families.family import Family, each, floats


def _boxes(facts: Facts) -> dict[str, Any]:
    """What is where in the images, as (centre, size) in shares of them."""
    where = {"class_labels": torch.tensor([0, 1]), "boxes": torch.full((2, 4), 0.25)}
    return {"labels": [dict(where) for _ in range(facts.batch)]}


VISION: dict[str, Family] = {
    **each("videomae", "vivit", "timesformer", layout="btchw"),
    **each("pe_video", "pe_video_encoder", arguments=floats("pixel_values_videos", None, 8, 3, 336, 336)),
    # In training, boxes moved by noise are decoded too.
    **each("rt_detr", "rt_detr_v2", "d_fine", "deimv2", "pp_doclayout_v3", further=(_boxes,)),
    # Whole windows.
    **each("rf_detr", "rf_detr_dinov2", arguments=floats("pixel_values", None, 3, 560, 560)),
    # Lines of text.
    **each(
        *("pp_ocrv5_mobile_rec", "pp_ocrv5_server_rec", "pp_ocrv6_small_rec", "pp_ocrv6_tiny_rec"),
        arguments=floats("pixel_values", None, 3, 48, 320),
    ),
    "efficientloftr": Family(layout="b2chw"),
    # Where values are unknown, every pixel is a keypoint that attends to every other: few pixels.
    "lightglue": Family(arguments=floats("pixel_values", None, 2, 3, 32, 32)),
    "superglue": Family(arguments=floats("pixel_values", None, 2, 1, 32, 32)),
    "depth_pro": Family(arguments=floats("pixel_values", None, 3, 1536, 1536)),
    "seggpt": Family(
        arguments=lambda facts: dict.fromkeys(
            ("pixel_values", "prompt_pixel_values", "prompt_masks"),
            facts.floats(2, 3, *[facts.image_size()[1]] * 2),  # the model stacks prompt and image
        )
    ),
}
