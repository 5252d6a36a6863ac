"""Where the page is listened at, and by which names and addresses a browser asks for it."""

import errno
import socket

from analyses.explorer.limits import WHO
from interp.errors import InterpError

EVERYWHERE = ("0.0.0.0", "::")
"""Hosts that are all addresses of a machine."""

WAITING = 128
"""Connections that wait to be taken."""

NOT_CHOSEN = {
    errno.EADDRINUSE: "port {port} of {host} is taken. Choose another with --port; 0 takes one that is free.",
    errno.EACCES: "port {port} of {host} may not be listened at by this user. Choose one above 1023 with --port.",
    errno.EADDRNOTAVAIL: "{host} is no address of this machine. Give --host one that it has, or 0.0.0.0 for all of them.",
}


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises InterpError, with what to choose instead, where it cannot."""
    try:
        place = socket.getaddrinfo(host, port, family(host), socket.SOCK_STREAM)[0][4] if host else None
    except (socket.gaierror, UnicodeError):  # the second for a name that cannot be one
        place = None
    if place is None:
        raise InterpError(
            f"{WHO}: no address is known for the host {host!r}. Give --host a name or an address of this machine."
        )
    found = socket.socket(family(host), socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(place)
        found.listen(WAITING)
    except OSError as error:
        found.close()
        otherwise = (
            f"{{host}} port {{port}} cannot be listened at: {error.strerror}. Choose others with --host and --port."
        )
        said = NOT_CHOSEN.get(error.errno or 0, otherwise)
        raise InterpError(f"{WHO}: {said.format(host=host, port=port)}") from error
    return found


def family(host: str) -> socket.AddressFamily:
    """Of the addresses that a host has here."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def names(host: str) -> set[str]:
    """The names of this machine in a network, and the one that was given."""
    own = socket.gethostname().lower()
    short = own.partition(".")[0]
    return {"localhost", own, short, f"{short}.local", socket.getfqdn().lower(), host.lower()} - {*EVERYWHERE}


def reached(host: str) -> list[str]:
    """The hosts of the addresses that lead to the page, the one for this machine first."""
    if host not in EVERYWHERE:
        return [_bracketed(host)]
    outgoing = _outgoing(family(host))
    return [
        "127.0.0.1" if family(host) == socket.AF_INET else "[::1]",
        socket.gethostname(),
        *([_bracketed(outgoing)] if outgoing else []),
    ]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _outgoing(of: socket.AddressFamily) -> str:
    """The address that packets to elsewhere would leave from; none is sent. Empty where there is no way out."""
    elsewhere = "10.255.255.255" if of == socket.AF_INET else "fd00::1"
    with socket.socket(of, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect((elsewhere, 9))
        except OSError:
            return ""
        return str(asked.getsockname()[0])
