"""Which hosts are this machine: plain http is fine there, and no proxy may see it."""

from __future__ import annotations

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """
    Return whether a host is this machine, and cannot be any other.

    :param host: an address, with or without the brackets of a URL, or a name.
    """
    try:
        return host.lower() == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
