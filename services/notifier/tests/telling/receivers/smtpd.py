"""A mail server for tests: aiosmtpd, each mail a file in a folder.

    smtpd.py PORT FOLDER [--cert FILE --key FILE] [--implicit] [--user USER --password PASSWORD] [--refuse ADDRESS]

It prints `ready` once it listens, and ends with its standard input.
"""

import argparse
import asyncio
import pathlib
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("folder", type=pathlib.Path)
parser.add_argument("--cert")
parser.add_argument("--key")
parser.add_argument("--implicit", action="store_true")
parser.add_argument("--user")
parser.add_argument("--password")
parser.add_argument("--refuse", default="")
arguments = parser.parse_args()


class Handler:
    count = 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address == arguments.refuse:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        Handler.count += 1
        how = f"X-Tls: {session.ssl is not None or arguments.implicit}\r\nX-Login: {session.authenticated}\r\n".encode()
        part = arguments.folder / f".{Handler.count}"
        part.write_bytes(how + envelope.content)
        part.rename(arguments.folder / f"{Handler.count}.eml")
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    good = data.login.decode() == arguments.user and data.password.decode() == arguments.password
    # Not handled: so that it is answered, by 535.
    return AuthResult(success=good, handled=False)


context = None
if arguments.cert:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.cert, arguments.key)

login = {}
if arguments.user:
    login = {"authenticator": authenticate, "auth_required": True}
controller = Controller(
    Handler(),
    hostname="127.0.0.1",
    port=arguments.port,
    tls_context=None if arguments.implicit else context,
    require_starttls=context is not None and not arguments.implicit,
    ssl_context=context if arguments.implicit else None,
    # Over implicit TLS the login is encrypted all the same.
    auth_require_tls=not arguments.implicit,
    **login,
)
if arguments.implicit:
    controller.server_hostname = "127.0.0.1"
controller.start()
print("ready", flush=True)
sys.stdin.read()
controller.stop()
