"""Images from Debian's packages in place of the vendors', for an engine that reaches no image registry.

They take the settings that docker-compose.yml gives to the vendors' images, and no others.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from ingest_pipeline_tests.servers.jar_cache import kafka_jars

NAMES = {name: f"ingest-stand-in/{name}:local" for name in ("python", "postgres", "kafka")}
_PACKAGES = {
    "python": "python3,python3-venv,ca-certificates,tini",
    "postgres": "postgresql",
    "kafka": "openjdk-17-jre-headless",
}
_SUITE = "bookworm"
_POSTGRES = """\
#!/bin/sh
set -eu
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH PGDATA=/var/lib/postgresql/data POSTGRES_USER=postgres
export PATH PGDATA POSTGRES_USER
if [ "$(id -u)" = 0 ]; then
    chown postgres: /var/lib/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printenv POSTGRES_PASSWORD >/tmp/password
    initdb --encoding=UTF8 --username=postgres --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl --wait --options='-c listen_addresses= -c unix_socket_directories=/tmp' start
    for file in /docker-entrypoint-initdb.d/*.sh; do PGHOST=/tmp sh "$file"; done
    pg_ctl --wait stop
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp
"""
_KAFKA = """\
#!/bin/bash
set -eu
printenv | sed -n 's/^KAFKA_//p' | while IFS='=' read -r name value; do
    name=${name,,}; echo "${name//_/.}=$value"
done >/tmp/server.properties
mkdir -p "$KAFKA_LOG_DIRS"
if [ ! -s "$KAFKA_LOG_DIRS/meta.properties" ]; then
    java -cp '/opt/kafka/libs/*' kafka.tools.StorageTool format --cluster-id=5L6g3nShT-eMCtK--X86sw \\
        -c /tmp/server.properties
fi
exec java -Xmx512m -XX:+UseSerialGC -cp '/opt/kafka/libs/*' kafka.Kafka /tmp/server.properties
"""
_KAFKA_ANSWERS = "#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/9092\n"


def build() -> None:
    """Build the images that the engine lacks. Needs root, debootstrap and Kafka's jars."""
    for name, image in NAMES.items():
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode != 0:
            print(f"building {image}", flush=True)
            _build(name, image)


def _build(name: str, image: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        _run("debootstrap", "--variant=minbase", f"--include={_PACKAGES[name]}", _SUITE, str(root))
        shutil.rmtree(root / "var/cache/apt")
        entry: list[str] = []
        if name == "postgres":
            entry = [_script(root / "entry.sh", _POSTGRES), "STOPSIGNAL SIGINT"]
        elif name == "kafka":
            shutil.copytree(kafka_jars(), root / "opt/kafka/libs")
            _script(root / "opt/kafka/bin/kafka-broker-api-versions.sh", _KAFKA_ANSWERS)
            entry = [_script(root / "entry.sh", _KAFKA)]
        archive = Path(folder) / "root.tar"
        _run("tar", "-C", str(root), "-cf", str(archive), ".")
        _run("docker", "import", str(archive), image)
        subprocess.run(
            ["docker", "build", "-q", "-t", image, "-"],
            input="\n".join([f"FROM {image}", *entry]),
            text=True,
            check=True,
            stdout=subprocess.DEVNULL,
        )


def _script(path: Path, text: str) -> str:
    """The line of a Dockerfile that runs the script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return f'ENTRYPOINT ["/{path.name}"]'


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed: {(done.stdout + done.stderr)[-2000:]}")
