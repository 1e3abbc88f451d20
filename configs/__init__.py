"""Hydra's search path: the YAML files beside this one are the whole of kdrun's configuration."""
