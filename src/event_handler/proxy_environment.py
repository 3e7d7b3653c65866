"""Which proxy the environment names for an address or a URL: HTTPS_PROXY, HTTP_PROXY and NO_PROXY, by Go's rules.

Source of the rules: golang.org/x/net/http/httpproxy, and Teleport's order for addresses without a scheme (https, then
http).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from event_handler.errors import ConnectError

DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}

_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class ProxyServer:
    """A proxy: scheme (a key of DEFAULT_PORTS), place, and decoded credentials ("" = none), which never get into
    text.
    """

    scheme: str
    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    setting: str = "HTTPS_PROXY"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def proxy_for(host: str, port: int, environment: Mapping[str, str]) -> ProxyServer | None:
    """The proxy for a connection to `host` and `port`, None for a direct one.

    Raises ConnectError for a malformed setting.
    """
    return _chosen(("HTTPS_PROXY", "HTTP_PROXY"), host, port, environment)


def proxy_for_url(scheme: str, host: str, port: int, environment: Mapping[str, str]) -> ProxyServer | None:
    """The proxy for a URL: each scheme has a setting of its own. Raises ConnectError for a malformed one."""
    return _chosen((f"{scheme.upper()}_PROXY",), host, port, environment)


def _chosen(settings: tuple[str, ...], host: str, port: int, environment: Mapping[str, str]) -> ProxyServer | None:
    for setting in settings:
        value = _either_case(environment, setting)
        if value and not _bypassed(host, port, _either_case(environment, "NO_PROXY")):
            return parse_proxy(f"{setting} in the environment", value, setting)
    return None


def _either_case(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.lower()) or ""


def parse_proxy(what: str, value: str, setting: str = "") -> ProxyServer:
    """The proxy of a setting, which `what` names in errors. Raises ConnectError for one that cannot be used."""
    try:
        url = _split_url(value)
        port = url.port or DEFAULT_PORTS[url.scheme]
        if not url.hostname or url.scheme not in DEFAULT_PORTS:
            raise ValueError
    except (ValueError, KeyError):  # the value may hold a password: it is not repeated
        raise ConnectError(
            f"{what} is not a proxy URL that can be used",
            "Write for example http://proxy.example.com:3128; the schemes are http, https and socks5.",
        ) from None
    return ProxyServer(
        url.scheme, url.hostname, port, unquote(url.username or ""), unquote(url.password or ""), setting or what
    )


def _split_url(value: str) -> SplitResult:
    url = urlsplit(value)
    return url if url.scheme and url.netloc else urlsplit(f"http://{value}")


def _bypassed(host: str, port: int, no_proxy: str) -> bool:
    """Whether the target is this machine, or an entry of NO_PROXY matches it."""
    if host == "localhost":
        return True
    name = ascii_name(host.strip().lower())
    address = _ip(name)
    if address is not None and address.is_loopback:
        return True
    return any(_matches(entry, name, address, port) for entry in _entries(no_proxy))


def _entries(no_proxy: str) -> Iterator[str]:
    return (entry for part in no_proxy.split(",") if (entry := part.strip().lower()))


def _matches(entry: str, name: str, address: _IPAddress | None, port: int) -> bool:
    if entry == "*":
        return True
    network = _network(entry)
    if network is not None:
        return address is not None and address in network
    host, entry_port = _split_entry(entry)
    if not host or (entry_port and entry_port != str(port)):
        return False
    listed = _ip(host)
    if listed is not None:
        return listed == address
    if host.startswith("*."):
        host = host[1:]
    if host.startswith("."):
        return name.endswith(ascii_name(host))
    host = ascii_name(host)
    return name == host or name.endswith(f".{host}")


def _split_entry(entry: str) -> tuple[str, str]:
    """Split `host:port`; an IPv6 address has a port only when it is in brackets, "" stands for any port."""
    if entry.startswith("["):
        host, closing, rest = entry[1:].partition("]")
        return (host, rest[1:]) if closing and rest.startswith(":") else (entry, "")
    host, colon, port = entry.partition(":")
    return (host, port) if colon and ":" not in port else (entry, "")


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    if not entry.rpartition("/")[2].isdigit() or "/" not in entry:
        return None
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _ip(text: str) -> _IPAddress | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def ascii_name(host: str) -> str:
    """The form of an international name on the wire (punycode), or the name itself where it has none."""
    if host.isascii():
        return host
    try:
        return ".".join(label.encode("idna").decode("ascii") if label else "" for label in host.split("."))
    except UnicodeError:
        return host
