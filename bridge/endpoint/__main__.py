"""The endpoint as a process of its own; its agent starts it: `python -m bridge.endpoint --fd N`."""

from __future__ import annotations

import argparse
import os
import resource
import signal
import traceback

from bridge.endpoint.endpoint import Endpoint
from bridge.port.pipe import Pipe
from bridge.system.linux import die_with_parent, keep_memory, take_precedence


def main() -> None:
    """Runs as a process of its own. Ends without cleaning up: the kernel does it faster."""
    parser = argparse.ArgumentParser(description="The bridge endpoint of one pool on one host; its agent starts it.")
    parser.add_argument("--fd", type=int, required=True, help="descriptor of the control pipe")
    fd = parser.parse_args().fd
    os.set_inheritable(fd, False)
    die_with_parent()
    keep_memory()
    take_precedence()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else strangers write to our log whatever they like
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    status = 1
    try:
        Endpoint(Pipe.from_fd(fd), at_eof=lambda: os._exit(0)).run()
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
