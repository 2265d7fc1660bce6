"""Writes the manifests by which a Kubernetes cluster serves a model: Deployment, Service and HorizontalPodAutoscaler.

    tunesmith deploy kubernetes --image registry.example.org/chat:1 --model models/gguf/starter-m-Q8_0.gguf
    kubectl apply -f deploy/kubernetes/tunesmith.yaml

A pod of a new version takes its place once it is ready, and an old one leaves once its last answer is out. Whoever
routes hears of its end when it does itself, so it takes questions in for some seconds more (SERVE_LAMEDUCK). How many
there are follows from how many questions wait (docs/deploy.md says what a cluster needs for that).
"""

import re
from pathlib import Path

from common.errors import UserError
from pipeline.deployment.service import ALIVE, CACHE, FEEDBACK, PORT, READY, USER, Service, as_yaml, write_all

LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")  # of a Service, the strictest of the three
LONGEST_START = 600  # seconds: a large model has to be fetched
WAITING = "tunesmith_waiting"  # the server's metric: questions in its queue
MOST_WAITING = 2  # of them for each pod, on average, before there is another one
SLOW_TO_LEAVE = 300  # seconds of less work before there is one less
SAID = """\
To roll out: name the next image, then kubectl apply. Back: kubectl rollout undo deployment/{name}"""

Tree = dict[str, object]


def run(name: str, service: Service, least: int, most: int, out: Path, force: bool) -> None:
    """Write the manifests into one file.

    Args:
        name: of all that is made.
        service: the containers.
        least: pods there are always.
        most: pods there are at most.
        out: the folder.
        force: replace a file that is another one.

    Raises:
        UserError: the name or the numbers cannot be, or another file is there.
    """
    if not LABEL.fullmatch(name):
        raise UserError(f"--name {name} must be of small letters, digits and -, 63 at most, a letter first")
    if least > most:
        raise UserError(f"--least {least} is more than --most {most}")
    path = out / f"{name}.yaml"
    text = as_yaml(*manifests(name, service, least, most), said=SAID.format(name=name))
    write_all(out, {path.name: text}, force)
    print(f"wrote {path}")
    if service.secrets:
        print(
            f"first:  kubectl create secret generic {name} --from-env-file=FILE   # with {', '.join(service.secrets)}"
        )
    print(f"then:   kubectl apply -f {path} && kubectl rollout status deployment/{name}")
    print(f"back:   kubectl rollout undo deployment/{name}")


def manifests(name: str, service: Service, least: int, most: int) -> list[Tree]:
    """Return what a cluster is to have; pods of a fixed number have no autoscaler."""
    scales = most > least
    made = [deployment(name, service, None if scales else least), front(name)]
    return [*made, autoscaler(name, least, most)] if scales else made


def deployment(name: str, service: Service, replicas: int | None) -> Tree:
    """Return the Deployment; `replicas` is None where an autoscaler says how many."""
    spec: Tree = {} if replicas is None else {"replicas": replicas}
    spec |= {
        "selector": {"matchLabels": labels(name)},
        # One more before there is one less; a version that does not get ready takes nobody's place.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "progressDeadlineSeconds": LONGEST_START + 60,
        "template": {
            "metadata": {
                "labels": labels(name),
                "annotations": {
                    "prometheus.io/scrape": "true",
                    "prometheus.io/port": str(PORT),
                    "prometheus.io/path": "/metrics",
                },
            },
            "spec": pod(name, service),
        },
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(name), "spec": spec}


def pod(name: str, service: Service) -> Tree:
    """Return what is in a pod, and what it may do: nothing that a server does not need."""
    places = {"feedback": FEEDBACK} if "SERVE_FEEDBACK_REPO" in service.environment else {}
    places |= {"cache": CACHE} if service.fetches else {}
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # whose variables begin with SERVE_ where a Service is called serve
        "terminationGracePeriodSeconds": service.grace,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "serve",
                "image": service.image,
                "ports": [{"name": "http", "containerPort": PORT}],
                "env": environment(name, service),
                "resources": {
                    "requests": {"cpu": str(service.cpus), "memory": f"{service.mebibytes}Mi"},
                    "limits": {"cpu": str(service.cpus), "memory": f"{service.mebibytes}Mi"},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "startupProbe": asked(READY, every=1, failures=LONGEST_START),
                "readinessProbe": asked(READY, every=2, failures=1),
                "livenessProbe": asked(ALIVE, every=10, failures=6),
                "volumeMounts": [{"name": volume, "mountPath": place} for volume, place in places.items()],
            }
        ],
        "volumes": [{"name": volume, "emptyDir": {}} for volume in places],
    }


def environment(name: str, service: Service) -> list[Tree]:
    """Return the variables of a container; visitors are not asked for what would go with the pod."""
    kept = {} if "SERVE_FEEDBACK_REPO" in service.environment else {"SERVE_FEEDBACK": "off"}
    plain = kept | dict(service.environment)
    secret: list[Tree] = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": variable}}}
        for variable in service.secrets
    ]
    given: list[Tree] = [{"name": variable, "value": value} for variable, value in plain.items()]
    return [*given, *secret]


def asked(path: str, every: int, failures: int) -> Tree:
    """Return a probe that asks a path every so many seconds, and gives up after so many failures."""
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": every,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def front(name: str) -> Tree:
    """Return the Service: a visitor stays with a pod, since the page's stream and its clicks belong together."""
    spec = {
        "selector": labels(name),
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        "sessionAffinity": "ClientIP",
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata(name), "spec": spec}


def autoscaler(name: str, least: int, most: int) -> Tree:
    """Return what makes more pods where questions wait, and fewer where long none did."""
    waiting = {"metric": {"name": WAITING}, "target": {"type": "AverageValue", "averageValue": str(MOST_WAITING)}}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": least,
        "maxReplicas": most,
        "metrics": [{"type": "Pods", "pods": waiting}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": SLOW_TO_LEAVE}},
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(name),
        "spec": spec,
    }


def metadata(name: str) -> Tree:
    """Return by what a thing is known."""
    return {"name": name, "labels": labels(name)}


def labels(name: str) -> Tree:
    """Return what all that belongs together is marked with."""
    return {"app.kubernetes.io/name": name}
