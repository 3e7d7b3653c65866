"""A real Kafka broker (KRaft, one node), started from the jars of Apache Kafka.

The jars: `mvn dependency:copy-dependencies -DoutputDirectory=DIR` with `org.apache.kafka:kafka_2.13` (and
`org.slf4j:slf4j-simple`, to see its log) as dependencies; 3.9 runs on Java 17.
"""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from uuid import uuid4

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.contract.pki import Pki, make_pki
from tests.contract.ports import free_ports
from tests.support.receiver_cache import place

VARIABLE = "EVENT_HANDLER_KAFKA"
CACHE = place("kafka")
START = 60.0  # seconds that a broker may take to start
USER, PASSWORD = "alice", "a-secret-password"
LOGIN = "org.apache.kafka.common.security"
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{plain},SASL_SSL://localhost:{secure},MUTUAL://localhost:{mutual},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,MUTUAL:SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={directory}/data
num.partitions=4
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
ssl.keystore.type=PEM
ssl.keystore.location={directory}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={ca}
listener.name.mutual.ssl.client.auth=required
listener.name.sasl_ssl.ssl.client.auth=none
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config={login}.plain.PlainLoginModule required user_{user}="{password}";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={login}.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={login}.scram.ScramLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config={login}.oauthbearer.OAuthBearerLoginModule required \
  unsecuredLoginStringClaim_sub="broker";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=true
"""


def jars() -> str:
    """The directory of Kafka's jars, "" where there is none."""
    return os.environ.get(VARIABLE, "") or (str(CACHE) if list(CACHE.glob("kafka_2.13-*.jar")) else "")


@dataclass(slots=True)
class Broker:
    """`plain` takes anybody, `secure` asks for SASL inside TLS, `mutual` for a client certificate."""

    command: list[str]
    log: Path
    pki: Pki
    plain: str
    secure: str
    mutual: str
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        until = monotonic() + START
        while monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(KafkaException):
                AdminClient({"bootstrap.servers": self.plain, "log_level": 0}).list_topics(timeout=1)
                return
            sleep(0.2)
        raise RuntimeError(f"the broker did not start: {self.log.read_text(errors='replace')[-2000:]}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def create(self, topic: str, **config: str) -> str:
        admin = AdminClient({"bootstrap.servers": self.plain})
        for future in admin.create_topics([NewTopic(topic, 4, 1, config=config)]).values():
            future.result(START)
        return topic


@contextlib.contextmanager
def running(jars: str, scratch: Path) -> Iterator[Broker]:
    plain, secure, mutual, controller = free_ports(4)
    pki = make_pki(scratch, "kafka")
    key, certificate = pki.issue("localhost")
    (scratch / "server.pem").write_bytes(key + certificate)
    settings = scratch / "server.properties"
    settings.write_text(
        PROPERTIES.format(
            plain=plain,
            secure=secure,
            mutual=mutual,
            controller=controller,
            directory=scratch,
            ca=pki.path("ca.crt"),
            login=LOGIN,
            user=USER,
            password=PASSWORD,
        )
    )
    classes = f"{Path(jars) / 'lib' if (Path(jars) / 'lib').is_dir() else Path(jars)}/*"
    java = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", classes]
    scram = [
        part
        for kind in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        for part in ("--add-scram", f"{kind}=[name={USER},password={PASSWORD}]")
    ]
    cluster = base64.urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
    form = [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(settings), *scram]
    subprocess.run(form, check=True, capture_output=True, timeout=START)
    broker = Broker(
        [*java, "kafka.Kafka", str(settings)],
        scratch / "broker.log",
        pki,
        f"127.0.0.1:{plain}",
        f"localhost:{secure}",
        f"localhost:{mutual}",
    )
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()
