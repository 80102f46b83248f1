//! The end of a vhost.

use super::{UNPOISONED, Vhost};
use crate::broker::exchange::Router;

impl Drop for Vhost {
    /// Takes the bindings apart: exchanges bound in a circle would keep each other alive.
    fn drop(&mut self) {
        for exchange in self.exchanges.get_mut().expect(UNPOISONED).values() {
            *exchange.router_mut() = Router::new(exchange.info.kind, &exchange.info.arguments);
        }
    }
}
