"""Compare initializations over held-out architectures; run again with the same arguments to go on.

python scripts/evaluate_init.py runs/held-out --images uoft-cs/cifar10 --text DIR --part 1/2
python scripts/evaluate_init.py runs/held-out-gpu --preset gpu
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without installation

from ghn.evaluate.options import main

if __name__ == "__main__":
    main(sys.argv[1:])
