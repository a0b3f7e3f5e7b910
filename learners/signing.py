"""Ed25519 signatures of checkpoints: who made it, beside what it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from pipeline.settings import Signing

_PURPOSE = b"driftline checkpoint "
"""Signed with the digest, so that the signature of anything else is none of a checkpoint."""


class KeyFileError(ValueError):
    """A key file is missing or holds no Ed25519 key; the message says how to mend it."""


class Signer:
    """Signs with a private key."""

    def __init__(self, path: Path) -> None:
        """Read the key from a PEM file (PKCS #8, not encrypted).

        Raises:
            KeyFileError: there is no such key.
        """
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeyFileError(_unreadable(path, error)) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileError(_unreadable(path, "another kind of key"))
        self._key = key

    @property
    def key(self) -> str:
        """The public key, in hexadecimal digits."""
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    def sign(self, digest: str) -> str:
        """Sign a digest; returns hexadecimal digits."""
        return self._key.sign(_PURPOSE + digest.encode()).hex()


def is_signed(digest: str, key: str, signature: str) -> bool:
    """Tell whether a signature of a digest was made with the private half of a key."""
    try:
        if signature != signature.lower():
            return False  # the same bytes, but not as they were written
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        public.verify(bytes.fromhex(signature), _PURPOSE + digest.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def trusted(paths: Sequence[str]) -> frozenset[str]:
    """Read public keys from PEM files; returns them in hexadecimal digits.

    Raises:
        KeyFileError: one of them is no such key.
    """
    found = set()
    for path in map(Path, paths):
        try:
            key = load_pem_public_key(path.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise KeyFileError(_unreadable(path, error)) from None
        if not isinstance(key, Ed25519PublicKey):
            raise KeyFileError(_unreadable(path, "another kind of key"))
        found.add(key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex())
    return frozenset(found)


def keys(signing: Signing) -> tuple[Signer | None, frozenset[str]]:
    """Read what the settings name: the signer, if there is one, and the public keys trusted.

    Raises:
        KeyFileError: a key file is none.
    """
    return Signer(Path(signing.key)) if signing.key else None, trusted(signing.trusted)


def write_pair(path: Path) -> Path:
    """Make a key pair: the private key in `path`, readable by its owner, the public one beside it.

    Returns the path of the public key.

    Raises:
        KeyFileError: there is a file already.
    """
    public = path.with_name(f"{path.name}.pub")
    if path.exists() or public.exists():
        raise KeyFileError(f"{path} or {public} exists already: name another file")
    key = Ed25519PrivateKey.generate()
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return public


def _unreadable(path: Path, why: object) -> str:
    return (
        f"{path} is no readable Ed25519 key in PEM ({why}): `driftline checkpoint keygen` makes a "
        "pair"
    )
