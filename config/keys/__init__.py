"""The live keys, one file per role. `config.schema.Config` is all of them in one flat dataclass."""
