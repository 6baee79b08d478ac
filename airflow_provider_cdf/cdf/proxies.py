"""The proxies that the environment names: ``HTTPS_PROXY``, ``ALL_PROXY`` and so on, but for ``NO_PROXY``."""

from __future__ import annotations

import base64
from importlib.util import find_spec
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from airflow_provider_cdf.hosts import is_loopback


def proxy_for(url: httpx.URL) -> httpcore.Proxy | None:
    """
    Return the proxy by which a URL is asked; ``None`` if it is asked directly.

    :raises httpcore.ProxyError: if there is one that cannot be used.
    """
    named = _named_for(url)
    if not named:
        return None
    try:
        proxy = httpx.Proxy(named)  # takes the password out of it
        # httpcore would raise an ImportError, which does not say that nothing was sent.
        if proxy.url.scheme.startswith("socks") and find_spec("socksio") is None:
            raise httpcore.ProxyError(f"the proxy {proxy.url} takes the package socksio: httpx[socks]")
        return httpcore.Proxy(core_url(proxy.url), auth=proxy.raw_auth, headers=proxy.headers.raw)
    except (ValueError, httpx.InvalidURL):
        raise httpcore.ProxyError("the proxy that the environment names has no usable URL") from None


def proxy_on_the_way(url: httpx.URL) -> str:
    """Return the host and port of the proxy by which a URL is asked, for messages; empty without one."""
    named = _named_for(url)
    try:
        return httpx.URL(named).netloc.decode() if named else ""
    except (ValueError, httpx.InvalidURL):
        return ""


def proxy_secrets() -> list[str]:
    """Return the passwords of all proxies, also as a header has them: a proxy may repeat what it was sent."""
    secrets = []
    for named in getproxies().values():
        user_info, at, _ = _with_scheme(named).partition("://")[2].rpartition("@")
        user, colon, password = user_info.partition(":")
        if at and colon and password:
            pair = f"{unquote(user)}:{unquote(password)}"
            secrets += [unquote(password), base64.b64encode(pair.encode()).decode()]
    return secrets


def core_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _named_for(url: httpx.URL) -> str:
    port = url.port or (443 if url.scheme == "https" else 80)
    host = f"[{url.host}]" if ":" in url.host else url.host
    if is_loopback(url.host) or proxy_bypass(url.host) or proxy_bypass(f"{host}:{port}"):
        return ""
    proxies = getproxies()
    return _with_scheme(proxies.get(url.scheme) or proxies.get("all") or "")


def _with_scheme(named: str) -> str:
    return named if "://" in named or not named else f"http://{named}"
