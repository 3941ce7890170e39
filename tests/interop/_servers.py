"""Servers of Debian as processes: what may stand between engines and aggregators."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import trustme
from attrs import define, field, frozen

from tests.helpers.ports import free_port

_START_S = 30.0  # measured: under 1 s, squid 2 s
_STOP_S = 20.0


class NotInstalled(Exception):
    """Raised when the program is missing; the message says how to get it."""


def program(name: str) -> str:
    """Return the path of a program. Raises NotInstalled if it is missing."""
    path = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if path is None:
        raise NotInstalled(f"{name} is not installed: apt-get install {name}")
    return path


@define(eq=False)
class Server:
    """A server in the foreground; `start`, `stop`, `restart` and `reload` block."""

    _command: list[str]
    _folder: Path
    port: int
    """One of its ports, which answers when the server is up."""
    _reload: Callable[["subprocess.Popen[bytes]"], object] | None = None
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def start(self) -> None:
        """Start it, and return when it accepts connections."""
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env={**os.environ, "HOME": str(self._folder)},  # where Caddy keeps things
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"{self._command[0]} did not start:\n{self.log_text()}")

    def stop(self) -> None:
        """End it as its service manager does."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_S)
            finally:
                process.kill()
                process.wait()

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def reload(self) -> None:
        """Let it read its configuration again."""
        assert self._process is not None
        assert self._reload is not None
        self._reload(self._process)

    def log_text(self) -> str:
        """Return everything that it has written."""
        return "".join(
            f"{path.name}:\n{path.read_text(errors='replace')}"
            for path in sorted(self._folder.glob("*.log"))
        )


@contextmanager
def _running(server: Server) -> Iterator[None]:
    try:
        server.start()
        yield
    finally:
        server.stop()


# Reverse proxies

KINDS = ("nginx", "haproxy", "caddy")

PREFIX = "/lab/pectus"


@frozen
class Front:
    """A reverse proxy in front of an aggregator, with a port for each way of doing so."""

    server: Server
    tls: int
    no_upgrade: int
    """The port that does not pass the upgrade on."""
    below_path: int
    """The port that has the aggregator below `PREFIX`."""
    mutual: int
    """The port that wants a client certificate."""
    to_tls: int
    """The port without TLS that redirects to the port with TLS."""
    ca_file: Path
    client_cert: Path


@contextmanager
def front(kind: str, backend: int, folder: Path) -> Iterator[Front]:
    """Run a reverse proxy of this kind in front of the aggregator at a port."""
    path = program(kind)
    authority = trustme.CA()
    server_cert = authority.issue_cert("127.0.0.1", "localhost")
    client = folder / "client.pem"
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    server_cert.private_key_pem.write_to_path(str(folder / "key.pem"))
    server_cert.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    server_cert.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    authority.issue_cert("engine.example").private_key_and_cert_chain_pem.write_to_path(str(client))
    ports: dict[str, int] = {}
    names = ("tls", "no_upgrade", "below_path", "mutual", "to_tls", "admin")
    while len(ports) < len(names):
        port = free_port()
        if port not in ports.values():
            ports[names[len(ports)]] = port
    config, admin = folder / f"{kind}.conf", ports.pop("admin")
    text = _CONFIGS[kind]
    for name, value in {
        **ports,
        "admin": admin,
        "backend": backend,
        "folder": folder,
        "prefix": PREFIX,
    }.items():
        text = text.replace(f"@{name}@", str(value))
    config.write_text(text)
    server = Server(
        [path, *(argument.format(config=config) for argument in _ARGUMENTS[kind])],
        folder,
        ports["tls"],
        {
            "nginx": lambda process: process.send_signal(signal.SIGHUP),
            "haproxy": lambda process: process.send_signal(signal.SIGUSR2),
            "caddy": lambda _: _reload_caddy(path, config, admin),
        }[kind],
    )
    with _running(server):
        yield Front(server=server, ca_file=folder / "ca.pem", client_cert=client, **ports)


def _reload_caddy(path: str, config: Path, admin: int) -> None:
    address = f"127.0.0.1:{admin}"
    command = [path, "reload", "--force", "--config", str(config), "--adapter", "caddyfile"]
    subprocess.run([*command, "--address", address], check=True, capture_output=True)


_ARGUMENTS = {
    "nginx": ["-c", "{config}", "-e", "stderr"],
    "haproxy": ["-W", "-db", "-f", "{config}"],
    "caddy": ["run", "--config", "{config}", "--adapter", "caddyfile"],
}

_TO_BACKEND = """
            proxy_pass http://127.0.0.1:@backend@;
            proxy_set_header Host $http_host;
"""
_UPGRADE = """
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
"""

_CONFIGS = {
    "nginx": f"""
daemon off;
user root;
pid @folder@/nginx.pid;
events {{ }}
http {{
    access_log off;
    client_body_temp_path @folder@/1; proxy_temp_path @folder@/2; fastcgi_temp_path @folder@/3;
    uwsgi_temp_path @folder@/4; scgi_temp_path @folder@/5;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    ssl_certificate @folder@/cert.pem;
    ssl_certificate_key @folder@/key.pem;
    server {{
        listen 127.0.0.1:@tls@ ssl;
        location / {{ {_TO_BACKEND} {_UPGRADE} }}
    }}
    server {{
        listen 127.0.0.1:@no_upgrade@ ssl;
        location / {{ {_TO_BACKEND} }}
    }}
    server {{
        listen 127.0.0.1:@below_path@ ssl;
        location @prefix@/ {{ {_TO_BACKEND.replace("@backend@;", "@backend@/;")} {_UPGRADE} }}
    }}
    server {{
        listen 127.0.0.1:@mutual@ ssl;
        ssl_client_certificate @folder@/ca.pem;
        ssl_verify_client on;
        location / {{ {_TO_BACKEND} {_UPGRADE} }}
    }}
    server {{
        listen 127.0.0.1:@to_tls@;
        return 301 https://127.0.0.1:@tls@$request_uri;
    }}
}}
""",
    "haproxy": """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
    default_backend aggregator
frontend tls
    bind 127.0.0.1:@tls@ ssl crt @folder@/both.pem
frontend no_upgrade
    bind 127.0.0.1:@no_upgrade@ ssl crt @folder@/both.pem
    http-request del-header Upgrade
frontend below_path
    bind 127.0.0.1:@below_path@ ssl crt @folder@/both.pem
    http-request replace-path @prefix@(/.*) \\1
frontend mutual
    bind 127.0.0.1:@mutual@ ssl crt @folder@/both.pem ca-file @folder@/ca.pem verify required
frontend to_tls
    bind 127.0.0.1:@to_tls@
    http-request redirect code 308 location https://127.0.0.1:@tls@%[path]
backend aggregator
    server one 127.0.0.1:@backend@
""",
    "caddy": """
{
    admin 127.0.0.1:@admin@
    auto_https off
    default_bind 127.0.0.1
    storage file_system @folder@
}
https://:@tls@ {
    tls @folder@/cert.pem @folder@/key.pem
    reverse_proxy 127.0.0.1:@backend@
}
https://:@no_upgrade@ {
    tls @folder@/cert.pem @folder@/key.pem
    reverse_proxy 127.0.0.1:@backend@ {
        header_up -Upgrade
        header_up -Connection
    }
}
https://:@below_path@ {
    tls @folder@/cert.pem @folder@/key.pem
    handle_path @prefix@/* {
        reverse_proxy 127.0.0.1:@backend@
    }
}
https://:@mutual@ {
    tls @folder@/cert.pem @folder@/key.pem {
        client_auth {
            mode require_and_verify
            trusted_ca_cert_file @folder@/ca.pem
        }
    }
    reverse_proxy 127.0.0.1:@backend@
}
http://:@to_tls@ {
    redir https://127.0.0.1:@tls@{uri} 302
}
""",
}


# Proxies of a company


@frozen
class Proxy:
    """A proxy that wants a login."""

    server: Server
    login: str
    """The login as it is written in a URL."""

    def url(self, login: str | None = None) -> str:
        """Return its URL with its login, with another one, or with none."""
        login = self.login if login is None else login
        return f"http://{login}{'@' if login else ''}127.0.0.1:{self.server.port}"


@contextmanager
def tinyproxy(allowed: list[int]) -> Iterator[Proxy]:
    """Run tinyproxy, which lets connections through to these ports."""
    with TemporaryDirectory() as name:
        yield from _tinyproxy(allowed, Path(name))


def _tinyproxy(allowed: list[int], folder: Path) -> Iterator[Proxy]:
    path, port, config = program("tinyproxy"), free_port(), folder / "tinyproxy.conf"
    lines = [f"Port {port}", "Listen 127.0.0.1", "Timeout 600", "MaxClients 20"]
    lines += [f'PidFile "{folder}/pid"', "BasicAuth ali opensesame"]
    lines += [f"ConnectPort {port}" for port in allowed]
    config.write_text("\n".join(lines) + "\n")
    server = Server([path, "-d", "-c", str(config)], folder, port)
    with _running(server):
        yield Proxy(server, "ali:opensesame")


@contextmanager
def squid(allowed: list[int]) -> Iterator[Proxy]:
    """Run squid, which lets connections through to these ports."""
    with TemporaryDirectory() as name:
        yield from _squid(allowed, Path(name))


def _squid(allowed: list[int], folder: Path) -> Iterator[Proxy]:
    path, port, config = program("squid"), free_port(), folder / "squid.conf"
    openssl = ["openssl", "passwd", "-apr1", "open:sesame@"]
    hashed = subprocess.run(openssl, check=True, capture_output=True, text=True).stdout.strip()
    (folder / "passwords").write_text(f"ali:{hashed}\n")
    config.write_text(
        f"""
http_port 127.0.0.1:{port}
auth_param basic program /usr/lib/squid/basic_ncsa_auth {folder}/passwords
auth_param basic children 1
acl users proxy_auth REQUIRED
acl allowed port {" ".join(map(str, allowed))}
http_access deny !allowed
http_access deny !users
http_access allow users
cache deny all
pid_filename {folder}/pid
cache_log {folder}/cache.log
access_log none
coredump_dir {folder}
shutdown_lifetime 0 seconds
"""
    )
    # The name is that of its shared memory.
    server = Server([path, "-N", "-n", f"trio{port}", "-f", str(config)], folder, port)
    if os.geteuid() == 0:
        shutil.chown(folder, "proxy")  # it then runs as this user
    with _running(server):
        yield Proxy(server, "ali:open%3Asesame%40")
