//! Prometheus metrics, with RabbitMQ's names, and what the system says about this process.
//!
//! Nothing is counted here: before each scrape the counters of the sessions and the gauges of the
//! queues are read. Handles are registered once.

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics::{Counter, Gauge, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio_util::sync::CancellationToken;

use super::admission::Refusal;
use super::descriptors::Descriptors;
use super::http::Limited;
use super::machine::{disk_free, memory_limit, resident_bytes};
use super::shared::Shared;
use super::workers::{LOW_ON_DISK, LOW_ON_MEMORY};
use crate::amqp::{self, settings::NODE_NAME};
use crate::broker::memory::Use;
use crate::broker::totals::{QueueKind, Totals};
use crate::clock;
use crate::storage::{Job, SegmentedLog};

/// How long requests may take when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// Content type of the text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A counter that is read from the broker's totals.
struct Total {
    handle: Counter,
    read: Box<dyn Fn(&Totals) -> &AtomicU64 + Send + Sync>,
}

/// All metrics. See the module.
pub(super) struct Metrics {
    shared: Arc<Shared>,
    log: Arc<SegmentedLog>,
    exporter: PrometheusHandle,
    totals: Vec<Total>,
    gauges: Gauges,
    started: u64,
}

struct Gauges {
    connections: Gauge,
    channels: Gauge,
    queues: Gauge,
    consumers: Gauge,
    global_consumers: Gauge,
    ready: Gauge,
    unacked: Gauge,
    messages: Gauge,
    memory: Gauge,
    memory_limit: Gauge,
    used: [Gauge; Use::ALL.len()],
    disk: Gauge,
    disk_limit: Gauge,
    open_files: Gauge,
    max_files: Gauge,
    uptime: Gauge,
    log_segments: Gauge,
    log_bytes: Gauge,
    log_syncs: Counter,
    log_damaged: Counter,
    log_lost_at_start: Gauge,
    log_set_aside: Gauge,
    memory_alarm: Gauge,
    disk_alarm: Gauge,
    half_open: Gauge,
    slowed: Counter,
    log_backlog: Gauge,
    log_failed: Gauge,
    log_out_of_space: Gauge,
    log_jobs: [Gauge; Job::ALL.len()],
    log_reserve: Gauge,
    waits_for_consumers: Counter,
    logins: Counter,
    logins_good: Counter,
    logins_bad: Counter,
    refused: [Counter; Refusal::ALL.len()],
}

const METADATA: Metadata<'static> = Metadata::new("leveret", Level::INFO, None);

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> = labels
        .iter()
        .map(|(k, v)| Label::new(*k, v.to_string()))
        .collect();
    Key::from_parts(name, labels)
}

fn counter(
    r: &PrometheusRecorder,
    name: &'static str,
    labels: &[(&'static str, &str)],
    help: &'static str,
) -> Counter {
    r.describe_counter(KeyName::from(name), None, help.into());
    r.register_counter(&key(name, labels), &METADATA)
}

fn gauge(
    r: &PrometheusRecorder,
    name: &'static str,
    labels: &[(&'static str, &str)],
    help: &'static str,
) -> Gauge {
    r.describe_gauge(KeyName::from(name), None, help.into());
    r.register_gauge(&key(name, labels), &METADATA)
}

impl Metrics {
    /// Registers everything.
    pub(super) fn new(shared: Arc<Shared>, log: Arc<SegmentedLog>) -> Result<Metrics, String> {
        let r = PrometheusBuilder::new().build_recorder();
        let amqp = [("protocol", "amqp091")];
        let mut totals = Vec::new();
        macro_rules! total {
            ($name:literal, $labels:expr, $field:ident, $help:literal) => {
                totals.push(Total {
                    handle: counter(&r, $name, $labels, $help),
                    read: Box::new(|t| &t.$field),
                });
            };
        }
        macro_rules! by_type {
            ($name:literal, $field:ident, $help:literal) => {
                for kind in QueueKind::ALL {
                    let labels = [("protocol", "amqp091"), ("queue_type", kind.name())];
                    totals.push(Total {
                        handle: counter(&r, $name, &labels, $help),
                        read: Box::new(move |t| &t.queues[kind as usize].$field),
                    });
                }
            };
        }
        total!(
            "rabbitmq_connections_opened_total",
            &[],
            connections_opened,
            "Connections opened"
        );
        total!(
            "rabbitmq_connections_closed_total",
            &[],
            connections_closed,
            "Connections closed"
        );
        total!(
            "rabbitmq_channels_opened_total",
            &[],
            channels_opened,
            "Channels opened"
        );
        total!(
            "rabbitmq_channels_closed_total",
            &[],
            channels_closed,
            "Channels closed"
        );
        total!(
            "rabbitmq_queues_declared_total",
            &[],
            queues_declared,
            "Queues declared"
        );
        total!(
            "rabbitmq_queues_created_total",
            &[],
            queues_created,
            "Queues created"
        );
        total!(
            "rabbitmq_queues_deleted_total",
            &[],
            queues_deleted,
            "Queues deleted"
        );
        total!(
            "rabbitmq_global_messages_received_total",
            &amqp,
            received,
            "Messages received from publishers"
        );
        total!(
            "rabbitmq_global_messages_received_confirm_total",
            &amqp,
            received_confirm,
            "Messages received from publishers using confirms"
        );
        total!(
            "rabbitmq_global_messages_confirmed_total",
            &amqp,
            confirmed,
            "Messages confirmed to publishers"
        );
        total!(
            "rabbitmq_global_messages_routed_total",
            &amqp,
            routed,
            "Messages routed to queues"
        );
        total!(
            "rabbitmq_global_messages_unroutable_dropped_total",
            &amqp,
            unroutable_dropped,
            "Unroutable messages dropped"
        );
        total!(
            "rabbitmq_global_messages_unroutable_returned_total",
            &amqp,
            unroutable_returned,
            "Unroutable messages returned to publishers"
        );
        by_type!(
            "rabbitmq_global_messages_delivered_consume_auto_ack_total",
            delivered_auto_ack,
            "Messages delivered to consumers without acknowledgement"
        );
        by_type!(
            "rabbitmq_global_messages_delivered_consume_manual_ack_total",
            delivered_manual_ack,
            "Messages delivered to consumers with acknowledgement"
        );
        by_type!(
            "rabbitmq_global_messages_delivered_get_auto_ack_total",
            get_auto_ack,
            "Messages got without acknowledgement"
        );
        by_type!(
            "rabbitmq_global_messages_delivered_get_manual_ack_total",
            get_manual_ack,
            "Messages got with acknowledgement"
        );
        by_type!(
            "rabbitmq_global_messages_get_empty_total",
            get_empty,
            "basic.get on empty queues"
        );
        by_type!(
            "rabbitmq_global_messages_redelivered_total",
            redelivered,
            "Messages redelivered"
        );
        by_type!(
            "rabbitmq_global_messages_acknowledged_total",
            acknowledged,
            "Messages acknowledged"
        );
        total!(
            "leveret_log_lost_messages_total",
            &[],
            log_lost_messages,
            "Messages of queues given up because the log is damaged where they were"
        );
        total!(
            "leveret_log_read_errors_total",
            &[],
            log_read_errors,
            "Reads of the message log that the disk refused, each tried again"
        );
        let p = &shared.config.protocol;
        let identity = [
            ("rabbitmq_node", NODE_NAME),
            ("rabbitmq_cluster", p.cluster_name.as_str()),
            ("rabbitmq_cluster_permanent_id", p.cluster_name.as_str()),
            ("rabbitmq_endpoint", "aggregated"),
        ];
        gauge(
            &r,
            "rabbitmq_identity_info",
            &identity,
            "RabbitMQ node and cluster identity",
        )
        .set(1.0);
        let build = [
            ("rabbitmq_version", p.version.as_str()),
            ("prometheus_plugin_version", p.version.as_str()),
            ("prometheus_client_version", amqp::VERSION),
            ("erlang_version", "0"),
            ("product_name", "Leveret"),
            ("product_version", amqp::VERSION),
        ];
        gauge(&r, "rabbitmq_build_info", &build, "Version of the broker").set(1.0);
        let g = |name, help| gauge(&r, name, &[], help);
        let gauges = Gauges {
            connections: g("rabbitmq_connections", "Connections currently open"),
            channels: g("rabbitmq_channels", "Channels currently open"),
            queues: g("rabbitmq_queues", "Queues available"),
            consumers: g("rabbitmq_consumers", "Consumers currently connected"),
            global_consumers: gauge(&r, "rabbitmq_global_consumers", &amqp, "Consumers"),
            ready: g(
                "rabbitmq_queue_messages_ready",
                "Messages ready to be delivered to consumers",
            ),
            unacked: g(
                "rabbitmq_queue_messages_unacked",
                "Messages delivered to consumers but not yet acknowledged",
            ),
            messages: g(
                "rabbitmq_queue_messages",
                "Sum of ready and unacknowledged messages",
            ),
            memory: g(
                "rabbitmq_process_resident_memory_bytes",
                "Memory used in bytes",
            ),
            used: Use::ALL.map(|what| {
                gauge(
                    &r,
                    "leveret_memory_used_bytes",
                    &[("use", what.name())],
                    "Memory that grows with traffic, by what it is used for",
                )
            }),
            memory_limit: g(
                "rabbitmq_resident_memory_limit_bytes",
                "Memory high watermark in bytes",
            ),
            disk: g(
                "rabbitmq_disk_space_available_bytes",
                "Disk space available in bytes",
            ),
            disk_limit: g(
                "rabbitmq_disk_space_available_limit_bytes",
                "Free disk space low watermark in bytes",
            ),
            open_files: g("rabbitmq_process_open_fds", "Open file descriptors"),
            max_files: g("rabbitmq_process_max_fds", "Open file descriptors limit"),
            uptime: g("rabbitmq_erlang_uptime_seconds", "Uptime of the broker"),
            log_segments: g("leveret_log_segments", "Segments of the message log"),
            log_bytes: g("leveret_log_bytes", "Bytes in use in the message log"),
            log_syncs: counter(
                &r,
                "leveret_log_syncs_total",
                &[],
                "Calls of fdatasync by the message log",
            ),
            log_damaged: counter(
                &r,
                "leveret_log_damaged_places_total",
                &[],
                "Places in the message log's files that were found damaged",
            ),
            log_lost_at_start: g(
                "leveret_log_lost_at_start_messages",
                "Messages, settled or not, that stood where the start found the log damaged",
            ),
            log_set_aside: g(
                "leveret_log_set_aside_files",
                "Files of the message log that could not be read at the start and are left out",
            ),
            memory_alarm: g(
                "rabbitmq_alarms_memory_used_watermark",
                "1 if the memory alarm holds",
            ),
            disk_alarm: g(
                "rabbitmq_alarms_free_disk_space_watermark",
                "1 if the disk alarm holds",
            ),
            log_backlog: g(
                "leveret_log_backlog_bytes",
                "Bytes that wait to be written to the message log",
            ),
            log_failed: g(
                "leveret_log_failed",
                "1 if the message log failed and accepts nothing more",
            ),
            log_out_of_space: g(
                "leveret_log_out_of_space",
                "1 if the message log found no room on the disk",
            ),
            log_reserve: g(
                "leveret_log_reserve_bytes",
                "Bytes of the disk that the message log keeps for when there are none",
            ),
            log_jobs: Job::ALL.map(|job| {
                gauge(
                    &r,
                    "leveret_log_job_failing",
                    &[("job", job.name())],
                    "1 if the message log cannot do this at the moment; it is tried again",
                )
            }),
            waits_for_consumers: counter(
                &r,
                "leveret_publishers_waited_for_consumers_total",
                &[],
                "Waits of publishers for consumers that are a little behind",
            ),
            logins: counter(
                &r,
                "rabbitmq_auth_attempts_total",
                &amqp,
                "Authentication attempts",
            ),
            logins_good: counter(
                &r,
                "rabbitmq_auth_attempts_succeeded_total",
                &amqp,
                "Successful authentication attempts",
            ),
            logins_bad: counter(
                &r,
                "rabbitmq_auth_attempts_failed_total",
                &amqp,
                "Failed authentication attempts",
            ),
            half_open: g(
                "leveret_connections_unauthenticated",
                "Connections that have not logged in yet",
            ),
            slowed: counter(
                &r,
                "leveret_connections_slowed_total",
                &[],
                "Connections that were kept waiting because logins from their address had failed",
            ),
            refused: Refusal::ALL.map(|why| {
                counter(
                    &r,
                    "leveret_connections_refused_total",
                    &[("reason", why.label())],
                    "Connections refused before anything was read from them",
                )
            }),
        };
        let exporter = r.handle();
        // The handles keep their storage; the recorder itself is not needed any more.
        Ok(Metrics {
            shared,
            log,
            exporter,
            totals,
            gauges,
            started: clock::now(),
        })
    }

    /// Reads everything and renders it.
    pub(super) fn render(&self) -> String {
        let totals = &self.shared.broker.totals;
        for t in &self.totals {
            t.handle.absolute((t.read)(totals).load(Ordering::Relaxed));
        }
        let open = |opened: &AtomicU64, closed: &AtomicU64| {
            let closed = closed.load(Ordering::Relaxed);
            opened.load(Ordering::Relaxed).saturating_sub(closed) as f64
        };
        let g = &self.gauges;
        g.connections
            .set(open(&totals.connections_opened, &totals.connections_closed));
        g.channels
            .set(open(&totals.channels_opened, &totals.channels_closed));
        let (mut ready, mut unacked, mut away, mut consumers) = (0, 0, 0, 0);
        let vhosts = self.shared.broker.vhosts();
        let queues: Vec<_> = vhosts.iter().flat_map(|v| v.queues()).collect();
        for queue in &queues {
            let counts = queue.counts();
            ready += counts.ready;
            unacked += counts.unacked;
            away += counts.away;
            consumers += counts.consumers;
        }
        g.queues.set(queues.len() as f64);
        g.consumers.set(consumers as f64);
        g.global_consumers.set(consumers as f64);
        g.ready.set(ready as f64);
        g.unacked.set(unacked as f64);
        g.messages.set((ready + unacked + away) as f64);
        let config = &self.shared.config;
        let (memory, memory_limit) = (resident_bytes(), memory_limit(config));
        let (disk, disk_limit) = (
            disk_free(&config.data_dir()),
            config.disk.free_limit_bytes.0,
        );
        g.memory.set(memory as f64);
        g.memory_limit.set(memory_limit as f64);
        for (gauge, what) in g.used.iter().zip(Use::ALL) {
            gauge.set(self.shared.broker.memory().used(what) as f64);
        }
        g.disk.set(disk as f64);
        g.disk_limit.set(disk_limit as f64);
        // What holds, not what would hold now: the metric never says other than clients are told.
        let alarm = self.shared.alarm().unwrap_or_default();
        let holds = |reason| f64::from(u8::from(alarm.contains(reason)));
        g.memory_alarm.set(holds(LOW_ON_MEMORY));
        g.disk_alarm.set(holds(LOW_ON_DISK));
        g.log_backlog
            .set(self.shared.broker.log().backlog_bytes() as f64);
        g.log_failed
            .set(f64::from(u8::from(self.shared.broker.log().failed())));
        g.log_out_of_space
            .set(f64::from(u8::from(self.log.out_of_space())));
        let troubles = self.log.troubles();
        for (gauge, job) in g.log_jobs.iter().zip(Job::ALL) {
            let failing = troubles.iter().any(|(failing, _)| *failing == job);
            gauge.set(f64::from(u8::from(failing)));
        }
        let waits = self.shared.waits_for_consumers.load(Ordering::Relaxed);
        g.waits_for_consumers.absolute(waits);
        let logins = &self.shared.logins;
        let (good, bad) = (
            logins.good.load(Ordering::Relaxed),
            logins.bad.load(Ordering::Relaxed),
        );
        g.logins.absolute(good + bad);
        g.logins_good.absolute(good);
        g.logins_bad.absolute(bad);
        g.open_files.set(Descriptors::in_use() as f64);
        g.max_files.set(self.shared.descriptors.most() as f64);
        let admission = &self.shared.admission;
        g.half_open.set(admission.half_open() as f64);
        g.slowed.absolute(admission.slowed());
        for (counter, why) in g.refused.iter().zip(Refusal::ALL) {
            counter.absolute(admission.refused(why));
        }
        g.uptime
            .set(clock::now().saturating_sub(self.started) as f64 / 1000.0);
        let log = self.log.stats();
        g.log_segments.set(log.segments as f64);
        g.log_bytes.set(log.bytes as f64);
        g.log_syncs.absolute(log.syncs);
        g.log_reserve.set(log.reserve_bytes as f64);
        g.log_damaged.absolute(log.damaged);
        let damage = self.log.damage();
        g.log_lost_at_start.set(damage.lost_messages() as f64);
        g.log_set_aside.set(damage.set_aside.len() as f64);
        self.exporter.render()
    }
}

/// Serves `/metrics`.
pub(super) async fn serve(
    listener: Limited,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let render = move || {
        let metrics = metrics.clone();
        async move { ([(CONTENT_TYPE, TEXT_FORMAT)], metrics.render()) }
    };
    let app = Router::new().route("/metrics", get(render));
    let ask = stop.clone();
    let served = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned());
    tokio::select! {
        served = served.into_future() => served,
        // Who is in the middle of a request gets a moment, who has sent half of one no more.
        () = async {
            ask.cancelled().await;
            tokio::time::sleep(STOP_TIMEOUT).await;
        } => Ok(()),
    }
}
