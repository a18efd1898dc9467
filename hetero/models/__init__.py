"""Models as units out of parts. `registry.architecture` tells one without torch, `unit_module.build_unit` builds it."""
