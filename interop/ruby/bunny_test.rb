# frozen_string_literal: true

# What programs do with Bunny, and the texts that its own specifications look for.

require "bunny"
require "minitest/autorun"
require "securerandom"
require "timeout"

URL = ENV.fetch("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")

# What has not come by then does not come.
DEADLINE = 15

class BunnyTest < Minitest::Test
  def setup
    @connection = connect
    @channel = @connection.create_channel
    @given = []
  end

  def teardown
    @connection.close if @connection.open?
    last = connect
    channel = last.create_channel
    @given.each do |name|
      channel.queue_delete(name)
      channel.exchange_delete(name)
    end
    last.close
  end

  def connect(**options)
    Bunny.new(URL, automatically_recover: false, continuation_timeout: DEADLINE * 1000, logger: Logger.new(IO::NULL), **options).start
  end

  def fresh(word = "thing")
    @given << "interop.ruby.#{SecureRandom.hex(6)}.#{word}"
    @given.last
  end

  def queue(**options)
    @channel.queue(fresh("queue"), durable: true, **options)
  end

  # So many messages of a queue, pushed to a consumer: [delivery_info, properties, payload].
  def receive(queue, count, **options)
    box = Queue.new
    consumer = queue.subscribe(**options) { |*message| box << message }
    messages = Array.new(count) { Timeout.timeout(DEADLINE) { box.pop } }
    consumer.cancel
    messages
  end

  def test_properties_and_headers_of_all_types
    q = queue
    at = Time.at(1_700_000_000)
    headers = {
      "text" => "ä".b, "integer" => 1, "big" => 2**40, "negative" => -5, "float" => 1.5, "yes" => true, "no" => false,
      "nothing" => nil, "time" => at, "table" => { "deep" => { "er" => 1 } }, "list" => [1, "two", { "three" => 3 }]
    }
    properties = {
      content_type: "text/plain", content_encoding: "utf-8", priority: 3, correlation_id: "c", reply_to: "r", expiration: "60000",
      message_id: "m", timestamp: at.to_i, type: "t", user_id: "guest", app_id: "a"
    }
    q.publish("body", headers: headers, persistent: true, **properties)
    _, got, body = receive(q, 1, manual_ack: false).first
    assert_equal "body", body
    assert_equal headers, got.headers
    assert_equal 2, got.delivery_mode
    properties.each { |key, value| assert_equal value, key == :timestamp ? got.timestamp.to_i : got[key], key }
  end

  def test_a_body_of_many_frames_and_an_empty_one
    q = queue
    bodies = ["", "x" * 1_000_000]
    bodies.each { |body| q.publish(body) }
    assert_equal bodies, receive(q, 2, manual_ack: false).map(&:last)
  end

  def test_prefetch_limits_what_is_on_its_way
    @channel.prefetch(2)
    q = queue
    5.times { |n| q.publish(n.to_s) }
    box = Queue.new
    q.subscribe(manual_ack: true) { |info, _, body| box << [info.delivery_tag, body] }
    first = Array.new(2) { Timeout.timeout(DEADLINE) { box.pop } }
    assert_equal %w[0 1], first.map(&:last)
    assert_equal 3, @connection.create_channel.queue(q.name, passive: true).message_count
    @channel.ack(first.last.first, true)
    assert_equal(%w[2 3], Array.new(2) { Timeout.timeout(DEADLINE) { box.pop } }.map(&:last))
  end

  def test_reject_requeue_and_dead_letter
    dead = queue
    q = queue(arguments: { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => dead.name })
    q.publish("poison")
    info, = q.pop(manual_ack: true)
    refute info.redelivered?
    @channel.nack(info.delivery_tag, false, true)
    info, = q.pop(manual_ack: true)
    assert info.redelivered?
    @channel.reject(info.delivery_tag, false)
    _, properties, body = receive(dead, 1, manual_ack: false).first
    assert_equal "poison", body
    death = properties.headers["x-death"].first
    assert_equal ["rejected", q.name, 1], death.values_at("reason", "queue", "count")
  end

  def test_confirms_and_returns
    @channel.confirm_select
    exchange = @channel.default_exchange
    returned = Queue.new
    exchange.on_return { |info, _, body| returned << [info.reply_code, info.reply_text, info.routing_key, body] }
    exchange.publish("nobody", routing_key: "amq.nobody", mandatory: true)
    assert @channel.wait_for_confirms
    assert_equal [312, "NO_ROUTE", "amq.nobody", "nobody"], Timeout.timeout(DEADLINE) { returned.pop }
    q = queue
    200.times { |n| q.publish(n.to_s, persistent: true) }
    assert @channel.wait_for_confirms
    assert_empty @channel.nacked_set
    assert_equal 200, q.message_count
  end

  def test_a_full_queue_refuses
    @channel.confirm_select
    q = queue(arguments: { "x-max-length" => 1, "x-overflow" => "reject-publish" })
    2.times { q.publish("x") }
    refute @channel.wait_for_confirms
    assert_equal 1, @channel.nacked_set.size
  end

  def test_exchanges_of_all_types
    q = queue
    topic = @channel.topic(fresh("topic"))
    headers = @channel.headers(fresh("headers"))
    fanout = @channel.fanout(fresh("fanout"))
    q.bind(topic, routing_key: "a.*.c").bind(headers, arguments: { "x-match" => "any", "n" => 1 })
    fanout.bind(topic, routing_key: "#.to.fanout")
    q.bind(fanout)
    topic.publish("1", routing_key: "a.b.c")
    topic.publish("none", routing_key: "a.b.b.c")
    topic.publish("2", routing_key: "through.to.fanout")
    headers.publish("3", headers: { "n" => 1, "m" => 2 })
    headers.publish("none", headers: { "n" => 2 })
    assert_equal %w[1 2 3], receive(q, 3, manual_ack: false).map(&:last)
  end

  def test_the_texts_of_errors
    error = assert_raises(Bunny::NotFound) { @channel.queue(fresh, passive: true) }
    assert_match(/NOT_FOUND - no queue/, error.message)
    @channel = @connection.create_channel
    q = queue
    error = assert_raises(Bunny::PreconditionFailed) { @connection.create_channel.queue(q.name, durable: false) }
    assert_match(/inequivalent arg 'durable' for queue/, error.message)
    error = assert_raises(Bunny::AccessRefused) { @connection.create_channel.queue("amq.mine") }
    assert_match(/queue name 'amq.mine' contains reserved prefix 'amq\.\*'/, error.message)
    held = @channel.queue(fresh, exclusive: true)
    other = connect
    error = assert_raises(Bunny::ResourceLocked) { other.create_channel.queue(held.name, exclusive: true) }
    assert_match(/cannot obtain exclusive access to locked queue/, error.message)
    other.close
  end

  def test_an_unknown_delivery_tag_costs_the_channel
    text = Queue.new
    @channel.on_error { |_, close| text << close.reply_text }
    @channel.ack(82)
    assert_equal "PRECONDITION_FAILED - unknown delivery tag 82", Timeout.timeout(DEADLINE) { text.pop }
    assert_predicate @connection, :open?
  end

  def test_a_cancelled_consumer_is_told
    q = queue
    told = Queue.new
    consumer = Bunny::Consumer.new(@channel, q)
    consumer.on_cancellation { |cancel| told << cancel.consumer_tag }
    q.subscribe_with(consumer)
    @connection.create_channel.queue_delete(q.name)
    assert_equal consumer.consumer_tag, Timeout.timeout(DEADLINE) { told.pop }
  end

  def test_transactions
    q = queue
    @channel.tx_select
    q.publish("never")
    @channel.tx_rollback
    q.publish("kept")
    assert_equal 0, @connection.create_channel.queue(q.name, passive: true).message_count
    @channel.tx_commit
    assert_equal "kept", q.pop.last
  end

  def test_direct_reply_to
    q = queue
    server = @connection.create_channel
    server.queue(q.name, passive: true).subscribe do |_, properties, body|
      server.default_exchange.publish(body.upcase, routing_key: properties.reply_to, correlation_id: properties.correlation_id)
    end
    answers = Queue.new
    replies = Bunny::Queue.new(@channel, "amq.rabbitmq.reply-to", no_declare: true)
    replies.subscribe { |_, properties, body| answers << [properties.correlation_id, body] }
    q.publish("ping", reply_to: "amq.rabbitmq.reply-to", correlation_id: "7")
    assert_equal %w[7 PING], Timeout.timeout(DEADLINE) { answers.pop }
  end

  def test_recovery_of_a_lost_connection
    lost = Bunny.new(URL, network_recovery_interval: 0.1, recover_from_connection_close: true, logger: Logger.new(IO::NULL)).start
    channel = lost.create_channel
    channel.prefetch(5)
    q = channel.queue("", exclusive: true)
    topic = channel.topic(fresh("topic"))
    q.bind(topic, routing_key: "#")
    box = Queue.new
    q.subscribe { |_, _, body| box << body }
    lost.transport.socket.shutdown
    # What is published before everything is declared again goes nowhere.
    body = Timeout.timeout(DEADLINE) do
      loop do
        @channel.topic(topic.name).publish("again", routing_key: "k")
        break Timeout.timeout(0.1) { box.pop }
      rescue Timeout::Error
        next
      end
    end
    assert_equal "again", body
    lost.close
  end
end
