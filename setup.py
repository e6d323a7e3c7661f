"""Metadata is in pyproject.toml; here is what it can't say: checkpoints/ ships inside the package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["ghn", "ghn.*"]), "ghn._checkpoints"],
    package_dir={"ghn._checkpoints": "checkpoints"},
    package_data={
        "ghn": ["py.typed", "*/*.html"],
        "ghn._checkpoints": ["*/config.json", "*/model.safetensors"],
    },
)
