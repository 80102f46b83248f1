// A NestJS microservice as people write them: commands, events, manual acknowledgements, wildcards.

import 'reflect-metadata';

import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import {
  Ctx, EventPattern, MessagePattern, Payload, RmqContext, RmqOptions, RpcException, Transport,
} from '@nestjs/microservices';
import { EventEmitter } from 'node:events';
import { from, Observable } from 'rxjs';

export const URL = process.env.AMQP_URL ?? 'amqp://guest:guest@127.0.0.1:5672/%2F';

/** What the handlers have seen, for the tests to wait for. */
export const seen = new EventEmitter();

function acknowledge(context: RmqContext): void {
  context.getChannelRef().ack(context.getMessage());
}

@Controller()
class OrdersController {
  @MessagePattern({ cmd: 'sum' })
  sum(@Payload() numbers: number[], @Ctx() context: RmqContext): number {
    acknowledge(context);
    return numbers.reduce((sum, number) => sum + number, 0);
  }

  @MessagePattern('count')
  count(@Payload() upTo: number, @Ctx() context: RmqContext): Observable<number> {
    acknowledge(context);
    return from(Array.from({ length: upTo }, (_, number) => number + 1));
  }

  @MessagePattern('fail')
  fail(@Payload() text: string, @Ctx() context: RmqContext): never {
    acknowledge(context);
    throw new RpcException(text);
  }

  @MessagePattern('properties')
  properties(@Ctx() context: RmqContext): object {
    acknowledge(context);
    const { headers, priority, contentType } = context.getMessage().properties;
    return { headers, priority, contentType };
  }

  @EventPattern('order.created')
  created(@Payload() order: { id: number }, @Ctx() context: RmqContext): void {
    acknowledge(context);
    seen.emit('created', order.id);
  }

  @EventPattern('order.refused')
  refused(@Ctx() context: RmqContext): void {
    context.getChannelRef().nack(context.getMessage(), false, false);
  }

  /** The first time it is returned to the queue, the second time it is accepted. */
  @EventPattern('order.retried')
  retried(@Payload() order: { id: number }, @Ctx() context: RmqContext): void {
    const message = context.getMessage();
    if (message.fields.redelivered) {
      acknowledge(context);
      seen.emit('retried', order.id);
    } else {
      context.getChannelRef().nack(message, false, true);
    }
  }

  @EventPattern('stock.*.changed')
  changed(@Payload() amount: number, @Ctx() context: RmqContext): void {
    acknowledge(context);
    seen.emit('changed', context.getPattern(), amount);
  }
}

@Module({ controllers: [OrdersController] })
class OrdersModule {}

/** The options that service and client share; both assert the queue with them. */
export function options(queue: string, deadLetterExchange: string): RmqOptions {
  return {
    transport: Transport.RMQ,
    options: {
      urls: [URL],
      queue,
      noAck: false,
      prefetchCount: 10,
      persistent: true,
      queueOptions: {
        durable: true,
        arguments: {
          'x-message-ttl': 60000,
          'x-max-length': 10000,
          'x-dead-letter-exchange': deadLetterExchange,
        },
      },
    },
  };
}

/** Starts the service; it listens when the promise resolves. */
export async function start(configuration: RmqOptions) {
  const service = await NestFactory.createMicroservice(OrdersModule, { ...configuration, logger: ['error', 'fatal'] });
  await service.listen();
  return service;
}
