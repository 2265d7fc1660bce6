"""Where a GGUF tells its lineage; a module alone, as the converter's process should load no more than it needs."""

LINEAGE_KEY = "tunesmith.lineage"
