"""Environment variables as nested values: what pydantic-settings makes of their names."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as BadVariable

from symbiont_datad.settings import Settings
from symbiont_datad.settings_types import PREFIX

__all__ = ["BadVariable", "Variables"]


class Variables(EnvSettingsSource):
    """Variables with `__` between levels, as nested values. Given ones instead of the process's own."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        """`variables`: their values by name."""
        self._given = {name.lower(): value for name, value in variables.items()}
        super().__init__(_Everything)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._given

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """The value of a setting that is no plain text."""
        # Only what looks like a JSON list or object is one: a table's policy for "30" or "10%" is text.
        return json.loads(value) if isinstance(value, str) and value.lstrip()[:1] in ("[", "{") else value


class _Everything(Settings, BaseSettings):
    """The model as pydantic-settings wants it; only its names and types are used."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__")
