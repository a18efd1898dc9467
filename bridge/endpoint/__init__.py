"""The process of a host that talks to other hosts."""
