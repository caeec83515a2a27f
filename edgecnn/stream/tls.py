"""Whom connections over TLS trust, and what to do where a certificate is refused."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from edgecnn.errors import InputError, Unavailable

__all__ = ["authorities_file", "refused", "trusted"]

AUTHORITIES_VARIABLE = "SSL_CERT_FILE"  # OpenSSL's own
# where distributions keep all of them in one file, as FFmpeg wants it
FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
# <openssl/x509_vfy.h>
NOT_YET_VALID, EXPIRED, OTHER_NAME, OTHER_ADDRESS = 9, 10, 62, 64


def trusted() -> ssl.SSLContext:
    """For clients that check the certificate and the name of a server.

    They trust the authorities of this machine, and those of the file that ``$SSL_CERT_FILE`` names.

    Raises:
        InputError: That file holds no certificates.
    """
    context = ssl.create_default_context()
    if named := os.environ.get(AUTHORITIES_VARIABLE):
        try:
            context.load_verify_locations(named)
        except OSError as error:  # those of ssl are among them
            what = "no certificates in PEM" if isinstance(error, ssl.SSLError) else error.strerror
            raise InputError(f"{AUTHORITIES_VARIABLE}: {named}: cannot be used ({what})") from error
    return context


def authorities_file() -> str:
    """The file of those that this machine trusts, for libraries that have to be given one.

    Raises:
        Unavailable: There is none.
    """
    own = os.environ.get(AUTHORITIES_VARIABLE) or ssl.get_default_verify_paths().cafile
    found = next((name for name in (own, *FILES) if name and Path(name).is_file()), None)
    if found is None:
        raise Unavailable(
            f"no file of certificate authorities is known here; name one (PEM) in {AUTHORITIES_VARIABLE}"
        )
    return found


def refused(error: ssl.SSLCertVerificationError) -> str:
    """What is wrong with the certificate of a server, and what to do."""
    if error.verify_code in (OTHER_NAME, OTHER_ADDRESS):
        cure = "use a name that it was made for"
    elif error.verify_code in (EXPIRED, NOT_YET_VALID):
        cure = "renew it, or set the clock of this machine"
    else:
        cure = f"name the file of its authority (PEM) in {AUTHORITIES_VARIABLE}"
    return f"its certificate is refused: {error.verify_message.rstrip('.')}; {cure}"
