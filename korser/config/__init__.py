"""Settings: YAML files in layers, overrides, checks of names and values.

nodes, layers, overrides
    The YAML as a tree of nodes, merged from a file, its bases and overrides; nothing is imported.
objects
    Objects of Python given as settings: as YAML, and whether they were changed since they were built.
imports, names
    Checks that keys, references, import paths and arguments exist.
fields, schema
    Types of settings, and the settings of a model's YAML file.
hparams, recipes
    Load the YAML file of a model, and those of searches, comparisons, probes and pretrainings.
"""
