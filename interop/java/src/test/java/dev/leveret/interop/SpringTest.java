package dev.leveret.interop;

import static org.junit.jupiter.api.Assertions.*;

import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.*;
import org.junit.jupiter.api.*;
import org.springframework.amqp.AmqpRejectAndDontRequeueException;
import org.springframework.amqp.core.*;
import org.springframework.amqp.core.Queue;
import org.springframework.amqp.rabbit.annotation.EnableRabbit;
import org.springframework.amqp.rabbit.annotation.RabbitListener;
import org.springframework.amqp.rabbit.config.*;
import org.springframework.amqp.rabbit.connection.*;
import org.springframework.amqp.rabbit.core.*;
import org.springframework.amqp.rabbit.retry.RejectAndDontRequeueRecoverer;
import org.springframework.amqp.support.AmqpHeaders;
import org.springframework.context.annotation.*;
import org.springframework.messaging.handler.annotation.Header;

/** A small application of Spring AMQP: listeners, retries, dead letters, confirms and returns, request and reply. */
public class SpringTest {
    static final int PATIENCE_S = 15;
    static final String RUN = UUID.randomUUID().toString();
    public static final String ORDERS = "interop.spring.orders." + RUN;
    public static final String DEAD = "interop.spring.dead." + RUN;
    public static final String MANUAL = "interop.spring.manual." + RUN;
    public static final String RPC = "interop.spring.rpc." + RUN;

    @Configuration
    @EnableRabbit
    static class App {
        final BlockingQueue<String> handled = new LinkedBlockingQueue<>();
        final BlockingQueue<Message> dead = new LinkedBlockingQueue<>();
        final BlockingQueue<String> manual = new LinkedBlockingQueue<>();
        final List<String> attempts = new CopyOnWriteArrayList<>();

        @Bean
        CachingConnectionFactory connectionFactory() throws Exception {
            var factory = new CachingConnectionFactory(ClientTest.factory());
            factory.setPublisherConfirmType(CachingConnectionFactory.ConfirmType.CORRELATED);
            factory.setPublisherReturns(true);
            return factory;
        }

        @Bean
        RabbitTemplate template(ConnectionFactory factory) {
            var template = new RabbitTemplate(factory);
            template.setMandatory(true);
            template.setReplyTimeout(PATIENCE_S * 1000);
            return template;
        }

        @Bean
        RabbitAdmin admin(ConnectionFactory factory) {
            return new RabbitAdmin(factory);
        }

        @Bean
        SimpleRabbitListenerContainerFactory rabbitListenerContainerFactory(ConnectionFactory factory) {
            var listeners = new SimpleRabbitListenerContainerFactory();
            listeners.setConnectionFactory(factory);
            listeners.setPrefetchCount(10);
            listeners.setDefaultRequeueRejected(false);
            // Three attempts, then the dead-letter queue.
            listeners.setAdviceChain(RetryInterceptorBuilder.stateless().maxAttempts(3).backOffOptions(5, 1, 5)
                    .recoverer(new RejectAndDontRequeueRecoverer()).build());
            return listeners;
        }

        @Bean
        SimpleRabbitListenerContainerFactory manualAcks(ConnectionFactory factory) {
            var listeners = new SimpleRabbitListenerContainerFactory();
            listeners.setConnectionFactory(factory);
            listeners.setAcknowledgeMode(AcknowledgeMode.MANUAL);
            return listeners;
        }

        @Bean
        Declarables topology() {
            var orders = QueueBuilder.durable(ORDERS).deadLetterExchange("").deadLetterRoutingKey(DEAD).ttl(60_000).build();
            var exchange = ExchangeBuilder.topicExchange("interop.spring.events." + RUN).autoDelete().build();
            return new Declarables(
                    orders, QueueBuilder.durable(DEAD).build(), QueueBuilder.durable(MANUAL).build(), new Queue(RPC, false, false, true), exchange,
                    BindingBuilder.bind(orders).to((TopicExchange) exchange).with("order.*"));
        }

        @RabbitListener(queues = ORDERS_EXPRESSION)
        void order(String text) {
            attempts.add(text);
            if (text.startsWith("bad")) {
                throw new IllegalStateException(text);
            }
            handled.add(text);
        }

        @RabbitListener(queues = DEAD_EXPRESSION)
        void dead(Message message) {
            dead.add(message);
        }

        @RabbitListener(queues = MANUAL_EXPRESSION, containerFactory = "manualAcks")
        void manual(String text, com.rabbitmq.client.Channel channel, @Header(AmqpHeaders.DELIVERY_TAG) long tag,
                @Header(AmqpHeaders.REDELIVERED) boolean again) throws Exception {
            manual.add(text + (again ? " again" : ""));
            if (again) {
                channel.basicAck(tag, false);
            } else {
                channel.basicNack(tag, false, true);
            }
        }

        @RabbitListener(queues = RPC_EXPRESSION)
        String answer(String question) {
            if (question.equals("reject")) {
                throw new AmqpRejectAndDontRequeueException("no");
            }
            return question.toUpperCase(Locale.ROOT);
        }
    }

    static final String ORDERS_EXPRESSION = "#{T(dev.leveret.interop.SpringTest).ORDERS}";
    static final String DEAD_EXPRESSION = "#{T(dev.leveret.interop.SpringTest).DEAD}";
    static final String MANUAL_EXPRESSION = "#{T(dev.leveret.interop.SpringTest).MANUAL}";
    static final String RPC_EXPRESSION = "#{T(dev.leveret.interop.SpringTest).RPC}";

    static AnnotationConfigApplicationContext context;
    static App app;
    static RabbitTemplate template;

    @BeforeAll
    static void start() {
        context = new AnnotationConfigApplicationContext(App.class);
        app = context.getBean(App.class);
        template = context.getBean(RabbitTemplate.class);
    }

    @AfterAll
    static void stop() {
        var admin = context.getBean(RabbitAdmin.class);
        for (var queue : List.of(ORDERS, DEAD, MANUAL)) {
            admin.deleteQueue(queue);
        }
        context.close();
    }

    static <T> T next(BlockingQueue<T> queue) throws InterruptedException {
        T value = queue.poll(PATIENCE_S, TimeUnit.SECONDS);
        assertNotNull(value, "nothing came");
        return value;
    }

    @Test
    void listenerGetsWhatIsRoutedToIt() throws Exception {
        template.convertAndSend("interop.spring.events." + RUN, "order.new", "good");
        for (var handled = next(app.handled); !handled.equals("good"); handled = next(app.handled)) {}
    }

    @Test
    void whatFailsThreeTimesIsDeadLettered() throws Exception {
        template.convertAndSend("", ORDERS, "bad one");
        var message = next(app.dead);
        assertEquals("bad one", new String(message.getBody(), StandardCharsets.UTF_8));
        assertEquals(3, app.attempts.stream().filter("bad one"::equals).count());
        var death = message.getMessageProperties().getXDeathHeader().get(0);
        assertEquals("rejected", death.get("reason"));
        assertEquals(ORDERS, death.get("queue"));
    }

    @Test
    void manualAcknowledgement() throws Exception {
        template.convertAndSend("", MANUAL, "m");
        assertEquals("m", next(app.manual));
        assertEquals("m again", next(app.manual));
    }

    @Test
    void requestAndReplyOverDirectReplyTo() {
        for (int i = 0; i < 20; i++) {
            assertEquals("QUESTION " + i, template.convertSendAndReceive("", RPC, "question " + i));
        }
    }

    @Test
    void correlatedConfirms() throws Exception {
        var correlation = new CorrelationData("1");
        template.convertAndSend("", ORDERS, "good, confirmed", correlation);
        assertTrue(correlation.getFuture().get(PATIENCE_S, TimeUnit.SECONDS).isAck());
        assertNull(correlation.getReturned());
    }

    @Test
    void returnsComeWithTheirConfirm() throws Exception {
        var correlation = new CorrelationData("2");
        template.convertAndSend("", "interop.spring.nowhere", "lost", correlation);
        assertTrue(correlation.getFuture().get(PATIENCE_S, TimeUnit.SECONDS).isAck());
        assertNotNull(correlation.getReturned());
        assertEquals(312, correlation.getReturned().getReplyCode());
    }

    @Test
    void adminKnowsTheQueues() {
        var admin = context.getBean(RabbitAdmin.class);
        var info = admin.getQueueInfo(ORDERS);
        assertEquals(1, info.getConsumerCount());
        assertNull(admin.getQueueInfo("interop.spring.none"));
    }
}
