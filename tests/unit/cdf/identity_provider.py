"""
A small identity provider, and a CDF behind it, on loopback. It verifies what it is sent, by other code than
what made it: the form, the header, an assertion's signature, thumbprint, audience, times and id.
"""

from __future__ import annotations

import base64
import datetime
import json
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from cdf_support import Answering, loopback_server
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

CLIENT = "the-client@plant/1"
#: Signs that a form, a header and a URL encode differently.
SECRET = "s3cr3t~/with+ blanks&%ü"


class Pair:
    """A private key and its certificate, made by a client, and registered at an identity provider."""

    def __init__(self, key: Any = None, names: Iterable[str] = ()) -> None:
        self.key = key or rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "airflow")])
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def pem(
        self, form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8, password: str = ""
    ) -> str:
        kept = serialization.BestAvailableEncryption(password.encode()) if password else None
        return self.key.private_bytes(
            serialization.Encoding.PEM, form, kept or serialization.NoEncryption()
        ).decode()

    def certificate_pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def thumbprint(self, kind: hashes.HashAlgorithm | None = None) -> str:
        return self.certificate.fingerprint(kind or hashes.SHA1()).hex().upper()


@dataclass
class Refused(Exception):  # noqa: N818 - what the provider says, not an error of these tests
    """The answer to a token request that is not as it has to be."""

    error: str
    description: str
    status: int = 401


@dataclass
class IdentityProvider:
    """
    :param url: where it listens; CDF is there as well.
    :param method: how its one client has to prove itself.
    :param scope: what has to be asked for; ``None`` for nothing.
    :param needs_thumbprint: whether it finds certificates as Entra does.
    """

    url: str = ""
    method: str = "client_secret_post"
    client_id: str = CLIENT
    secret: str = SECRET
    pair: Pair | None = None
    scope: str | None = None
    audience: str | None = None
    needs_thumbprint: bool = False
    lifetime: int = 3600
    #: Answers every token request.
    refusal: Refused | None = None
    token_requests: list[dict[str, str]] = field(default_factory=list)
    #: Why those that were refused were.
    refusals: list[str] = field(default_factory=list)
    #: Header and claims of each assertion that was good.
    assertions: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    issued: list[str] = field(default_factory=list)
    #: Path and body of what CDF was asked.
    calls: list[tuple[str, Any]] = field(default_factory=list)
    #: The tokens that CDF was shown.
    shown: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    @property
    def token_url(self) -> str:
        return f"{self.url}/tenant/oauth2/token"

    def issue(self) -> str:
        token = secrets.token_urlsafe(24)
        self.tokens.add(token)
        self.issued.append(token)
        return token

    def answer(self, request: Answering) -> None:
        if request.path == "/tenant/oauth2/token":
            try:
                self._verify(request)
            except Refused as refused:
                self.refusals.append(refused.description)
                request.reply(
                    {"error": refused.error, "error_description": refused.description}, status=refused.status
                )
            else:
                request.reply({"access_token": self.issue(), "expires_in": self.lifetime})
            return
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        self.shown.append(token)
        if scheme != "Bearer" or token not in self.tokens:
            request.reply({"error": {"code": 401, "message": "Unauthorized"}}, status=401)
            return
        self.calls.append((request.path, json.loads(request.body) if request.body else None))
        if request.path.endswith("/sessions"):
            (item,) = json.loads(request.body)["items"]
            if item.get("clientSecret", self.secret) != self.secret:
                words = "Failed to fetch a token with the client credentials"
                request.reply({"error": {"code": 400, "message": words}}, status=400)
                return
            request.reply({"items": [{"id": 1, "status": "READY", "type": "x", "nonce": "the-nonce"}]})
        elif request.path.endswith("/token/inspect"):
            request.reply({"subject": "s", "projects": [], "capabilities": []})
        else:
            request.reply({"items": []})

    def _verify(self, request: Answering) -> None:
        assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
        fields = parse_qs(request.body.decode("ascii"), strict_parsing=True)
        assert all(len(values) == 1 for values in fields.values()), "a parameter must not be repeated"
        form = {name: values[0] for name, values in fields.items()}
        self.token_requests.append(dict(form))
        if self.refusal:
            raise self.refusal
        if form.pop("grant_type", None) != "client_credentials":
            raise Refused("unsupported_grant_type", "client_credentials only", 400)
        header = request.headers.get("Authorization")
        if self.method == "client_secret_basic":
            self._basic(header, form)
        elif header:
            raise Refused("invalid_client", "This client does not use the header.")
        elif self.method == "client_secret_post":
            self._secret(form.pop("client_id", ""), form.pop("client_secret", ""))
        else:
            self._assertion(form)
        if form.pop("scope", None) != self.scope:
            raise Refused("invalid_scope", f"The scope is {self.scope}.", 400)
        if form.pop("audience", None) != self.audience:
            raise Refused("access_denied", f"The audience is {self.audience}.", 403)
        if form:
            raise Refused("invalid_request", f"unknown: {', '.join(form)}", 400)

    def _secret(self, client_id: str, secret: str) -> None:
        if (client_id, secret) != (self.client_id, self.secret):
            raise Refused("invalid_client", "Wrong client id or client secret.")

    def _basic(self, header: str | None, form: dict[str, str]) -> None:
        scheme, _, encoded = (header or "").partition(" ")
        if scheme != "Basic" or {"client_id", "client_secret"} & form.keys():
            raise Refused("invalid_client", "This client uses HTTP Basic, and nothing else.")
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode("ascii").partition(":")
        self._secret(unquote_plus(client_id), unquote_plus(secret))

    def _assertion(self, form: dict[str, str]) -> None:
        if form.pop("client_assertion_type", "") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer":
            raise Refused("invalid_client", "client_assertion_type")
        parts = form.pop("client_assertion", "").split(".")
        if len(parts) != 3:
            raise Refused("invalid_client", "That is no JSON web token.")
        header, claims = (json.loads(_decoded(part)) for part in parts[:2])
        assert self.pair is not None
        if self.needs_thumbprint:
            prints = {
                "x5t": _encoded(self.pair.certificate.fingerprint(hashes.SHA1())),
                "x5t#S256": _encoded(self.pair.certificate.fingerprint(hashes.SHA256())),
            }
            if not any(header.get(name) == value for name, value in prints.items()):
                raise Refused("invalid_client", "AADSTS700027: The certificate is not registered.")
        if not self._is_signed(header["alg"], f"{parts[0]}.{parts[1]}".encode(), _decoded(parts[2])):
            raise Refused("invalid_client", "The signature is wrong.")
        now = time.time()
        wrong = [
            name
            for name, is_right in {
                "typ": header.get("typ") == "JWT",
                "iss": claims.get("iss") == self.client_id,
                "sub": claims.get("sub") == self.client_id,
                "client_id": form.pop("client_id", self.client_id) == self.client_id,
                "aud": claims.get("aud") == self.token_url,
                "exp": now < claims.get("exp", 0) <= now + 600,
                "nbf": claims.get("nbf", 0) <= now,
                "iat": claims.get("iat", 0) <= now,
                "jti": claims.get("jti") and claims["jti"] not in self._seen,
            }.items()
            if not is_right
        ]
        if wrong:
            raise Refused("invalid_client", f"wrong in the assertion: {', '.join(wrong)}")
        self._seen.add(claims["jti"])
        self.assertions.append((header, claims))

    def _is_signed(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        assert self.pair is not None
        public = self.pair.certificate.public_key()
        try:
            if isinstance(public, ec.EllipticCurvePublicKey):
                digest = {"ES256": hashes.SHA256(), "ES384": hashes.SHA384()}[algorithm]
                half = len(signature) // 2
                r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
                public.verify(encode_dss_signature(r, s), signed, ec.ECDSA(digest))
            else:
                assert isinstance(public, rsa.RSAPublicKey)
                pss = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
                how = {"RS256": padding.PKCS1v15(), "PS256": pss}[algorithm]
                public.verify(signature, signed, how, hashes.SHA256())
        except (InvalidSignature, KeyError):
            return False
        return True


@contextmanager
def identity_provider(**how: Any) -> Iterator[IdentityProvider]:
    """Run one for a while."""
    provider = IdentityProvider(**how)
    with loopback_server(provider.answer) as url:
        provider.url = url
        yield provider


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _encoded(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
