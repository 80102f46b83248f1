package dev.leveret.interop;

import static org.junit.jupiter.api.Assertions.*;

import com.rabbitmq.client.*;
import java.io.IOException;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.*;
import org.junit.jupiter.api.*;

/** The Java client, as its users and its own tests use it. */
class ClientTest {
    static final int PATIENCE_S = 15;

    static ConnectionFactory factory() throws Exception {
        var factory = new ConnectionFactory();
        factory.setUri(System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F"));
        factory.setAutomaticRecoveryEnabled(false);
        return factory;
    }

    Connection connection;
    Channel channel;

    @BeforeEach
    void open() throws Exception {
        connection = factory().newConnection();
        channel = connection.createChannel();
    }

    @AfterEach
    void close() throws Exception {
        if (connection.isOpen()) {
            connection.close();
        }
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] body) {
        return new String(body, StandardCharsets.UTF_8);
    }

    String queue(Map<String, Object> arguments) throws IOException {
        return channel.queueDeclare("", false, true, false, arguments).getQueue();
    }

    BlockingQueue<Delivery> consume(String queue, boolean autoAck) throws IOException {
        var inbox = new LinkedBlockingQueue<Delivery>();
        channel.basicConsume(queue, autoAck, (tag, delivery) -> inbox.add(delivery), tag -> {});
        return inbox;
    }

    static <T> T next(BlockingQueue<T> queue) throws InterruptedException {
        T value = queue.poll(PATIENCE_S, TimeUnit.SECONDS);
        assertNotNull(value, "nothing came");
        return value;
    }

    /** The call costs the channel, with this code and text. */
    static void refused(int code, String text, Executable call) {
        var e = assertThrows(IOException.class, call::run);
        var signal = (ShutdownSignalException) e.getCause();
        var close = (AMQP.Channel.Close) signal.getReason();
        assertEquals(code, close.getReplyCode());
        assertEquals(text, close.getReplyText());
    }

    interface Executable {
        void run() throws Exception;
    }

    @Test
    void everyTypeOfHeaderComesBack() throws Exception {
        var q = queue(null);
        var date = new Date(1_700_000_000_000L);
        Map<String, Object> headers = new HashMap<>();
        headers.put("int", 42);
        headers.put("long", 1L << 40);
        headers.put("short", (short) -3);
        headers.put("byte", (byte) -4);
        headers.put("bool", true);
        headers.put("float", 0.5f);
        headers.put("double", 0.25);
        headers.put("decimal", new BigDecimal("123.45"));
        headers.put("date", date);
        headers.put("null", null);
        headers.put("bytes", new byte[] {0, -1});
        headers.put("list", List.of(1, 2L, true));
        headers.put("map", Map.of("inner", 7));
        var properties =
                new AMQP.BasicProperties.Builder()
                        .headers(headers).contentType("text/plain").contentEncoding("utf-8").deliveryMode(2).priority(3)
                        .correlationId("c").replyTo("r").expiration("60000").messageId("m").timestamp(date).type("t")
                        .userId("guest").appId("a").build();
        channel.basicPublish("", q, properties, bytes("body"));
        var got = channel.basicGet(q, true);
        assertEquals("body", text(got.getBody()));
        var p = got.getProps();
        for (var key : headers.keySet()) {
            if (key.equals("bytes")) {
                assertArrayEquals((byte[]) headers.get(key), (byte[]) p.getHeaders().get(key));
            } else {
                assertEquals(headers.get(key), p.getHeaders().get(key), key);
            }
        }
        assertEquals(
                List.of("text/plain", "utf-8", 2, 3, "c", "r", "60000", "m", date, "t", "guest", "a"),
                List.of(p.getContentType(), p.getContentEncoding(), p.getDeliveryMode(), p.getPriority(), p.getCorrelationId(),
                        p.getReplyTo(), p.getExpiration(), p.getMessageId(), p.getTimestamp(), p.getType(), p.getUserId(), p.getAppId()));
    }

    @Test
    void passiveDeclareOfWhatIsNotThere() throws Exception {
        refused(404, "NOT_FOUND - no queue 'interop.java.none' in vhost '/'", () -> channel.queueDeclarePassive("interop.java.none"));
        assertFalse(channel.isOpen());
        assertTrue(connection.isOpen());
    }

    @Test
    void inequivalentArgument() throws Exception {
        var q = channel.queueDeclare("interop.java." + UUID.randomUUID(), false, true, false, Map.of("x-message-ttl", 1000)).getQueue();
        refused(
                406,
                "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '" + q + "' in vhost '/': received '1001' but current is '1000'",
                () -> channel.queueDeclare(q, false, true, false, Map.of("x-message-ttl", 1001)));
    }

    @Test
    void defaultExchangeIsNotForBindings() throws Exception {
        var q = queue(null);
        refused(403, "ACCESS_REFUSED - operation not permitted on the default exchange", () -> channel.queueBind(q, "", "k"));
    }

    @Test
    void headersExchangeValidation() throws Exception {
        var q = queue(null);
        refused(
                406,
                "PRECONDITION_FAILED - Invalid x-match field type signedint (value 23); expected longstr",
                () -> channel.queueBind(q, "amq.headers", "", Map.of("x-match", 23)));
    }

    @Test
    void unknownDeliveryTag() throws Exception {
        var closed = new LinkedBlockingQueue<ShutdownSignalException>();
        channel.addShutdownListener(closed::add);
        channel.basicAck(123456, false);
        var close = (AMQP.Channel.Close) next(closed).getReason();
        assertEquals(406, close.getReplyCode());
        assertEquals("PRECONDITION_FAILED - unknown delivery tag 123456", close.getReplyText());
        assertEquals(60, close.getClassId());
        assertEquals(80, close.getMethodId());
    }

    @Test
    void recoverWithoutRequeueClosesTheConnection() throws Exception {
        assertThrows(IOException.class, () -> channel.basicRecover(false));
        assertFalse(connection.isOpen());
        assertEquals(540, ((AMQP.Connection.Close) connection.getCloseReason().getReason()).getReplyCode());
    }

    @Test
    void alternateExchangeAndReturn() throws Exception {
        channel.confirmSelect();
        channel.exchangeDeclare("interop.java.alt", "fanout", false, true, null);
        channel.exchangeDeclare("interop.java.main", "direct", false, true, Map.of("alternate-exchange", "interop.java.alt"));
        var q = queue(null);
        channel.queueBind(q, "interop.java.alt", "");
        var returns = new LinkedBlockingQueue<Return>();
        channel.addReturnListener(returns::add);
        channel.basicPublish("interop.java.main", "k", true, null, bytes("kept"));
        channel.waitForConfirmsOrDie(PATIENCE_S * 1000);
        assertTrue(returns.isEmpty());
        assertEquals("kept", text(channel.basicGet(q, true).getBody()));
        channel.queueUnbind(q, "interop.java.alt", "");
        channel.exchangeDelete("interop.java.alt");
        channel.basicPublish("interop.java.main", "k", true, null, bytes("lost"));
        channel.waitForConfirmsOrDie(PATIENCE_S * 1000);
        var r = next(returns);
        assertEquals(312, r.getReplyCode());
        assertEquals("NO_ROUTE", r.getReplyText());
        channel.exchangeDelete("interop.java.main");
    }

    @Test
    void confirmsOfManyMessages() throws Exception {
        channel.confirmSelect();
        var q = queue(null);
        for (int i = 0; i < 2000; i++) {
            channel.basicPublish("", q, MessageProperties.PERSISTENT_TEXT_PLAIN, bytes("" + i));
        }
        channel.waitForConfirmsOrDie(PATIENCE_S * 1000);
        assertEquals(2000, channel.messageCount(q));
    }

    @Test
    void requeuedMessagesKeepTheirOrder() throws Exception {
        var q = queue(null);
        for (int i = 0; i < 100; i++) {
            channel.basicPublish("", q, null, new byte[] {(byte) i});
        }
        var tags = new ArrayList<Long>();
        for (int i = 0; i < 50; i++) {
            tags.add(channel.basicGet(q, false).getEnvelope().getDeliveryTag());
        }
        Collections.shuffle(tags, new Random(7));
        for (long tag : tags) {
            channel.basicNack(tag, false, true);
        }
        for (int i = 0; i < 100; i++) {
            var m = channel.basicGet(q, true);
            assertEquals(i, m.getBody()[0]);
            assertEquals(i < 50, m.getEnvelope().isRedeliver());
        }
    }

    @Test
    void consumerCancelNotification() throws Exception {
        var q = queue(null);
        var cancelled = new LinkedBlockingQueue<String>();
        channel.basicConsume(q, true, "tag", (tag, d) -> {}, cancelled::add);
        connection.createChannel().queueDelete(q);
        assertEquals("tag", next(cancelled));
    }

    @Test
    void consumerPriorities() throws Exception {
        var q = queue(null);
        var inbox = new LinkedBlockingQueue<String>();
        for (int priority : new int[] {1, 3, 2}) {
            var each = connection.createChannel();
            each.basicQos(1);
            each.basicConsume(q, false, Map.of("x-priority", priority), (tag, d) -> inbox.add(priority + ":" + text(d.getBody())), tag -> {});
        }
        for (int i = 0; i < 3; i++) {
            channel.basicPublish("", q, null, bytes("" + i));
        }
        var got = new TreeSet<String>();
        for (int i = 0; i < 3; i++) {
            got.add(next(inbox));
        }
        assertEquals(new TreeSet<>(List.of("3:0", "2:1", "1:2")), got);
    }

    @Test
    void deadLettersOfEachKind() throws Exception {
        var dead = queue(null);
        var inbox = consume(dead, true);
        Map<String, Object> target = Map.of("x-dead-letter-exchange", "", "x-dead-letter-routing-key", dead);
        var rejecting = queue(target);
        channel.basicPublish("", rejecting, null, bytes("rejected"));
        channel.basicReject(channel.basicGet(rejecting, false).getEnvelope().getDeliveryTag(), false);
        check(next(inbox), "rejected", rejecting);
        channel.basicPublish("", rejecting, new AMQP.BasicProperties.Builder().expiration("10").build(), bytes("expired"));
        var expired = next(inbox);
        check(expired, "expired", rejecting);
        assertNull(expired.getProperties().getExpiration());
        var limited = new HashMap<>(target);
        limited.put("x-max-length", 1);
        var small = queue(limited);
        channel.basicPublish("", small, null, bytes("maxlen"));
        channel.basicPublish("", small, null, bytes("stays"));
        check(next(inbox), "maxlen", small);
    }

    @SuppressWarnings("unchecked")
    static void check(Delivery d, String reason, String queue) {
        assertEquals(reason, text(d.getBody()));
        var headers = d.getProperties().getHeaders();
        var death = ((List<Map<String, Object>>) headers.get("x-death")).get(0);
        assertEquals(reason, death.get("reason").toString());
        assertEquals(queue, death.get("queue").toString());
        assertEquals(1L, death.get("count"));
        assertEquals(reason, headers.get("x-first-death-reason").toString());
    }

    @Test
    void transactions() throws Exception {
        var q = queue(null);
        channel.txSelect();
        channel.basicPublish("", q, null, bytes("undone"));
        channel.txRollback();
        channel.basicPublish("", q, null, bytes("done"));
        assertNull(channel.basicGet(q, true));
        channel.txCommit();
        assertEquals("done", text(channel.basicGet(q, true).getBody()));
    }

    @Test
    void rpcOverDirectReplyTo() throws Exception {
        var q = queue(null);
        var server = connection.createChannel();
        server.basicConsume(q, true, (tag, d) -> server.basicPublish("", d.getProperties().getReplyTo(),
                new AMQP.BasicProperties.Builder().correlationId(d.getProperties().getCorrelationId()).build(),
                bytes("re: " + text(d.getBody()))), tag -> {});
        var client = new RpcClient(new RpcClientParams().channel(connection.createChannel()).exchange("").routingKey(q).timeout(PATIENCE_S * 1000));
        for (int i = 0; i < 50; i++) {
            assertEquals("re: " + i, client.stringCall("" + i));
        }
        client.close();
    }

    @Test
    void quorumQueue() throws Exception {
        var q = "interop.java.quorum." + UUID.randomUUID();
        channel.queueDeclare(q, true, false, false, Map.of("x-queue-type", "quorum", "x-delivery-limit", 2));
        try {
            channel.confirmSelect();
            channel.basicPublish("", q, null, bytes("m"));
            channel.waitForConfirmsOrDie(PATIENCE_S * 1000);
            var inbox = consume(q, false);
            for (int n = 0; n < 3; n++) {
                var d = next(inbox);
                var headers = d.getProperties().getHeaders();
                assertEquals(n == 0 ? null : (Long) (long) n, headers == null ? null : headers.get("x-delivery-count"));
                channel.basicReject(d.getEnvelope().getDeliveryTag(), true);
            }
            assertEquals(0, channel.messageCount(q));
        } finally {
            channel.queueDelete(q);
        }
    }

    @Test
    void automaticRecovery() throws Exception {
        var factory = factory();
        factory.setAutomaticRecoveryEnabled(true);
        factory.setNetworkRecoveryInterval(50);
        var sockets = new LinkedBlockingQueue<java.net.Socket>();
        factory.setSocketConfigurator(sockets::add);
        try (var recovering = factory.newConnection()) {
            var ch = recovering.createChannel();
            var q = ch.queueDeclare("", false, true, true, null).getQueue();
            ch.exchangeDeclare("interop.java.recovery", "direct", false, true, null);
            ch.queueBind(q, "interop.java.recovery", "k");
            var inbox = new LinkedBlockingQueue<String>();
            ch.basicConsume(q, true, (tag, d) -> inbox.add(text(d.getBody())), tag -> {});
            var recovered = new LinkedBlockingQueue<Boolean>();
            ((Recoverable) recovering).addRecoveryListener(new RecoveryListener() {
                public void handleRecovery(Recoverable r) { recovered.add(true); }
                public void handleRecoveryStarted(Recoverable r) {}
            });
            next(sockets).close();
            next(recovered);
            channel.basicPublish("interop.java.recovery", "k", null, bytes("after"));
            assertEquals("after", next(inbox));
        }
    }

    @Test
    void loginRefused() throws Exception {
        var factory = factory();
        factory.setPassword("wrong");
        assertThrows(AuthenticationFailureException.class, factory::newConnection);
    }

    @Test
    void unknownVhost() throws Exception {
        var factory = factory();
        factory.setVirtualHost("nowhere");
        var e = assertThrows(IOException.class, factory::newConnection);
        var close = (AMQP.Connection.Close) ((ShutdownSignalException) e.getCause()).getReason();
        assertEquals(530, close.getReplyCode());
    }
}
