// What users of amqplib do, and the errors they match on.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';

import amqp from 'amqplib';

import { closed, Inbox, openChannel, refused, soon, unique, URL, withChannel, withConnection } from './support.js';

const exclusive = { exclusive: true };

test('a wrong password is refused with 403', async () => {
  await assert.rejects(
    soon(amqp.connect(URL.replace('guest:guest@', 'guest:wrong@'))),
    /403 \(ACCESS[_-]REFUSED\).*Login was refused using authentication mechanism PLAIN/,
  );
});

test('a missing vhost is refused', async () => {
  const address = `${URL.slice(0, URL.lastIndexOf('/'))}/no-such-vhost`;
  // amqplib 2 does not show the text, only that the broker closes instead of opening.
  await assert.rejects(soon(amqp.connect(address)), /ConnectionClose|no-such-vhost not found/);
});

test('the server introduces itself', () => withConnection(async (connection) => {
  const { product, version, capabilities } = connection.connection.serverProperties;
  assert.equal(product, 'RabbitMQ');
  assert.match(version, /^4\.[3-9]/);
  for (const capability of ['publisher_confirms', 'basic.nack', 'connection.blocked', 'consumer_cancel_notify']) {
    assert.equal(capabilities[capability], true, capability);
  }
}));

test('publish, consume, acknowledge', () => withChannel(async (channel) => {
  const { queue } = await channel.assertQueue('', exclusive);
  const inbox = await Inbox.open(channel, queue);
  for (let number = 0; number < 100; number++) channel.sendToQueue(queue, Buffer.from(String(number)));
  await inbox.wait(100);
  inbox.messages.forEach((message, number) => {
    assert.equal(message.content.toString(), String(number));
    assert.deepEqual(message.fields, {
      consumerTag: inbox.tag, deliveryTag: number + 1, redelivered: false, exchange: '', routingKey: queue,
    });
    channel.ack(message);
  });
  assert.deepEqual(await channel.checkQueue(queue), { queue, messageCount: 0, consumerCount: 1 });
}));

test('every property and header arrives', () => withChannel(async (channel) => {
  const { queue } = await channel.assertQueue('', exclusive);
  const options = {
    contentType: 'text/plain', contentEncoding: 'utf-8', deliveryMode: 2, priority: 3, correlationId: 'c',
    replyTo: 'r', expiration: '60000', messageId: 'm', timestamp: 1700000000, type: 't', userId: 'guest', appId: 'a',
    headers: {
      text: 'grüße', integer: 5, negative: -5, big: 2 ** 40, float: 1.5, yes: true, no: false, nothing: null,
      list: [1, 'two', [3]], table: { inner: { deep: 1 } }, bytes: Buffer.from([0, 255]), empty: {},
    },
  };
  channel.sendToQueue(queue, Buffer.from('body'), options);
  const message = await channel.get(queue, { noAck: true });
  for (const [name, value] of Object.entries(options)) assert.deepEqual(message.properties[name], value, name);
}));

for (const size of [0, 1, 131_064, 131_065, 5 * 1024 * 1024]) {
  test(`a body of ${size} octets arrives`, () => withChannel(async (channel) => {
    const { queue } = await channel.assertQueue('', exclusive);
    const body = Buffer.alloc(size, 'leveret');
    const inbox = await Inbox.open(channel, queue, { noAck: true });
    channel.sendToQueue(queue, body);
    const [message] = await inbox.wait(1);
    assert.ok(message.content.equals(body));
  }));
}

test('a missing queue costs only the channel', () => withConnection(async (connection) => {
  for (let round = 0; round < 3; round++) {
    const channel = await openChannel(connection);
    await refused(channel, 404, "NOT_FOUND - no queue 'no-such-queue' in vhost '/'", () =>
      channel.checkQueue('no-such-queue'));
  }
  await (await openChannel(connection)).assertQueue('', exclusive);
}));

test('publishing to a missing exchange costs the channel', () => withChannel(async (channel) => {
  const end = closed(channel);
  channel.publish('no-such-exchange', 'key', Buffer.from('x'));
  await end;
  assert.equal(channel.errors[0].code, 404);
  assert.match(channel.errors[0].message, /NOT_FOUND - no exchange 'no-such-exchange' in vhost '\/'/);
}));

test('asserting a queue differently is 406', () => withChannel(async (channel) => {
  const queue = unique('ttl');
  await channel.assertQueue(queue, { ...exclusive, messageTtl: 10000 });
  await channel.assertQueue(queue, { ...exclusive, messageTtl: 10000 });
  const text = `PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '${queue}' in vhost '/': `
    + "received '20000' but current is '10000'";
  await refused(channel, 406, text, () => channel.assertQueue(queue, { ...exclusive, messageTtl: 20000 }));
}));

test('asserting an exchange differently is 406', () => withConnection(async (connection) => {
  const [channel, cleaning] = [await openChannel(connection), await openChannel(connection)];
  const exchange = unique('exchange');
  await channel.assertExchange(exchange, 'topic', { durable: false });
  const text = `PRECONDITION_FAILED - inequivalent arg 'durable' for exchange '${exchange}' in vhost '/': `
    + "received 'true' but current is 'false'";
  await refused(channel, 406, text, () => channel.assertExchange(exchange, 'topic', { durable: true }));
  await cleaning.deleteExchange(exchange);
}));

test('an unknown delivery tag is 406', () => withChannel(async (channel) => {
  const end = closed(channel);
  channel.ack({ fields: { deliveryTag: 82 } });
  await end;
  assert.equal(channel.errors[0].code, 406);
  assert.match(channel.errors[0].message, /PRECONDITION_FAILED - unknown delivery tag 82/);
}));

test('a used consumer tag costs the connection', () => withConnection(async (connection) => {
  const channel = await openChannel(connection);
  const { queue } = await channel.assertQueue('', exclusive);
  const failed = once(connection, 'error');
  await channel.consume(queue, () => {}, { consumerTag: 'twice' });
  const second = channel.consume(queue, () => {}, { consumerTag: 'twice' });
  await assert.rejects(soon(second));
  const [error] = await soon(failed);
  assert.equal(error.code, 530);
  assert.match(error.message, /NOT_ALLOWED - attempt to reuse consumer tag 'twice'/);
}));

test('confirms', () => withChannel(async (channel) => {
  const { queue } = await channel.assertQueue('', exclusive);
  let confirmed = 0;
  for (let number = 0; number < 1000; number++) {
    channel.sendToQueue(queue, Buffer.from('x'), { persistent: true }, (error) => {
      assert.equal(error, null);
      confirmed += 1;
    });
  }
  await soon(channel.waitForConfirms());
  assert.equal(confirmed, 1000);
  assert.equal((await channel.checkQueue(queue)).messageCount, 1000);
}, 'createConfirmChannel'));

test('a full queue refuses with a nack', () => withChannel(async (channel) => {
  const { queue } = await channel.assertQueue('', { ...exclusive, maxLength: 1, overflow: 'reject-publish' });
  const send = () => new Promise((resolve) => {
    channel.sendToQueue(queue, Buffer.from('x'), {}, (error) => resolve(error === null));
  });
  assert.deepEqual([await soon(send()), await soon(send()), await soon(send())], [true, false, false]);
}, 'createConfirmChannel'));

test('a mandatory message comes back before its confirm', () => withChannel(async (channel) => {
  const events = [];
  channel.on('return', (message) => events.push(message));
  await soon(new Promise((resolve) => {
    channel.publish('', 'no-such-queue', Buffer.from('back'), { mandatory: true }, () => {
      events.push('confirmed');
      resolve();
    });
  }));
  const [returned, confirmed] = events;
  assert.equal(confirmed, 'confirmed');
  assert.deepEqual(returned.fields, {
    replyCode: 312, replyText: 'NO_ROUTE', exchange: '', routingKey: 'no-such-queue',
  });
  assert.equal(returned.content.toString(), 'back');
}, 'createConfirmChannel'));

test('prefetch paces a consumer', () => withChannel(async (channel) => {
  const { queue } = await channel.assertQueue('', exclusive);
  await channel.prefetch(2);
  for (let number = 0; number < 6; number++) channel.sendToQueue(queue, Buffer.from(String(number)));
  const inbox = await Inbox.open(channel, queue);
  for (const [arrived, left] of [[2, 4], [4, 2], [6, 0]]) {
    await inbox.wait(arrived);
    assert.equal((await channel.checkQueue(queue)).messageCount, left);
    assert.equal(inbox.messages.length, arrived);
    channel.ackAll();
  }
}));

test('requeued messages return to their places', () => withChannel(async (channel) => {
  const { queue } = await channel.assertQueue('', exclusive);
  for (let number = 0; number < 4; number++) channel.sendToQueue(queue, Buffer.from(String(number)));
  const taken = [await channel.get(queue), await channel.get(queue), await channel.get(queue)];
  channel.nack(taken[1]);
  channel.reject(taken[0]);
  channel.nack(taken[2]);
  const inbox = await Inbox.open(channel, queue);
  await inbox.wait(4);
  assert.deepEqual(inbox.bodies, ['0', '1', '2', '3']);
  assert.deepEqual(inbox.messages.map((message) => message.fields.redelivered), [true, true, true, false]);
}));

test('recover redelivers', () => withChannel(async (channel) => {
  const { queue } = await channel.assertQueue('', exclusive);
  const inbox = await Inbox.open(channel, queue);
  channel.sendToQueue(queue, Buffer.from('again'));
  await inbox.wait(1);
  await channel.recover();
  await inbox.wait(2);
  assert.equal(inbox.messages[1].fields.redelivered, true);
}));

test('a consumer is told when its queue is deleted', () => withConnection(async (connection) => {
  const [consuming, deleting] = [await openChannel(connection), await openChannel(connection)];
  const { queue } = await consuming.assertQueue('', exclusive);
  const inbox = await Inbox.open(consuming, queue);
  await deleting.deleteQueue(queue);
  assert.deepEqual(await inbox.wait(1), [null]);
}));

test('exchanges of every type, bound to each other', () => withChannel(async (channel, connection) => {
  const { queue } = await channel.assertQueue('', exclusive);
  const types = {
    direct: ['key', {}, 'key', {}],
    fanout: ['', {}, 'any', {}],
    topic: ['a.*.#', {}, 'a.b.c', {}],
    headers: ['', { 'x-match': 'any', one: 1, two: 'zwei' }, '', { headers: { two: 'zwei' } }],
  };
  for (const [type, [pattern, args, key, options]] of Object.entries(types)) {
    const [front, back] = [unique(type), unique(`${type}-back`)];
    await channel.assertExchange(front, type, { autoDelete: true });
    await channel.assertExchange(back, 'fanout', { autoDelete: true });
    await channel.bindExchange(back, front, pattern, args);
    await channel.bindQueue(queue, back, '');
    channel.publish(front, key, Buffer.from(type), options);
    assert.equal((await channel.get(queue, { noAck: true })).content.toString(), type);
    await channel.unbindQueue(queue, back, '');
    await refused(await openChannel(connection), 404, `NOT_FOUND - no exchange '${front}' in vhost '/'`, (it) =>
      it.checkExchange(front));
  }
}));

test('the alternate exchange takes what finds no queue', () => withChannel(async (channel) => {
  const { queue } = await channel.assertQueue('', exclusive);
  const [front, rest] = [unique('front'), unique('rest')];
  await channel.assertExchange(rest, 'fanout', { durable: false });
  await channel.assertExchange(front, 'direct', { durable: false, alternateExchange: rest });
  await channel.bindQueue(queue, rest, '');
  channel.publish(front, 'nobody', Buffer.from('found'));
  assert.equal((await channel.get(queue, { noAck: true })).content.toString(), 'found');
  await channel.deleteExchange(front);
  await channel.deleteExchange(rest);
}));

test('a dead letter tells where it comes from', () => withChannel(async (channel) => {
  const { queue: rest } = await channel.assertQueue('', exclusive);
  const { queue } = await channel.assertQueue('', {
    ...exclusive, messageTtl: 60000, deadLetterExchange: '', deadLetterRoutingKey: rest,
  });
  const inbox = await Inbox.open(channel, rest, { noAck: true });
  channel.sendToQueue(queue, Buffer.from('dies'), { expiration: 50, headers: { mine: 1 } });
  const [{ properties: { headers, expiration } }] = await inbox.wait(1);
  assert.equal(expiration, undefined);
  const { time, ...death } = headers['x-death'][0];
  assert.equal(time['!'], 'timestamp');
  assert.ok(Math.abs(time.value - Date.now() / 1000) < 5);
  assert.deepEqual(death, {
    count: 1, reason: 'expired', queue, exchange: '', 'routing-keys': [queue], 'original-expiration': '50',
  });
  assert.deepEqual(
    [headers.mine, headers['x-first-death-queue'], headers['x-last-death-reason']],
    [1, queue, 'expired'],
  );
}));

test('questions are answered through direct reply-to', () => withConnection(async (connection) => {
  const [asking, answering] = [await openChannel(connection), await openChannel(connection)];
  const { queue } = await answering.assertQueue('', exclusive);
  await answering.consume(queue, (message) => {
    const { replyTo, correlationId } = message.properties;
    answering.sendToQueue(replyTo, Buffer.from(`${message.content}!`), { correlationId });
    answering.ack(message);
  });
  const replies = await Inbox.open(asking, 'amq.rabbitmq.reply-to', { noAck: true });
  for (let number = 0; number < 20; number++) {
    asking.sendToQueue(queue, Buffer.from(String(number)), {
      replyTo: 'amq.rabbitmq.reply-to', correlationId: String(number),
    });
  }
  await replies.wait(20);
  assert.deepEqual(
    replies.messages.map(({ properties, content }) => [properties.correlationId, content.toString()]),
    Array.from({ length: 20 }, (_, number) => [String(number), `${number}!`]),
  );
}));

test('purge, get, delete and their counts', () => withChannel(async (channel) => {
  const { queue } = await channel.assertQueue('', exclusive);
  assert.equal(await channel.get(queue), false);
  for (let number = 0; number < 5; number++) channel.sendToQueue(queue, Buffer.from(String(number)));
  assert.equal((await channel.get(queue, { noAck: true })).fields.messageCount, 4);
  assert.deepEqual(await channel.purgeQueue(queue), { messageCount: 4 });
  channel.sendToQueue(queue, Buffer.from('last'));
  assert.deepEqual(await channel.deleteQueue(queue), { messageCount: 1 });
  assert.deepEqual(await channel.deleteQueue(queue), { messageCount: 0 });
}));

test('heartbeats keep an idle connection open', async () => {
  const connection = await soon(amqp.connect(`${URL}?heartbeat=1`));
  const failed = once(connection, 'error');
  const idle = new Promise((resolve) => setTimeout(resolve, 3500));
  await Promise.race([idle, failed.then(([error]) => { throw error; })]);
  const channel = await connection.createChannel();
  await channel.assertQueue('', exclusive);
  await connection.close();
});
