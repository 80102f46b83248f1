// What the tests share: where the broker is, names, waits with a deadline.

import { randomUUID } from 'node:crypto';
import assert from 'node:assert/strict';

import amqp from 'amqplib';

export const URL = process.env.AMQP_URL ?? 'amqp://guest:guest@127.0.0.1:5672/%2F';

// What has not come by then does not come.
const DEADLINE_MS = 15_000;

/** A name that nobody else uses. */
export const unique = (word) => `interop.amqplib.${randomUUID().slice(0, 12)}.${word}`;

/** Waits for a promise, but not for ever. */
export async function soon(promise, what = 'what was waited for') {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come in time`)), DEADLINE_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Runs a test with a connection of its own, which is closed at the end. */
export async function withConnection(test) {
  const connection = await soon(amqp.connect(URL));
  // amqplib emits the error that costs the connection; without a listener it would end the process.
  connection.on('error', () => {});
  let open = true;
  connection.once('close', () => { open = false; });
  try {
    await test(connection);
  } finally {
    if (open) await soon(connection.close());
  }
}

/** The same with a channel. Its error events are kept in `channel.errors`. */
export async function withChannel(test, kind = 'createChannel') {
  await withConnection(async (connection) => test(await openChannel(connection, kind), connection));
}

export async function openChannel(connection, kind = 'createChannel') {
  const channel = await soon(connection[kind]());
  channel.errors = [];
  channel.on('error', (error) => channel.errors.push(error));
  return channel;
}

/** The close of a channel. Not `events.once`, which fails at the error that comes before. */
export const closed = (channel) =>
  soon(new Promise((resolve) => { channel.once('close', resolve); }), 'the close of the channel');

/** The operation costs the channel, with this code and text. */
export async function refused(channel, code, text, operation) {
  const end = closed(channel);
  await assert.rejects(soon(operation(channel)), (error) => error.message.includes(text));
  await end;
  const [error] = channel.errors;
  assert.equal(error.code, code);
  assert.ok(error.message.endsWith(`with message "${text}"`), error.message);
}

/** Consumes, and lets the test wait for the messages. */
export class Inbox {
  static async open(channel, queue, options) {
    const inbox = new Inbox();
    const { consumerTag } = await soon(channel.consume(queue, (message) => inbox.#arrived(message), options));
    inbox.tag = consumerTag;
    return inbox;
  }

  messages = [];
  #waiting = [];

  #arrived(message) {
    this.messages.push(message);
    this.#waiting = this.#waiting.filter(({ count, resolve }) => {
      if (this.messages.length < count) return true;
      resolve();
      return false;
    });
  }

  /** Waits until `count` messages are here; a message of `null` is a cancellation by the server. */
  async wait(count) {
    if (this.messages.length < count) {
      await soon(new Promise((resolve) => this.#waiting.push({ count, resolve })), `message ${count}`);
    }
    return this.messages;
  }

  get bodies() {
    return this.messages.map((message) => message.content.toString());
  }
}
