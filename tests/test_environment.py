import platform

import torch

from ghn.environment import default_device, machine, versions


def test_versions_are_those_that_run():
    found = versions()
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert found["python"] == platform.python_version()
    assert {"ghn", "timm", "transformers", "torch-geometric"} <= found.keys()
    assert "missing" not in found.values()


def test_machine_is_described():
    found = machine()
    assert int(found["cores"]) >= 1
    assert found["device"] == default_device()
    assert found["memory"].endswith("GiB") or found["memory"] == "unknown"
