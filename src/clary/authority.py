"""Makes the private authority and the certificates that the gateways show for AWS's host names.

The authority may sign for amazonaws.com and nothing else (a critical name constraint), and its key is forgotten as
soon as the certificates are signed: nobody can ever make another one that clients of this server would trust.
Renewal is a new authority. `clary up` calls this when `clary.certificates` finds nothing good.
"""

import ipaddress
import json
import os
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from clary import certificates
from clary.settings import Settings

LIFETIME = timedelta(days=3650)
_CLOCKS_DIFFER = timedelta(days=1)
_EVERY_ADDRESS = tuple(x509.IPAddress(ipaddress.ip_network(network)) for network in ("0.0.0.0/0", "::/0"))


def make(settings: Settings, now: datetime) -> None:
    """Writes a fresh authority and a certificate for each region, in place of what there was. Raises OSError."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = _authority(key, now)
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    secret = leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    directory = certificates.directory(settings)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    certificates.note_file(settings).unlink(missing_ok=True)
    regions = certificates.regions(settings)
    for region in regions:
        leaf = _leaf(region, leaf_key.public_key(), key, own, now)
        _write(certificates.chain_file(settings, region), secret + leaf.public_bytes(Encoding.PEM))
    _write(certificates.authority_file(settings), own.public_bytes(Encoding.PEM))
    note = {"version": 1, "regions": regions, "expires": (now + LIFETIME).isoformat()}
    _write(certificates.note_file(settings), json.dumps(note, indent=1).encode())


def _authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = _name(f"Clary's own authority for {certificates.DOMAIN} on this machine")
    public = key.public_key()
    builder = _builder(name, name, public, now)
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_usage(key_cert_sign=True), True),
        (x509.NameConstraints([x509.DNSName(certificates.DOMAIN)], _EVERY_ADDRESS), True),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(key, hashes.SHA256())


def _leaf(
    region: str,
    public: ec.EllipticCurvePublicKey,
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    now: datetime,
) -> x509.Certificate:
    builder = _builder(_name(f"Clary, for {region}"), authority.subject, public, now)
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
        (x509.SubjectAlternativeName([x509.DNSName(name) for name in certificates.names(region)]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), False),
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + LIFETIME)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(file: Path, content: bytes) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(file)
