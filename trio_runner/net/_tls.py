"""TLS as browsers do it, by the system's authorities, with errors that say what to do."""

import os
import ssl
import stat

import truststore

from trio_runner._errors import NotAnAggregator
from trio_runner._printable import printable

Path = str | os.PathLike[str]


class TlsFileUnusable(ValueError):
    """A file with certificates or a key cannot be used; `argument` names it, `why` says why."""

    def __init__(self, argument: str, why: str) -> None:
        super().__init__(f"{argument}: {why}")
        self.argument = argument
        self.why = why


def make_context(
    ca_file: Path | None = None, client_cert: Path | None = None, client_key: Path | None = None
) -> ssl.SSLContext:
    """Return a context that verifies servers by the system's authorities or only by `ca_file`.

    A client certificate (PEM, with its chain) is shown to servers that ask for one; its key may be
    in the same file. Host name and expiry are always checked. Raises TlsFileUnusable.
    """
    if ca_file is None:
        context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    else:
        context = _context_of(ca_file)
    # Since Python 3.13, a default context asks for more than browsers do. Many proxies that inspect
    # TLS and many company authorities have certificates that lack some extension.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if client_cert is not None:
        _load_client_cert(context, client_cert, client_key)
    elif client_key is not None:
        raise TlsFileUnusable("client_key", "it needs a client certificate")
    return context


def refuse_tls_files(**files: Path | None) -> None:
    """Refuse files for a connection that is not secure, where they would be a false comfort.

    Raises TlsFileUnusable if any is given.
    """
    for argument, path in files.items():
        if path is not None:
            raise TlsFileUnusable(argument, "it needs a secure connection")


def _context_of(ca_file: Path) -> ssl.SSLContext:
    _check_file("ca_file", ca_file)
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:  # must come before OSError, its base class
        raise TlsFileUnusable("ca_file", f"there are no PEM certificates in {ca_file}") from None
    except OSError as error:
        raise TlsFileUnusable("ca_file", f"cannot read {ca_file}: {error.strerror}") from None


def _load_client_cert(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    _check_file("client_cert", cert)
    if key is not None:
        _check_file("client_key", key)

    def refuse() -> str:
        # Without this, OpenSSL would ask for it at the terminal, where nobody is.
        raise TlsFileUnusable(
            "client_key", f"the key in {key or cert} has a passphrase: give one without"
        )

    try:
        context.load_cert_chain(cert, key, refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFileUnusable(
                "client_key",
                f"the key in {key or cert} does not belong to the certificate in {cert}",
            ) from None
        where = f"{cert} and {key}" if key else str(cert)
        raise TlsFileUnusable(
            "client_cert", f"there is no PEM certificate with its key in {where}"
        ) from None
    except OSError as error:
        raise TlsFileUnusable("client_cert", f"cannot read it: {error.strerror}") from None


def _check_file(argument: str, path: Path) -> None:
    """Refuse an empty name, a folder, or a pipe, on which we would wait.

    Raises TlsFileUnusable.
    """
    if not os.fspath(path):
        raise TlsFileUnusable(argument, "a file needs a name")
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise TlsFileUnusable(argument, f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise TlsFileUnusable(argument, f"{path} is not a regular file")


# Reasons from OpenSSL (X509_V_ERR_*), Windows (CERT_E_*) and macOS (errSec*), which truststore
# hands on unchanged.
_EXPIRED = {10, 0x800B0101, -67818}
_NOT_YET_VALID = {9, -67819}
_WRONG_NAME = {62, 64, 0x800B010F, -67602}
_UNKNOWN_AUTHORITY = {18, 19, 20, 21, 0x800B0109, 0x800B010A, -67843}

# Reasons that OpenSSL gives for a failed handshake.
_PLAIN = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}
_VERSION = {
    "NO_PROTOCOLS_AVAILABLE",
    "TLSV1_ALERT_PROTOCOL_VERSION",
    "UNSUPPORTED_PROTOCOL",
    "WRONG_SSL_VERSION",
}
_CERTIFICATE_WANTED = {"TLSV13_ALERT_CERTIFICATE_REQUIRED"}
_CERTIFICATE_REFUSED = {
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "TLSV1_ALERT_ACCESS_DENIED",
    "TLSV1_ALERT_UNKNOWN_CA",
}
_BROKEN_OFF = {"SSLV3_ALERT_HANDSHAKE_FAILURE", "UNEXPECTED_EOF_WHILE_READING"}

CERTIFICATE_WANTED = (
    "wants a client certificate. Give this engine the one that was issued for it (--client-cert"
    " FILE --client-key FILE), or ask the administrator there to let engines in without one."
)
"""The text for a server that asked for a certificate and got none, with what to do."""


def why_no_tls(name: str, error: ssl.SSLError) -> NotAnAggregator:
    """Return the error that tells why there is no encrypted connection to the server `name`."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return NotAnAggregator(_why_not_verified(name, error))
    reason = error.reason or ""
    if reason in _PLAIN:
        return NotAnAggregator(
            f"What answers at {name} does not speak TLS ({reason}). Check the port, or dial it"
            " without a secure connection (no --secure)."
        )
    if reason in _VERSION:
        return NotAnAggregator(
            f"{name} speaks only versions of TLS that are no longer safe ({reason}). Let it speak"
            " TLS 1.2 or newer."
        )
    if reason in _CERTIFICATE_WANTED:
        return NotAnAggregator(f"{name} {CERTIFICATE_WANTED}")
    if reason in _CERTIFICATE_REFUSED:
        return NotAnAggregator(
            f"{name} refused this engine because of its client certificate, or because it has none"
            f" ({reason}). Give this engine a valid one from an authority that is trusted there"
            " (--client-cert FILE --client-key FILE)."
        )
    if reason in _BROKEN_OFF:
        return NotAnAggregator(
            f"{name} broke off the TLS handshake. Perhaps it does not speak TLS at this port (no"
            " --secure), wants a client certificate (--client-cert FILE --client-key FILE), or has"
            " no cipher that is still safe. Or something on the way does not let TLS through."
        )
    return NotAnAggregator(
        f"TLS with {name} failed: {printable(reason or error)}. Check the port, and what is in"
        " front of the aggregator."
    )


def _why_not_verified(name: str, error: ssl.SSLCertVerificationError) -> str:
    code, said = error.verify_code, printable(error.verify_message).rstrip(".")
    codes = {code, code % 2**32}  # the codes of Windows may come as negative numbers
    if codes & _EXPIRED:
        return (
            f"The certificate of {name} is out of date: {said}. Have it renewed there. If other"
            " computers accept it, correct this computer's clock."
        )
    if codes & _NOT_YET_VALID:
        return (
            f"The certificate of {name} is not valid yet: {said}. Is this computer's clock right?"
        )
    if codes & _WRONG_NAME:
        return (
            f"The certificate of {name} is for another name: {said}. Use a name that is in it"
            " (-ahn), or have a certificate issued for this name."
        )
    if codes & _UNKNOWN_AUTHORITY:
        return (
            f"The certificate of {name} is not trusted: {said}. If it comes from an authority of"
            " your own, or from a proxy that inspects TLS, add that authority to the system's"
            " store or give its CA file (--ca-file FILE)."
        )
    return f"The certificate of {name} is not accepted: {said}. Have it replaced there."
