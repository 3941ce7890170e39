"""Certificates like those of proxies that inspect TLS."""

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def forged(folder: Path) -> tuple[Path, Path]:
    """Return files: an authority, and a key with a certificate that it made for 127.0.0.1.

    Neither has key identifiers, and that it is an authority is not marked critical: RFC 5280 asks
    for both, browsers for neither.
    """
    authority_key, key = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    name, own_name = _name("Inspection of a company"), _name("127.0.0.1")
    authority = (
        _builder(name, name)
        .public_key(authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
        .sign(authority_key, SHA256())
    )
    address = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    certificate = (
        _builder(own_name, name)
        .public_key(key.public_key())
        .add_extension(address, critical=False)
        .sign(authority_key, SHA256())
    )
    ca_file, both = folder / "inspection.pem", folder / "forged.pem"
    ca_file.write_bytes(authority.public_bytes(Encoding.PEM))
    both.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    return ca_file, both


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
