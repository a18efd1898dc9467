"""Directories of models as Hugging Face writes them: config.json and safetensors. No code from one is ever run.

hub.place         where a directory lies on this machine, by its path or its name on the hub
folder.HfFolder   what it holds, by its headers alone; torch-free, as all but the next two
reader.HfReader   parts of its tensors
shards            `write_shards`: a directory's weights
errors            `HfError`
"""
