// Publish and consume over TLS: AMQPS_URL is the address, AMQPS_CA the file of the authority that signed it.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import amqp from 'amqplib';

import { Inbox, soon } from './support.js';

const { AMQPS_URL, AMQPS_CA } = process.env;
const skip = AMQPS_URL && AMQPS_CA ? false : 'AMQPS_URL and AMQPS_CA are not set: TLS is not tested';

for (const version of ['TLSv1.2', 'TLSv1.3']) {
  test(`messages travel over ${version}`, { skip }, async () => {
    const options = { ca: [readFileSync(AMQPS_CA)], minVersion: version, maxVersion: version };
    const connection = await soon(amqp.connect(AMQPS_URL, options));
    const channel = await connection.createConfirmChannel();
    const { queue } = await channel.assertQueue('', { exclusive: true });
    const inbox = await Inbox.open(channel, queue, { noAck: true });
    const bodies = [Buffer.from('small'), Buffer.alloc(1024 * 1024, 'large'), Buffer.alloc(0)];
    for (const body of bodies) channel.sendToQueue(queue, body);
    await inbox.wait(3);
    inbox.messages.forEach(({ content }, number) => assert.ok(content.equals(bodies[number])));
    await connection.close();
  });
}

test('a certificate of a stranger is not trusted', { skip }, async () => {
  await assert.rejects(soon(amqp.connect(AMQPS_URL)), /certificate/);
});
