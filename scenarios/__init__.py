"""The scenario language: YAML files and the schema that reads them; the only place that turns names into objects."""
