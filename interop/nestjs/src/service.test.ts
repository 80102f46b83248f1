// `send` and `emit` through a queue with a TTL, a limit and a dead-letter exchange.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { after, before, test } from 'node:test';

import { ClientProxy, ClientProxyFactory, RmqOptions, RmqRecordBuilder } from '@nestjs/microservices';
import * as amqp from 'amqplib';
import { firstValueFrom, lastValueFrom, timeout, toArray } from 'rxjs';

import { options, seen, start, URL } from './service';

// What has not come by then does not come.
const DEADLINE_MS = 15_000;

const prefix = `interop.nestjs.${randomUUID().slice(0, 12)}`;
const [queue, rest, topic] = ['orders', 'rest', 'topic'].map((word) => `${prefix}.${word}`);

type Service = Awaited<ReturnType<typeof start>>;
let connection: amqp.ChannelModel;
let channel: amqp.Channel;
let service: Service;
let client: ClientProxy;

/** The arguments of the next event of the service. */
function handled(event: string): Promise<unknown[]> {
  return once(seen, event, { signal: AbortSignal.timeout(DEADLINE_MS) });
}

/** Client and service agree on the same options, those of the service apart. */
function clientFor(configuration: RmqOptions): ClientProxy {
  return ClientProxyFactory.create({
    ...configuration,
    options: { ...configuration.options, noAck: true },
  } as RmqOptions);
}

before(async () => {
  connection = await amqp.connect(URL);
  channel = await connection.createChannel();
  await channel.assertExchange(rest, 'fanout', { durable: true });
  await channel.assertQueue(rest, { durable: true });
  await channel.bindQueue(rest, rest, '');
  service = await start(options(queue, rest));
  client = clientFor(options(queue, rest));
  await client.connect();
});

after(async () => {
  await client.close();
  await service.close();
  for (const name of [queue, rest, topic]) {
    await channel.deleteQueue(name);
    await channel.deleteExchange(name);
  }
  await connection.close();
});

const ask = <T>(pattern: unknown, payload: unknown) =>
  client.send<T>(pattern, payload).pipe(timeout(DEADLINE_MS));

test('send brings an answer', async () => {
  assert.equal(await firstValueFrom(ask({ cmd: 'sum' }, [1, 2, 3])), 6);
});

test('send brings as many answers as there are', async () => {
  assert.deepEqual(await lastValueFrom(ask('count', 5).pipe(toArray())), [1, 2, 3, 4, 5]);
});

test('many questions at once find their answers', async () => {
  const answers = await Promise.all(
    Array.from({ length: 300 }, (_, number) => firstValueFrom(ask({ cmd: 'sum' }, [number, 1]))),
  );
  assert.deepEqual(answers, Array.from({ length: 300 }, (_, number) => number + 1));
});

test('an error reaches the one who asks', async () => {
  await assert.rejects(firstValueFrom(ask('fail', 'on purpose')), (error: { message: string }) => {
    assert.match(JSON.stringify(error) + error.message, /on purpose/);
    return true;
  });
});

test('headers, priority and content type arrive', async () => {
  const record = new RmqRecordBuilder({})
    .setOptions({ headers: { 'x-version': '1.0.0' }, priority: 3, contentType: 'application/json' })
    .build();
  assert.deepEqual(await firstValueFrom(ask('properties', record)), {
    headers: { 'x-version': '1.0.0' },
    priority: 3,
    contentType: 'application/json',
  });
});

test('a large payload arrives', async () => {
  const numbers = Array.from({ length: 200_000 }, () => 1);
  assert.equal(await firstValueFrom(ask({ cmd: 'sum' }, numbers)), 200_000);
});

test('emit reaches the handler', async () => {
  const created = handled('created');
  await lastValueFrom(client.emit('order.created', { id: 7 }), { defaultValue: undefined });
  assert.deepEqual(await created, [7]);
});

test('an event that is returned to the queue comes again', async () => {
  const retried = handled('retried');
  await lastValueFrom(client.emit('order.retried', { id: 8 }), { defaultValue: undefined });
  assert.deepEqual(await retried, [8]);
});

test('a refused event is dead-lettered', async () => {
  const arrived = new Promise<amqp.ConsumeMessage>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('no dead letter came in time')), DEADLINE_MS);
    channel.consume(rest, (message) => {
      clearTimeout(timer);
      resolve(message!);
    }, { noAck: true }).catch(reject);
  });
  await lastValueFrom(client.emit('order.refused', { id: 9 }), { defaultValue: undefined });
  const { content, properties } = await arrived;
  assert.deepEqual(JSON.parse(content.toString()), { pattern: 'order.refused', data: { id: 9 } });
  const [death] = properties.headers!['x-death']!;
  assert.deepEqual([death.queue, death.reason, death.count], [queue, 'rejected', 1]);
});

test('what is emitted while the service is away waits for it', async () => {
  await service.close();
  for (let id = 1; id <= 5; id++) {
    await lastValueFrom(client.emit('order.created', { id }), { defaultValue: undefined });
  }
  const ids: unknown[] = [];
  const all = new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`only ${ids} came in time`)), DEADLINE_MS);
    seen.on('created', function record(id) {
      if (ids.push(id) === 5) {
        clearTimeout(timer);
        seen.off('created', record);
        resolve();
      }
    });
  });
  service = await start(options(queue, rest));
  await all;
  assert.deepEqual(ids, [1, 2, 3, 4, 5]);
});

test('the queue has the arguments that were asked for', async () => {
  const other = await connection.createChannel();
  const refused = new Promise<Error>((resolve) => { other.once('error', resolve); });
  await assert.rejects(other.assertQueue(queue, { durable: true }));
  assert.match((await refused).message, /inequivalent arg 'x-/);
});

test('wildcards go through a topic exchange', async () => {
  const configuration = options(topic, rest);
  configuration.options = { ...configuration.options, exchange: topic, exchangeType: 'topic', wildcards: true };
  const listening = await start(configuration);
  const sending = clientFor(configuration);
  try {
    await sending.connect();
    const changed = handled('changed');
    await lastValueFrom(sending.emit('stock.apples.changed', 12), { defaultValue: undefined });
    assert.deepEqual(await changed, ['stock.apples.changed', 12]);
  } finally {
    await sending.close();
    await listening.close();
  }
});
