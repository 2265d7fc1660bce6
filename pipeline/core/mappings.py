"""Configurations as plain mappings: resolved, flattened, compared."""

from collections.abc import Mapping

from omegaconf import DictConfig, OmegaConf


def plain(composed: DictConfig) -> object:
    """Return a configuration as dictionaries and lists."""
    return OmegaConf.to_container(composed, resolve=True)


def plain_value(composed: DictConfig, key: str) -> object:
    """Return the value of a dotted key, resolved; None where there is none."""
    value = OmegaConf.select(composed, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def flatten(values: object, prefix: str = "") -> dict[str, object]:
    """Return nested mappings as one, with dotted keys; an empty mapping has none."""
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        path: value
        for key, entry in values.items()
        for path, value in flatten(entry, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def changed_keys(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Return the keys of two flat mappings whose values differ, sorted; a missing key counts as null."""
    return [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
