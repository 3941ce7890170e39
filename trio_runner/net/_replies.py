"""What the replies mean that do not come from an aggregator, but from what stands before it."""

from email.utils import mktime_tz, parsedate_tz

from attrs import frozen

from trio_runner._errors import AggregatorUnreachable, DialError, NotAnAggregator
from trio_runner._printable import printable
from trio_runner.net._http import Reply
from trio_runner.net._tls import CERTIFICATE_WANTED

RETRY_AFTER_MAX_S = 600
"""The longest that a server can keep an engine away (s), whatever it asks for."""

_REDIRECTS = {301, 302, 303, 307, 308}

_PATHS = "/engine-rest and /engine-rpc"


@frozen
class Asked:
    """The request that a reply answers."""

    where: str
    """The address, as an error names it."""
    is_secure: bool
    what: str
    """`registration` or `websocket`."""
    bytes_sent: int = 0
    """The length of the request's body."""


def why_not(asked: Asked, reply: Reply) -> DialError:
    """Return the error that says what a reply means and what to do about it."""
    said = f"HTTP status {reply.status} for a {asked.what}"
    if reply.status in _REDIRECTS:
        return NotAnAggregator(_redirected(asked, reply, said))
    if reply.status == 429 or reply.status >= 500:
        return _not_now(asked, reply, said)
    text = _TEXTS.get(reply.status)
    if reply.status == 400:
        text = _refused_for_tls(asked, reply)
    if text is None and asked.what == "websocket":
        text = _NO_UPGRADE
    if text is not None:
        return NotAnAggregator(
            text.format(
                where=asked.where,
                said=said,
                challenge=_challenge(reply, b"www-authenticate"),
                bytes=asked.bytes_sent,
            )
        )
    return NotAnAggregator(
        f"What answers at {asked.where} is not an Open Pectus aggregator ({said}). Check host, port"
        " and path."
    )


_NO_UPGRADE = (
    "What answers at {where} accepted the registration but not the websocket ({said}). If there is"
    " a proxy in front of the aggregator, let it pass on the upgrade (nginx: proxy_http_version 1.1"
    " and the headers Upgrade and Connection). Otherwise check host, port and path."
)

_TEXTS = {
    401: "{where} wants a login before it lets anyone through to the aggregator"
    " ({said}{challenge}). An engine cannot log in: ask the administrator there to let"
    f" {_PATHS} through without a login.",
    403: "{where} does not let this engine through to the aggregator ({said}). Ask the"
    f" administrator there to let requests from this computer to {_PATHS} through.",
    407: "A proxy on the way to {where} wants a login ({said}). Give it in --proxy"
    " http://USER:PASSWORD@HOST:PORT.",
    413: "{where} does not accept a request of {bytes} bytes ({said}). Ask the administrator there"
    " for a higher limit (nginx: client_max_body_size).",
    421: "{where} does not serve that name ({said}). Use the name that is in its certificate"
    " (-ahn), not an address.",
}


def _redirected(asked: Asked, reply: Reply, said: str) -> str:
    location = printable(reply.header(b"location"))
    to = f"to {location}" if location else "elsewhere, without saying where"
    told = f"{asked.where} redirects this engine {to} ({said})."
    if location.startswith("https:") and not asked.is_secure:
        return f"{told} Use a secure connection (--secure) to that host, port and path."
    if "://" in location or not location:
        return f"{told} Give the host, port and path of the aggregator itself."
    return f"{told} Check the path, and whether it wants a login that an engine cannot give."


def _not_now(asked: Asked, reply: Reply, said: str) -> AggregatorUnreachable:
    after_s = retry_after_s(reply)
    wait = f" It asks clients to wait {after_s:g} s, and this engine does." if after_s else ""
    if reply.status == 429:
        text = (
            f"{asked.where} gets too many requests from here ({said})."
            f"{wait or ' Ask the administrator there for a higher limit.'}"
        )
    elif reply.status in (502, 503, 504):
        text = (
            f"A proxy answers for the aggregator at {asked.where} ({said}). Is the aggregator"
            f" running behind the proxy?{wait}"
        )
    else:
        text = (
            f"What answers at {asked.where} has failed ({said}). The log of the aggregator, or of"
            f" the proxy in front of it, says why.{wait}"
        )
    return AggregatorUnreachable(text, retry_after_s=after_s)


def _refused_for_tls(asked: Asked, reply: Reply) -> str | None:
    """Return the text for a 400 whose body complains about TLS, None for any other.

    Some servers tell of TLS only there.
    """
    text = reply.text.lower()
    if not asked.is_secure and ("https" in text or "ssl-enabled" in text):
        return "{where} wants a secure connection ({said}). Use one (--secure)."
    if asked.is_secure and "certificate" in text:
        return f"{{where}} {CERTIFICATE_WANTED}"
    return None


def _challenge(reply: Reply, header: bytes) -> str:
    schemes = challenges(reply, header)
    return f", by {' or '.join(schemes)}" if schemes else ""


def challenges(reply: Reply, header: bytes) -> list[str]:
    """Return the names of the login schemes that a reply offers, at most five."""
    return [printable(value.split()[0], 30) for value in reply.all_of(header) if value.split()][:5]


def retry_after_s(reply: Reply) -> float:
    """Return how long a reply asks us to wait before we try again (s), at most `RETRY_AFTER_MAX_S`.

    Return 0 if it does not say or we cannot read it.
    """
    text = reply.header(b"retry-after")
    if text.isascii() and text.isdigit():
        return min(int(text[:9]), RETRY_AFTER_MAX_S)
    # A date is by the server's clock, which the same reply tells.
    until, now = parsedate_tz(text), parsedate_tz(reply.header(b"date"))
    if until is None or now is None:
        return 0
    return min(max(mktime_tz(until) - mktime_tz(now), 0), RETRY_AFTER_MAX_S)
