<?php
// What programs do with php-amqplib. Prints TAP, and the counts that interop/run adds up.

declare(strict_types=1);

require_once 'PhpAmqpLib/autoload.php';

use PhpAmqpLib\Channel\AMQPChannel;
use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Exception\AMQPProtocolChannelException;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPTable;

// What has not come by then does not come.
const DEADLINE_S = 15;

$url = parse_url(getenv('AMQP_URL') ?: 'amqp://guest:guest@127.0.0.1:5672/%2F');

function connect(string $vhost = null): AMQPStreamConnection
{
    global $url;
    $vhost ??= urldecode(substr($url['path'] ?? '/%2F', 1));
    return new AMQPStreamConnection($url['host'], $url['port'], $url['user'], $url['pass'], $vhost, read_write_timeout: DEADLINE_S);
}

function same($expected, $actual, string $what = ''): void
{
    if ($expected !== $actual) {
        throw new Exception("$what: expected " . var_export($expected, true) . ', got ' . var_export($actual, true));
    }
}

/** The reply code and text with which the channel is closed. */
function refusal(callable $work): array
{
    try {
        $work();
    } catch (AMQPProtocolChannelException $e) {
        return [$e->getCode(), $e->getMessage()];
    }
    throw new Exception('nothing was refused');
}

function name(): string
{
    return 'interop.php.' . bin2hex(random_bytes(6));
}

/** An exclusive queue. */
function queue(AMQPChannel $channel, array $arguments = []): string
{
    $name = name();
    $channel->queue_declare($name, false, true, true, false, false, new AMQPTable($arguments));
    return $name;
}

/** So many messages, pushed to a consumer. */
function receive(AMQPChannel $channel, string $queue, int $count, bool $no_ack = true): array
{
    $messages = [];
    $take = function (AMQPMessage $m) use (&$messages) {
        $messages[] = $m;
    };
    $tag = $channel->basic_consume($queue, '', false, $no_ack, false, false, $take);
    while (count($messages) < $count) {
        $channel->wait(null, false, DEADLINE_S);
    }
    $channel->basic_cancel($tag);
    return $messages;
}

$tests = [];

$tests['properties and headers of all types'] = function (AMQPChannel $channel) {
    $queue = queue($channel);
    $headers = ['text' => 'ä', 'int' => 7, 'big' => 1 << 40, 'negative' => -3, 'yes' => true, 'no' => false, 'null' => null, 'table' => ['deep' => ['er' => 1]], 'list' => [1, 'two', [3]]];
    $properties = ['content_type' => 'text/plain', 'content_encoding' => 'utf-8', 'delivery_mode' => 2, 'priority' => 5, 'correlation_id' => 'c', 'reply_to' => 'r', 'expiration' => '60000', 'message_id' => 'm', 'timestamp' => 1700000000, 'type' => 't', 'user_id' => 'guest', 'app_id' => 'a'];
    $channel->basic_publish(new AMQPMessage("\x00body\xff", $properties + ['application_headers' => new AMQPTable($headers)]), '', $queue);
    [$message] = receive($channel, $queue, 1);
    same("\x00body\xff", $message->getBody());
    $got = $message->get_properties();
    $found = $got['application_headers']->getNativeData();
    ksort($headers);
    ksort($found);
    same($headers, $found);
    foreach ($properties as $key => $value) {
        same($value, is_int($value) ? (int) $got[$key] : $got[$key], $key);
    }
};

$tests['a body of many frames, and an empty one'] = function (AMQPChannel $channel) {
    $queue = queue($channel);
    $bodies = ['', str_repeat('x', 1000000)];
    foreach ($bodies as $body) {
        $channel->basic_publish(new AMQPMessage($body), '', $queue);
    }
    same($bodies, array_map(fn ($m) => $m->getBody(), receive($channel, $queue, 2)));
};

$tests['a worker with prefetch, acknowledgements and redelivery'] = function (AMQPChannel $channel) {
    $queue = queue($channel);
    foreach (range(1, 6) as $n) {
        $channel->basic_publish(new AMQPMessage((string) $n, ['delivery_mode' => 2]), '', $queue);
    }
    $channel->basic_qos(0, 2, false);
    $seen = [];
    $work = function (AMQPMessage $m) use (&$seen) {
        $seen[] = [$m->getBody(), $m->isRedelivered()];
        $m->getBody() === '3' && !$m->isRedelivered() ? $m->nack(true) : $m->ack();
    };
    $channel->basic_consume($queue, '', false, false, false, false, $work);
    while (count($seen) < 7) {
        $channel->wait(null, false, DEADLINE_S);
    }
    same([['3', false], ['3', true]], array_values(array_filter($seen, fn ($s) => $s[0] === '3')));
    same(['1', '2', '3', '4', '5', '6'], array_values(array_unique(array_column($seen, 0))) === ['1', '2', '3', '4', '5', '6'] ? ['1', '2', '3', '4', '5', '6'] : array_column($seen, 0));
};

$tests['retries by TTL and dead-letter exchange'] = function (AMQPChannel $channel) {
    $work = queue($channel);
    $wait = queue($channel, ['x-dead-letter-exchange' => '', 'x-dead-letter-routing-key' => $work, 'x-message-ttl' => 50]);
    $channel->basic_publish(new AMQPMessage('again'), '', $wait);
    [$message] = receive($channel, $work, 1);
    $death = $message->get('application_headers')->getNativeData()['x-death'][0];
    same([1, 'expired', $wait, [$wait]], [$death['count'], $death['reason'], $death['queue'], $death['routing-keys']]);
};

$tests['confirms, returns, refusals'] = function (AMQPChannel $channel) {
    $acked = $nacked = 0;
    $returned = [];
    $channel->set_ack_handler(function () use (&$acked) {
        $acked++;
    });
    $channel->set_nack_handler(function () use (&$nacked) {
        $nacked++;
    });
    $channel->set_return_listener(function ($code, $text, $exchange, $key, $message) use (&$returned) {
        $returned[] = [$code, $text, $exchange, $key, $message->getBody()];
    });
    $channel->confirm_select();
    $channel->basic_publish(new AMQPMessage('nobody'), '', 'amq.nobody', true);
    $channel->wait_for_pending_acks_returns(DEADLINE_S);
    same([[312, 'NO_ROUTE', '', 'amq.nobody', 'nobody']], $returned);
    $queue = queue($channel, ['x-max-length' => 50, 'x-overflow' => 'reject-publish']);
    foreach (range(1, 60) as $n) {
        $channel->batch_basic_publish(new AMQPMessage((string) $n, ['delivery_mode' => 2]), '', $queue);
    }
    $channel->publish_batch();
    $channel->wait_for_pending_acks(DEADLINE_S);
    [, $ready] = $channel->queue_declare($queue, true);
    same(61, $acked + $nacked);
    same($ready, $acked - 1, 'what was confirmed is there');
};

$tests['topic, headers and fanout exchanges'] = function (AMQPChannel $channel) {
    $queue = queue($channel);
    [$topic, $headers, $fanout] = [name(), name(), name()];
    foreach ([[$topic, 'topic'], [$headers, 'headers'], [$fanout, 'fanout']] as [$exchange, $type]) {
        $channel->exchange_declare($exchange, $type, false, true, true);
    }
    $channel->queue_bind($queue, $topic, 'a.#');
    $channel->queue_bind($queue, $headers, '', false, new AMQPTable(['x-match' => 'all', 'k' => 'v']));
    $channel->exchange_bind($fanout, $topic, 'f.*');
    $channel->queue_bind($queue, $fanout);
    $channel->basic_publish(new AMQPMessage('1'), $topic, 'a.b.c');
    $channel->basic_publish(new AMQPMessage('none'), $topic, 'b');
    $channel->basic_publish(new AMQPMessage('2'), $topic, 'f.x');
    $channel->basic_publish(new AMQPMessage('3', ['application_headers' => new AMQPTable(['k' => 'v'])]), $headers, '');
    same(['1', '2', '3'], array_map(fn ($m) => $m->getBody(), receive($channel, $queue, 3)));
};

$tests['the texts of errors'] = function (AMQPChannel $channel, AMQPStreamConnection $connection) {
    $queue = queue($channel);
    same([406, "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue '$queue' in vhost '/': received 'true' but current is 'false'"], refusal(fn () => $connection->channel()->queue_declare($queue, false, true, true, true)));
    same([404, "NOT_FOUND - no queue 'amq.nobody' in vhost '/'"], refusal(fn () => $connection->channel()->queue_declare('amq.nobody', true)));
    same([404, "NOT_FOUND - no exchange 'nowhere' in vhost '/'"], refusal(fn () => $connection->channel()->queue_bind($queue, 'nowhere')));
    $other = connect();
    [$code] = refusal(fn () => $other->channel()->basic_consume($queue));
    same(405, $code);
    $other->close();
};

$tests['transactions'] = function (AMQPChannel $channel) {
    $queue = queue($channel);
    $channel->tx_select();
    $channel->basic_publish(new AMQPMessage('never'), '', $queue);
    $channel->tx_rollback();
    $channel->basic_publish(new AMQPMessage('kept'), '', $queue);
    $channel->tx_commit();
    same('kept', $channel->basic_get($queue, true)->getBody());
    same(null, $channel->basic_get($queue, true));
};

$tests['direct reply-to'] = function (AMQPChannel $channel, AMQPStreamConnection $connection) {
    $queue = queue($channel);
    $answers = [];
    $channel->basic_consume('amq.rabbitmq.reply-to', '', false, true, false, false, function ($m) use (&$answers) {
        $answers[$m->get('correlation_id')] = $m->getBody();
    });
    $channel->basic_publish(new AMQPMessage('ping', ['reply_to' => 'amq.rabbitmq.reply-to', 'correlation_id' => '7']), '', $queue);
    $server = $connection->channel();
    $request = $server->basic_get($queue, true);
    $server->basic_publish(new AMQPMessage('pong', ['correlation_id' => $request->get('correlation_id')]), '', $request->get('reply_to'));
    while (!$answers) {
        $channel->wait(null, false, DEADLINE_S);
    }
    same(['7' => 'pong'], ['7' => reset($answers)]);
};

$tests['a consumer whose queue is deleted'] = function (AMQPChannel $channel, AMQPStreamConnection $connection) {
    $queue = queue($channel);
    $tag = $channel->basic_consume($queue);
    $connection->channel()->queue_delete($queue);
    try {
        $channel->wait(null, false, DEADLINE_S);
        throw new Exception('nothing was said');
    } catch (PhpAmqpLib\Exception\AMQPBasicCancelException $e) {
        same($tag, $e->consumerTag);
    }
};

$passed = $failed = 0;
foreach ($tests as $what => $test) {
    try {
        $connection = connect();
        $test($connection->channel(), $connection);
        $connection->close();
        $passed++;
        echo "ok - $what\n";
    } catch (Throwable $e) {
        $failed++;
        echo "not ok - $what\n  " . get_class($e) . ': ' . $e->getMessage() . "\n";
    }
}
echo "# pass $passed\n# fail $failed\n";
exit($failed ? 1 : 0);
