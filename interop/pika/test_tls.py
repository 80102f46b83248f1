"""Publish and consume over TLS: AMQPS_URL is the address, AMQPS_CA the file of the authority that signed it."""

import os
import ssl

import pika
import pytest

from support import Inbox, publish

URL, CA = os.environ.get("AMQPS_URL"), os.environ.get("AMQPS_CA")

pytestmark = pytest.mark.skipif(not (URL and CA), reason="AMQPS_URL and AMQPS_CA are not set: TLS is not tested")


def parameters(context):
    result = pika.URLParameters(URL)
    result.ssl_options = pika.SSLOptions(context, result.host)
    return result


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_messages_travel_over_tls(version):
    context = ssl.create_default_context(cafile=CA)
    context.minimum_version = context.maximum_version = version
    with pika.BlockingConnection(parameters(context)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        queue = channel.queue_declare("", exclusive=True).method.queue
        inbox = Inbox(channel, queue, auto_ack=True)
        bodies = [b"small", os.urandom(1024 * 1024), b""]
        for body in bodies:
            publish(channel, "", queue, body)
        inbox.wait(3)
        assert inbox.bodies == bodies


def test_a_certificate_of_a_stranger_is_not_trusted():
    """The control: without our authority the same certificate is refused, so the test above did verify it."""
    with pytest.raises((pika.exceptions.AMQPError, ssl.SSLError)):
        pika.BlockingConnection(parameters(ssl.create_default_context()))
