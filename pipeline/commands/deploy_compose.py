"""Writes what serves a model on one machine by `docker compose`: two containers, of which one serves, behind a proxy.

    tunesmith deploy compose --image registry.example.org/chat:1 --model models/gguf/starter-m-Q8_0.gguf
    cd deploy/compose && docker compose up -d

The next version starts as the other of the two, and takes over when it is ready; the way back is the same. No
conversation is dropped: docs/deploy.md says how.
"""

from pathlib import Path

from pipeline.deployment.service import CACHE, FEEDBACK, PORT, READY, Service, as_yaml, write_all

COMPOSE, PROXY, CHOICES = "compose.yaml", "haproxy.cfg", ".env"
COLOURS = ("blue", "green")
PROXY_IMAGE = "haproxy:3.2"
MOST_PROCESSES = 512  # threads among them
LOCKED_DOWN = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}
SAID = """\
Blue and green are two versions of the chat, and the proxy asks whichever is ready. Their images, the port and which one
`docker compose up` starts stand in .env. To roll out: name the next image there (GREEN=…), then
    docker compose up -d --wait green && docker compose stop blue
and back by the same with the names changed."""
# A question that a server turns away, since it stops or is full, or that it did not get at all, goes to the other one:
# for that it has to be in memory whole. Streams go on as long as they last, also of a server that takes no more.
HAPROXY = f"""\
global
    maxconn 2000
    tune.bufsize 131072    # bytes of a question that can be asked again

defaults
    mode http
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    timeout http-request 60s
    timeout check 5s    # a busy machine is not a server that is gone
    option http-buffer-request
    option redispatch 1
    retries 3
    retry-on conn-failure empty-response 503

resolvers engine
    nameserver engine 127.0.0.11:53
    resolve_retries 3
    timeout resolve 1s
    timeout retry 1s
    hold valid 1s

frontend chat
    bind :{PORT}
    default_backend servers

backend servers
    balance leastconn
    option forwardfor
    option httpchk GET {READY}
    cookie SERVED_BY insert indirect nocache httponly    # a page's clicks and its streams belong together
    default-server check inter 1s fall 2 rise 1 resolvers engine resolve-prefer ipv4 init-addr none
{"".join(f"    server {colour} {colour}:{PORT} cookie {colour}{chr(10)}" for colour in COLOURS)}"""

Tree = dict[str, object]


def run(service: Service, port: int, out: Path, force: bool) -> None:
    """Write the files into a folder.

    Args:
        service: the containers.
        port: of this machine, on which the proxy listens.
        out: the folder.
        force: replace files that are others.

    Raises:
        UserError: other files are there.
    """
    choices = {"COMPOSE_PROFILES": COLOURS[0], "PORT": port} | {colour.upper(): service.image for colour in COLOURS}
    texts = {
        COMPOSE: as_yaml(composed(service), said=SAID),
        PROXY: HAPROXY,
        CHOICES: "".join(f"{name}={value}\n" for name, value in choices.items()),
    }
    write_all(out, texts, force)
    print(f"wrote {', '.join(str(out / name) for name in texts)}")
    if service.secrets:
        print(f"first:  export {' '.join(service.secrets)}")
    print(f"then:   cd {out} && docker compose up -d    # http://localhost:{port}")


def composed(service: Service) -> Tree:
    """Return the Compose file."""
    volumes: Tree = {name: {} for name in ("feedback", "cache") if name == "feedback" or service.fetches}
    return {
        "services": {"proxy": proxy(), **{colour: server(colour, service) for colour in COLOURS}},
        "volumes": volumes,
    }


def proxy() -> Tree:
    """Return what stands before the two."""
    return {
        "image": f"${{PROXY_IMAGE:-{PROXY_IMAGE}}}",
        "ports": [f"${{PORT:-{PORT}}}:{PORT}"],
        "volumes": [f"./{PROXY}:/usr/local/etc/haproxy/{PROXY}:ro"],
        **LOCKED_DOWN,
        "restart": "unless-stopped",
    }


def server(colour: str, service: Service) -> Tree:
    """Return one of the two, which is started when its profile is asked for."""
    places = {"feedback": FEEDBACK} | ({"cache": CACHE} if service.fetches else {})
    return {
        "image": f"${{{colour.upper()}}}",
        "profiles": [colour],
        "environment": {name: value.replace("$", "$$") for name, value in service.environment.items()}
        | dict.fromkeys(service.secrets),  # which have no value here, and are handed on
        "volumes": [f"{volume}:{place}" for volume, place in places.items()],
        "mem_limit": f"{service.mebibytes}m",
        "cpus": service.cpus,
        "pids_limit": MOST_PROCESSES,
        **LOCKED_DOWN,
        "stop_grace_period": f"{service.grace}s",
        "restart": "unless-stopped",
    }
