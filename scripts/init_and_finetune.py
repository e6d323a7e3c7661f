"""Initialize a model with predicted weights, fine-tune it, and compare that with other initializations.

    python scripts/init_and_finetune.py
    python scripts/init_and_finetune.py --model timm:vit_tiny_patch16_224 --model-kwargs '{"patch_size": 4}' \\
        --dataset uoft-cs/cifar10 --inits ghn random orthogonal mimetic --seeds 0 1 2 --lr 3e-4 1e-3 3e-3 --steps 1000
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without installation

from ghn.finetune.options import main

if __name__ == "__main__":
    main(sys.argv[1:])
