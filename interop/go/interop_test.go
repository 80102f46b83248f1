// Package interop runs amqp091-go against the broker at AMQP_URL, as its users do.
package interop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// How long anything may take.
const patience = 15 * time.Second

func url() string {
	if u := os.Getenv("AMQP_URL"); u != "" {
		return u
	}
	return "amqp://guest:guest@127.0.0.1:5672/"
}

var serial atomic.Int64

func name(word string) string {
	return fmt.Sprintf("interop.go.%d.%d.%s", os.Getpid(), serial.Add(1), word)
}

func connect(t *testing.T) *amqp.Connection {
	t.Helper()
	conn, err := amqp.Dial(url())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func channel(t *testing.T) *amqp.Channel {
	t.Helper()
	ch, err := connect(t).Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// A queue that goes with its connection.
func queue(t *testing.T, ch *amqp.Channel, arguments amqp.Table) string {
	t.Helper()
	q, err := ch.QueueDeclare("", false, false, true, false, arguments)
	if err != nil {
		t.Fatal(err)
	}
	return q.Name
}

func publish(t *testing.T, ch *amqp.Channel, exchange, key string, p amqp.Publishing) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := ch.PublishWithContext(ctx, exchange, key, true, false, p); err != nil {
		t.Fatal(err)
	}
}

func next[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func TestEveryTypeOfHeaderComesBack(t *testing.T) {
	ch := channel(t)
	q := queue(t, ch, nil)
	now := time.Unix(1_700_000_000, 0)
	headers := amqp.Table{
		"bool": true, "int8": int8(-8), "byte": byte(200), "int16": int16(-16), "int32": int32(-32), "int64": int64(-64),
		"float32": float32(0.5), "float64": 0.25, "string": "text", "bytes": []byte{0, 255}, "time": now, "nil": nil,
		"decimal": amqp.Decimal{Scale: 2, Value: 12345}, "table": amqp.Table{"a": int32(1)}, "array": []interface{}{int32(1), "two"},
	}
	publish(t, ch, "", q, amqp.Publishing{
		Headers: headers, ContentType: "text/plain", ContentEncoding: "utf-8", DeliveryMode: amqp.Persistent, Priority: 3,
		CorrelationId: "c", ReplyTo: "r", Expiration: "60000", MessageId: "m", Timestamp: now, Type: "t", UserId: "guest",
		AppId: "a", Body: []byte("body"),
	})
	m, ok, err := ch.Get(q, true)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	for key, want := range headers {
		if got := m.Headers[key]; fmt.Sprintf("%T %v", got, got) != fmt.Sprintf("%T %v", want, want) {
			t.Errorf("%s: %T %v, want %T %v", key, got, got, want, want)
		}
	}
	got := fmt.Sprint(m.ContentType, m.ContentEncoding, m.DeliveryMode, m.Priority, m.CorrelationId, m.ReplyTo, m.Expiration, m.MessageId, m.Timestamp.Unix(), m.Type, m.UserId, m.AppId)
	if want := fmt.Sprint("text/plain", "utf-8", 2, 3, "c", "r", "60000", "m", now.Unix(), "t", "guest", "a"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestErrorsAreTold(t *testing.T) {
	conn := connect(t)
	for _, c := range []struct {
		code int
		text string
		do   func(*amqp.Channel) error
	}{
		{amqp.NotFound, "NOT_FOUND - no queue 'interop.go.none' in vhost '/'", func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclarePassive("interop.go.none", false, false, false, false, nil)
			return err
		}},
		{amqp.PreconditionFailed, "PRECONDITION_FAILED - unknown exchange type 'nonsense'", func(ch *amqp.Channel) error {
			return ch.ExchangeDeclare("interop.go.x", "nonsense", false, false, false, false, nil)
		}},
		{amqp.AccessRefused, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'", func(ch *amqp.Channel) error {
			return ch.ExchangeDeclare("amq.mine", "direct", false, false, false, false, nil)
		}},
	} {
		ch, err := conn.Channel()
		if err != nil {
			t.Fatal(err)
		}
		closed := ch.NotifyClose(make(chan *amqp.Error, 1))
		var e *amqp.Error
		if err := c.do(ch); !errors.As(err, &e) || e.Code != c.code || e.Reason != c.text {
			t.Errorf("%v, want %d %s", err, c.code, c.text)
		}
		if e := next(t, closed); e == nil || e.Code != c.code || !e.Server {
			t.Errorf("close: %v", e)
		}
	}
	// An unknown tag is told asynchronously.
	ch, _ := conn.Channel()
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	if err := ch.Ack(7, false); err != nil {
		t.Fatal(err)
	}
	if e := next(t, closed); e.Code != amqp.PreconditionFailed || e.Reason != "PRECONDITION_FAILED - unknown delivery tag 7" {
		t.Error(e)
	}
}

func TestWrongPassword(t *testing.T) {
	uri, err := amqp.ParseURI(url())
	if err != nil {
		t.Fatal(err)
	}
	uri.Password = "wrong"
	var e *amqp.Error
	if _, err := amqp.Dial(uri.String()); !errors.As(err, &e) || e.Code != amqp.AccessRefused {
		t.Error(err)
	}
}

func TestConfirmsComeForAll(t *testing.T) {
	ch := channel(t)
	q, err := ch.QueueDeclare(name("confirms"), true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ch.QueueDelete(q.Name, false, false, false)
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var waiting []*amqp.DeferredConfirmation
	for i := range 1000 {
		c, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", q.Name, true, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(fmt.Sprint(i))})
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, c)
	}
	for _, c := range waiting {
		if ok, err := c.WaitContext(ctx); err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	if q, err = ch.QueueDeclarePassive(q.Name, true, false, false, false, nil); err != nil || q.Messages != 1000 {
		t.Error(q, err)
	}
}

func TestReturnComesBeforeConfirm(t *testing.T) {
	ch := channel(t)
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	returns := ch.NotifyReturn(make(chan amqp.Return, 1))
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, 1))
	publish(t, ch, "", name("nowhere"), amqp.Publishing{Body: []byte("lost")})
	if r := next(t, returns); r.ReplyCode != amqp.NoRoute || r.ReplyText != "NO_ROUTE" || string(r.Body) != "lost" {
		t.Error(r)
	}
	if c := next(t, confirms); !c.Ack || c.DeliveryTag != 1 {
		t.Error(c)
	}
}

func TestRejectPublishIsNacked(t *testing.T) {
	ch := channel(t)
	q := queue(t, ch, amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, 2))
	for range 2 {
		publish(t, ch, "", q, amqp.Publishing{})
	}
	if one, two := next(t, confirms), next(t, confirms); !one.Ack || two.Ack {
		t.Error(one, two)
	}
}

func TestPrefetchAndRequeue(t *testing.T) {
	ch := channel(t)
	q := queue(t, ch, nil)
	for i := range 5 {
		publish(t, ch, "", q, amqp.Publishing{Body: []byte{byte(i)}})
	}
	if err := ch.Qos(2, 0, false); err != nil {
		t.Fatal(err)
	}
	deliveries, err := ch.Consume(q, "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	first, second := next(t, deliveries), next(t, deliveries)
	if err := first.Nack(false, true); err != nil {
		t.Fatal(err)
	}
	again := next(t, deliveries)
	if again.Body[0] != 0 || !again.Redelivered {
		t.Error(again.Body, again.Redelivered)
	}
	if err := second.Ack(false); err != nil {
		t.Fatal(err)
	}
	if err := again.Reject(false); err != nil {
		t.Fatal(err)
	}
	for want := byte(2); want < 5; want++ {
		d := next(t, deliveries)
		if d.Body[0] != want {
			t.Error(d.Body, want)
		}
		if err := d.Ack(true); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCancelIsTold(t *testing.T) {
	conn := connect(t)
	ch, _ := conn.Channel()
	other, _ := conn.Channel()
	q := queue(t, ch, nil)
	cancelled := ch.NotifyCancel(make(chan string, 1))
	deliveries, err := ch.Consume(q, "me", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.QueueDelete(q, false, false, false); err != nil {
		t.Fatal(err)
	}
	if tag := next(t, cancelled); tag != "me" {
		t.Error(tag)
	}
	if _, open := <-deliveries; open {
		t.Error("a delivery of a queue that is gone")
	}
}

func TestRPC(t *testing.T) {
	conn := connect(t)
	server, _ := conn.Channel()
	q := queue(t, server, nil)
	questions, err := server.Consume(q, "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for d := range questions {
			_ = server.PublishWithContext(context.Background(), "", d.ReplyTo, false, false,
				amqp.Publishing{CorrelationId: d.CorrelationId, Body: append([]byte("re: "), d.Body...)})
		}
	}()
	client, _ := conn.Channel()
	answers, err := client.Consume("amq.rabbitmq.reply-to", "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		id := fmt.Sprint(i)
		publish(t, client, "", q, amqp.Publishing{ReplyTo: "amq.rabbitmq.reply-to", CorrelationId: id, Body: []byte(id)})
		if a := next(t, answers); a.CorrelationId != id || string(a.Body) != "re: "+id {
			t.Fatal(a.CorrelationId, string(a.Body))
		}
	}
}

func TestTransactions(t *testing.T) {
	ch := channel(t)
	q := queue(t, ch, nil)
	if err := ch.Tx(); err != nil {
		t.Fatal(err)
	}
	publish(t, ch, "", q, amqp.Publishing{Body: []byte("undone")})
	if err := ch.TxRollback(); err != nil {
		t.Fatal(err)
	}
	publish(t, ch, "", q, amqp.Publishing{Body: []byte("done")})
	if err := ch.TxCommit(); err != nil {
		t.Fatal(err)
	}
	m, ok, err := ch.Get(q, true)
	if err != nil || !ok || string(m.Body) != "done" || m.MessageCount != 0 {
		t.Error(string(m.Body), ok, err)
	}
}

// Topologies as MassTransit makes them: fanout to fanout to queue, and an error queue.
func TestExchangeToExchangeToQueue(t *testing.T) {
	ch := channel(t)
	outer, inner, dead := name("Contract:Event"), name("endpoint"), name("endpoint_error")
	for _, x := range []string{outer, inner, dead} {
		if err := ch.ExchangeDeclare(x, "fanout", true, true, false, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	errs, q := queue(t, ch, nil), queue(t, ch, amqp.Table{"x-dead-letter-exchange": dead})
	for _, err := range []error{
		ch.ExchangeBind(inner, "", outer, false, nil), ch.QueueBind(q, "", inner, false, nil), ch.QueueBind(errs, "", dead, false, nil),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	publish(t, ch, outer, "", amqp.Publishing{Body: []byte("event")})
	m, ok, err := ch.Get(q, false)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if err := m.Nack(false, false); err != nil {
		t.Fatal(err)
	}
	deliveries, err := ch.Consume(errs, "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := next(t, deliveries)
	deaths, _ := d.Headers["x-death"].([]interface{})
	if len(deaths) != 1 || deaths[0].(amqp.Table)["reason"] != "rejected" || deaths[0].(amqp.Table)["count"] != int64(1) {
		t.Error(d.Headers)
	}
}

// A worker as its users write it: it connects again when the connection breaks, and no job is lost.
func TestReconnect(t *testing.T) {
	uri, err := amqp.ParseURI(url())
	if err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort(uri.Host, fmt.Sprint(uri.Port))
	setup := channel(t)
	q, err := setup.QueueDeclare(name("jobs"), true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer setup.QueueDelete(q.Name, false, false, false)
	const jobs = 200
	for i := range jobs {
		publish(t, setup, "", q.Name, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(fmt.Sprint(i))})
	}
	var lock sync.Mutex
	var socket net.Conn
	done := map[string]bool{}
	finished := make(chan bool)
	go func() {
		defer close(finished)
		for len(done) < jobs {
			conn, err := amqp.DialConfig(url(), amqp.Config{Dial: func(network, _ string) (net.Conn, error) {
				s, err := net.Dial(network, address)
				lock.Lock()
				socket = s
				lock.Unlock()
				return s, err
			}})
			if err != nil {
				t.Error(err)
				return
			}
			ch, err := conn.Channel()
			if err != nil {
				continue
			}
			_ = ch.Qos(10, 0, false)
			deliveries, err := ch.Consume(q.Name, "", false, false, false, false, nil)
			if err != nil {
				continue
			}
			n := 0
			for d := range deliveries {
				if n++; n == 37 {
					// The network goes, in the middle of the work.
					lock.Lock()
					_ = socket.Close()
					lock.Unlock()
				}
				if d.Ack(false) == nil {
					done[string(d.Body)] = true
				}
				if len(done) == jobs {
					break
				}
			}
			_ = conn.Close()
		}
	}()
	next(t, finished)
	if len(done) != jobs {
		t.Errorf("%d jobs of %d", len(done), jobs)
	}
}

// Many goroutines, one connection.
func TestConcurrentChannels(t *testing.T) {
	conn := connect(t)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			ch, err := conn.Channel()
			if err != nil {
				t.Error(err)
				return
			}
			q, err := ch.QueueDeclare("", false, false, true, false, nil)
			if err != nil {
				t.Error(err)
				return
			}
			deliveries, err := ch.Consume(q.Name, "", true, false, false, false, nil)
			if err != nil {
				t.Error(err)
				return
			}
			for i := range 100 {
				body := []byte(fmt.Sprint(i))
				if err := ch.PublishWithContext(context.Background(), "", q.Name, false, false, amqp.Publishing{Body: body}); err != nil {
					t.Error(err)
					return
				}
			}
			for i := range 100 {
				select {
				case d := <-deliveries:
					if string(d.Body) != fmt.Sprint(i) {
						t.Errorf("%s, want %d", d.Body, i)
						return
					}
				case <-time.After(patience):
					t.Error("nothing came")
					return
				}
			}
		})
	}
	all.Wait()
}

func TestLargeBodies(t *testing.T) {
	ch := channel(t)
	q := queue(t, ch, nil)
	for _, size := range []int{0, 1, 131_063, 131_064, 131_065, 5 << 20} {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(i * 31)
		}
		publish(t, ch, "", q, amqp.Publishing{Body: body})
		m, ok, err := ch.Get(q, true)
		if err != nil || !ok || string(m.Body) != string(body) {
			t.Error(size, ok, err)
		}
	}
}
