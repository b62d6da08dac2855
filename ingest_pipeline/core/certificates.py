"""The reason why a server's certificate is refused. Clients' libraries only say that the verification failed."""

import socket
import ssl

_SECONDS = 5.0


def refusal(
    host: str, port: int, authorities: str | None, *, check_name: bool = True, before_tls: bytes = b""
) -> str | None:
    """OpenSSL's reason for refusing the certificate. None for an accepted certificate, and without an answer.

    Args:
        authorities: the file of certificate authorities, or None for those of the system.
        before_tls: bytes that the protocol sends first. The server answers with one byte.
    """
    try:
        context = ssl.create_default_context(cafile=authorities)
    except (OSError, ssl.SSLError):
        return "the file of certificate authorities cannot be read"
    context.check_hostname = check_name
    try:
        with socket.create_connection((host, port), _SECONDS) as connection:
            if before_tls:
                connection.sendall(before_tls)
                connection.recv(1)
            context.wrap_socket(connection, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message.rstrip(".")
    except (OSError, UnicodeError):
        return None
    return None
