"""A mail server for tests. Its first argument is JSON: port, tls (none, starttls or wrapped), certificate, key, password.
Says `ready PORT`, then a line of JSON of each login that is tried, and each mail that is taken."""

import json
import ssl
import sys
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult


def say(**what):
    print(json.dumps(what), flush=True)


settings = json.loads(sys.argv[1])
tls = None
if settings["tls"] != "none":
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(settings["certificate"], settings["key"])


class Taker:
    async def handle_DATA(self, server, session, envelope):
        secured = settings["tls"] == "wrapped" or session.ssl is not None
        text = envelope.content.decode()
        say(mail=text, sender=envelope.mail_from, to=envelope.rcpt_tos, secured=secured)
        return "250 taken"


def authenticator(server, session, envelope, mechanism, login):
    right = login.login == b"postman" and login.password.decode() == settings["password"]
    say(login=login.login.decode(), right=right)
    return AuthResult(success=right, handled=False)


controller = Controller(
    Taker(),
    hostname="127.0.0.1",
    port=settings["port"],
    ssl_context=tls if settings["tls"] == "wrapped" else None,
    tls_context=tls if settings["tls"] == "starttls" else None,
    require_starttls=settings["tls"] == "starttls",
    authenticator=authenticator,
    auth_required=True,
    # Of a server without TLS it is a trap: whoever steps into it has sent a password in clear.
    auth_require_tls=settings["tls"] == "starttls",
)
controller.start()
say_ready = controller.server.sockets[0].getsockname()[1]
print(f"ready {say_ready}", flush=True)
threading.Event().wait()
