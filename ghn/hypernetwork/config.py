"""Settings of a hypernetwork."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ghn.decoder import DecoderConfig
from ghn.decoder.config import from_file, to_file
from ghn.encoder import EncoderConfig
from ghn.errors import ConfigError, check_known, check_type

FORMAT_VERSION = 3
"""Of config.json and the weights' names; a checkpoint of a higher version is refused."""


@dataclass(frozen=True, kw_only=True)
class GHNConfig:
    """Everything needed to rebuild a hypernetwork; saved as config.json beside the weights."""

    version: int = FORMAT_VERSION
    """Format the checkpoint was written in."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)

    def __post_init__(self) -> None:
        if type(self.version) is not int or self.version < 0:
            raise ConfigError(
                f"the configuration has version {self.version!r}; expected a number such as {FORMAT_VERSION}"
            )
        if self.version > FORMAT_VERSION:
            raise ConfigError(
                f"the configuration has version {self.version!r}, newer than the {FORMAT_VERSION} this ghn reads; "
                "upgrade with: pip install -U ghn"
            )
        # config.json holds plain mappings where this class holds components.
        for name, component in (("encoder", EncoderConfig), ("decoder", DecoderConfig)):
            value = getattr(self, name)
            if isinstance(value, Mapping):
                value = from_file(value) if component is DecoderConfig else value
                known = asdict(component())
                check_known(name, value, known)
                for key, setting in value.items():
                    check_type(f"{name}.{key}", setting, known[key])
                object.__setattr__(self, name, component(**value))
            elif not isinstance(value, component):
                raise ConfigError(f"{name} must be a mapping of settings, got {value!r}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GHNConfig":
        """Read a configuration as ``config.json`` holds it.

        Raises:
            ConfigError: If a setting is unknown, out of range, or the version is newer.
        """
        cls(
            version=values.get("version", 0)
        )  # a newer version may have settings unknown here: say that first
        check_known("the configuration", values, {entry.name for entry in fields(cls)})
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values; a decoder without slots is told as it was before there were any."""
        values = asdict(self)
        values["decoder"] = to_file(values["decoder"])
        if not values["decoder"]["slots"]:
            del values["decoder"]["slots"]
        return values
