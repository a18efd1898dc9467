"""Looks into a model whose config.json comes in, and prints what it finds as JSON."""

from __future__ import annotations

import json
import sys

from hetero.errors import explains_itself
from hetero.models.hf_model import HfModel
from hetero.models.provided.described import describe


def main() -> None:
    try:
        answer = {"told": describe(HfModel.of(json.load(sys.stdin))).model_dump()}
    except Exception as error:
        if not explains_itself(error):
            raise
        answer = {"fault": {key: getattr(error, key) for key in ("key", "value", "rule", "remedy")}}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
