//! What the lapin client relies on, run against the broker that `AMQP_URL` names.
//!
//! Every scenario opens its own connection; queues are exclusive unless the scenario is about sharing them, so that
//! nothing stays behind.

mod arguments;
mod delivery;
mod errors;
mod messages;
mod publishing;
mod support;
