"""Private keys, and the assertions that are signed with them."""

from __future__ import annotations

import base64
import re
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from airflow_provider_cdf.cdf.errors import CdfLoginError

#: Seconds for which an assertion is good. It is used once, at once; clocks differ by minutes.
ASSERTION_LIFETIME = 300.0
#: Bits of an RSA key. Shorter ones are broken, and too short for what is signed.
SHORTEST_RSA = 1024
#: Bytes of a file with a key or a token.
LARGEST_FILE = 64 * 1024
#: The begin of a PEM, by which one is told from a path.
PEM_BEGIN = "-----BEGIN "

#: What begins a path that messages may name. A token begins with a letter, and so does a key without its PEM.
_PATH_BEGINS = ("/", ".", "~", "\\")
#: Base64, or a token: no path is so long without a sign that neither of them has.
_ENCODED = re.compile(r"(?:[A-Za-z0-9+/=]|\s){65,}|[A-Za-z0-9._~-]{65,}")

_BLOCK = re.compile(r"-----BEGIN ([A-Z ]+)-----(.*?)-----END \1-----", re.DOTALL)
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


@dataclass(frozen=True)
class SigningKey:
    """
    What a client signs with.

    :param pem_or_path: a PEM, or the path of one, which is read again at each login. It may hold the
        certificate, too, as files for Entra often do.
    :param thumbprint: of the certificate, in hex: of SHA-1 or SHA-256. Entra finds the certificate by it.
    :param names_certificate: whether the thumbprint of a certificate in the PEM is used where none is given.
    """

    pem_or_path: str = field(repr=False)
    thumbprint: str | None = None
    names_certificate: bool = True

    @property
    def lines(self) -> list[str]:
        """The key's lines, where the connection holds it: logs show line ends in several ways."""
        if PEM_BEGIN not in self.pem_or_path:
            return secrets_instead_of(self.pem_or_path)
        if problem_of_pem(self.pem_or_path):
            return []
        return [line for line in _block(self.pem_or_path, "PRIVATE KEY").splitlines()[1:-1] if len(line) > 16]

    def sign(self, client_id: str, audience: str) -> str | CdfLoginError:
        """Return an assertion that proves a client to a token endpoint (RFC 7523, section 3), or an error."""
        # These are slow to import, and only this kind of login needs them. Airflow brings both.
        import jwt
        from cryptography.hazmat.primitives.asymmetric import ec, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        pem = self._pem()
        if isinstance(pem, CdfLoginError):
            return pem
        if problem := problem_of_pem(pem):
            return CdfLoginError(f"The private key cannot be used: {problem}.")
        try:
            key = load_pem_private_key(_block(pem, "PRIVATE KEY").encode(), password=None)
        except Exception as error:  # its words may quote the key
            return CdfLoginError(
                "The private key cannot be read. It must be an unencrypted RSA or EC key in PEM "
                f"({type(error).__name__})."
            )
        of_pem = _thumbprint_of(pem) if self.names_certificate else None
        headers = _thumbprint_header(self.thumbprint or of_pem)
        if isinstance(key, rsa.RSAPrivateKey):
            if key.key_size < SHORTEST_RSA:
                return CdfLoginError(
                    f"The private key cannot be used: it is too short. RSA needs {SHORTEST_RSA} bits or "
                    f"more, better 2048, and this key has {key.key_size}."
                )
            # As Microsoft's own library signs, by which thumbprint it is.
            algorithm = "PS256" if "x5t#S256" in headers else "RS256"
        elif isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
            algorithm = _CURVES[key.curve.name]
        else:
            return CdfLoginError("The private key cannot be used: it is neither RSA nor EC (P-256 to P-521).")
        now = int(time.time())
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "jti": str(uuid.uuid4()),
            "iat": now,
            "nbf": now,
            "exp": now + int(ASSERTION_LIFETIME),
        }
        return jwt.encode(claims, key, algorithm=algorithm, headers=headers)

    def _pem(self) -> str | CdfLoginError:
        if PEM_BEGIN in self.pem_or_path:
            return self.pem_or_path
        return read_file(self.pem_or_path, "private key")


def file_named(path: str) -> str:
    """Return a file as messages name it: without what may be a key or a token in the wrong field."""
    return f"file {Path(path).name!r}" if _is_like_a_path(path) else "the file"


def secrets_instead_of(path: str) -> list[str]:
    """Return what has to be kept out of logs of a text that is to be a path, and may be a key or a token."""
    if _is_like_a_path(path):
        return []
    return [line for line in path.split() if len(line) > 16]


def _is_like_a_path(text: str) -> bool:
    is_path = len(text) <= 255 and text.startswith(_PATH_BEGINS) and "\n" not in text
    return is_path and not _ENCODED.fullmatch(text)


def read_file(path: str, what: str) -> str | CdfLoginError:
    """
    Read a small file of this machine. What writes it may have just taken it away, or emptied it.

    :param what: what it holds, for messages.
    """
    try:
        if Path(path).is_fifo() or Path(path).is_char_device():  # which might never end
            return CdfLoginError(
                f"The {what} is not read from what is no ordinary file. It is {file_named(path)}."
            )
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            return CdfLoginError(
                f"The file with the {what} is too large: more than 64 KB. It is {file_named(path)}."
            )
        text = content.decode("utf-8-sig", errors="replace")
        if text.strip():
            return text
        return CdfLoginError(
            f"The file with the {what} is empty. It is {file_named(path)}.", is_transient=True
        )
    except (OSError, ValueError) as error:  # no path has a zero byte
        reason = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        is_transient = isinstance(error, FileNotFoundError)
    if _is_like_a_path(path):
        return CdfLoginError(
            f"The file with the {what} cannot be read here: {reason}. It is {Path(path).name!r}, and must be "
            "on each worker and triggerer.",
            is_transient=is_transient,
        )
    return CdfLoginError(
        f"The file with the {what} cannot be read: the connection has what is no path of a file here. It is "
        f"not shown, because it may be the {what} itself. A path begins with /, and the file must be on each "
        "worker and triggerer."
    )


def problem_of_pem(pem: str) -> str:
    """Return what is wrong with a PEM at first sight; nothing if it may be a private key."""
    kinds = [kind for kind, _ in _BLOCK.findall(pem)]
    keys = [kind for kind in kinds if kind.endswith("PRIVATE KEY")]
    if not keys:
        found = f"only {' and '.join(kinds)}" if kinds else "no whole block"
        return f"a PEM with -----BEGIN PRIVATE KEY----- is needed, and there is {found}"
    if "ENCRYPTED" in keys[0] or "Proc-Type:" in pem:
        return "it is encrypted; take the password off, as with: openssl pkey -in KEY -out NEW"
    return ""


def thumbprint_digits(text: str) -> str | None:
    """Return a thumbprint's hex digits, however they are separated; ``None`` if it is none."""
    digits = re.sub(r"[\s:-]", "", text).upper()
    return digits if re.fullmatch("[0-9A-F]{40}|[0-9A-F]{64}", digits) else None


def has_certificate(pem: str) -> bool:
    """Whether a PEM holds a certificate, from which the thumbprint follows."""
    return any(kind == "CERTIFICATE" for kind, _ in _BLOCK.findall(pem))


def _block(pem: str, kind_ends: str) -> str:
    """Return a block as a PEM of its own, with the line ends that a form or a variable may have lost."""
    kind, body = next((kind, body) for kind, body in _BLOCK.findall(pem) if kind.endswith(kind_ends))
    letters = re.sub(r"\\n|\\r|\s", "", body)
    lines = "\n".join(letters[at : at + 64] for at in range(0, len(letters), 64))
    return f"-----BEGIN {kind}-----\n{lines}\n-----END {kind}-----\n"


def _thumbprint_of(pem: str) -> str | None:
    if not has_certificate(pem):
        return None
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509 import load_pem_x509_certificate

    try:
        return load_pem_x509_certificate(_block(pem, "CERTIFICATE").encode()).fingerprint(SHA256()).hex()
    except ValueError:
        return None


def _thumbprint_header(thumbprint: str | None) -> dict[str, str]:
    # RFC 7515, sections 4.1.7 and 4.1.8.
    if not thumbprint:
        return {}
    digest = bytes.fromhex(thumbprint)
    name = "x5t" if len(digest) == 20 else "x5t#S256"
    return {name: base64.urlsafe_b64encode(digest).decode().rstrip("=")}
