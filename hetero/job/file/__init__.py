"""From a YAML file to a checked job, or to one error that says where and what to do."""
