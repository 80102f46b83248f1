//! What clients do, chosen at random.

use leveret::protocol::encode::{self, Content};
use leveret::protocol::field_table::{FieldTable, TableRef};
use leveret::protocol::methods::{basic, channel, confirm, connection, queue, tx};
use leveret::protocol::properties::Properties;
use leveret::protocol::{EncodeMethod, Method};

use crate::body;
use crate::topology::{self, QUEUES, WAYS};
use crate::world::{CHANNELS, CONNECTIONS, Channel, End, Mode, OnItsWay, Origin, Source, World};

/// Messages that a channel may hold, and publishes that may wait for a confirm, before somebody looks after them.
const HELD_MAX: usize = 200;

impl World {
    /// One thing that a client does, and what follows from it.
    pub fn operation(&mut self) {
        self.operations += 1;
        let i = self.random.below(CONNECTIONS);
        let number = 1 + self.random.below(usize::from(CHANNELS)) as u16;
        // An end is a result like any other: the next operation connects again.
        let _ = self
            .ensure(i, number)
            .and_then(|()| self.pump(i))
            .and_then(|()| self.one(i, number));
    }

    fn one(&mut self, i: usize, number: u16) -> Result<(), End> {
        if !self.channel(i, number).open {
            return Err(End::Channel);
        }
        if self.channel(i, number).unacked.len() > HELD_MAX {
            return self.settle(i, number);
        }
        if self.channel(i, number).on_their_way.len() > HELD_MAX {
            return self.wait_for_confirms(i, number);
        }
        match self.random.below(1000) {
            0..350 => self.publish(i, number),
            350..600 => self.settle(i, number),
            600..700 => self.get(i, number),
            700..740 => self.consume(i, number),
            740..760 => self.stop_consuming(i, number),
            760..790 => self.qos(i, number),
            790..820 => self.count(i, number),
            820..850 => self.mode(i, number),
            850..880 => self.end_transaction(i, number),
            880..885 => self.purge(i, number),
            885..890 => self.recover(i, number),
            890..910 => self.close_channel(i, number),
            910..915 => self.close_connection(i),
            915..920 => self.vanish(i),
            920..930 => self.wait_for_confirms(i, number),
            _ => self.wild(i, number),
        }
    }

    fn publish(&mut self, i: usize, number: u16) -> Result<(), End> {
        let way = self.random.below(WAYS.len() + topology::DEAD);
        let count = 1 + self.random.below(20);
        let (exchange, key, to) = match WAYS.get(way) {
            Some(way) => (
                self.names.exchange(way.exchange),
                way.key.to_string(),
                way.to.to_vec(),
            ),
            None => {
                let queue = way - WAYS.len();
                (String::new(), self.names.queue(queue), vec![queue])
            }
        };
        self.note(format!(
            "{i}.{number}: publish {count} to {exchange:?} {key:?}, from {}",
            self.next_message
        ));
        let later = exchange == self.names.exchange("later");
        for _ in 0..count {
            let persistent = !self.random.one_in(4);
            let settled = self.history.settled();
            let c = self.channel(i, number);
            c.published += 1;
            c.sequence += 1;
            let (tag, publisher) = (c.published, c.id);
            let sequence = (!later).then_some(c.sequence);
            let (message, copies) = self.new_message(
                Origin {
                    publisher,
                    sequence,
                },
                &to,
                persistent,
            );
            self.channel(i, number)
                .on_their_way
                .insert(tag, OnItsWay { copies, settled });
            let mut headers = FieldTable::new();
            if later {
                headers.insert("x-delay", self.random.pick(&[0i64, 1, 30, 300]));
            }
            let properties = Properties {
                delivery_mode: Some(if persistent { 2 } else { 1 }),
                // A quorum queue has two of them: only where order is not asked for.
                priority: (to == [topology::PRIORITIES]).then(|| self.random.below(8) as u8),
                headers: Some(headers),
                ..Properties::default()
            };
            let out = &mut self.connection(i).link.out;
            let publish = basic::Publish {
                exchange: exchange.as_str().into(),
                routing_key: key.as_str().into(),
                mandatory: message.is_multiple_of(3),
                immediate: false,
            };
            encode::method(out, number, &publish);
            let properties = properties.encode();
            let content = Content {
                properties: &properties,
                body: &body::body(message),
            };
            encode::content(out, number, &content, 131_072);
        }
        self.flush(i)
    }

    /// Waits until all publishes of a channel are confirmed.
    pub fn wait_for_confirms(&mut self, i: usize, number: u16) -> Result<(), End> {
        if self.channel(i, number).mode != Mode::Confirm {
            return self.count(i, number);
        }
        self.note(format!("{i}.{number}: wait for confirms"));
        while !self.channel(i, number).on_their_way.is_empty() {
            self.next_frame(i)?;
            if !self.channel(i, number).open {
                return Err(End::Channel);
            }
        }
        Ok(())
    }

    fn settle(&mut self, i: usize, number: u16) -> Result<(), End> {
        let held = self.channel(i, number).unacked.len();
        if held == 0 {
            return self.get(i, number);
        }
        let at = self.random.below(held);
        let tag = *self
            .channel(i, number)
            .unacked
            .keys()
            .nth(at)
            .expect("one of them");
        let multiple = self.random.one_in(3);
        let how = self.random.below(10);
        let requeue = how < 3;
        self.note(format!(
            "{i}.{number}: settle {tag} multiple {multiple} {how}"
        ));
        let c = self.channel(i, number);
        let several = multiple && how != 2;
        let tags: Vec<u64> = match several {
            true => c.unacked.range(..=tag).map(|(t, _)| *t).collect(),
            false => vec![tag],
        };
        let taken: Vec<_> = tags
            .iter()
            .filter_map(|t| Some((*t, c.unacked.remove(t)?)))
            .collect();
        if c.mode == Mode::Transactions {
            // It happens at the commit.
            c.to_settle.extend(taken);
            return self.send(
                i,
                number,
                &basic::Ack {
                    delivery_tag: tag,
                    multiple: several,
                },
            );
        }
        for copy in taken.into_iter().filter_map(|(_, copy)| copy) {
            let dies =
                how == 3 && topology::has_dead_letters(copy.queue) && !self.history.is_dead(copy);
            if requeue || dies {
                self.history.returned(copy);
            } else {
                self.history.settling(copy);
                self.channel(i, number).settling.push(copy);
            }
        }
        match how {
            0 | 1 | 3 => self.send(
                i,
                number,
                &basic::Nack {
                    delivery_tag: tag,
                    multiple: several,
                    requeue,
                },
            ),
            2 => self.send(
                i,
                number,
                &basic::Reject {
                    delivery_tag: tag,
                    requeue,
                },
            ),
            _ => self.send(
                i,
                number,
                &basic::Ack {
                    delivery_tag: tag,
                    multiple: several,
                },
            ),
        }
    }

    fn get(&mut self, i: usize, number: u16) -> Result<(), End> {
        let queue = self.random.below(QUEUES);
        let no_ack = self.random.one_in(5);
        let name = self.names.queue(queue);
        self.get_from(i, number, &name, Some(queue), no_ack)
            .map(drop)
    }

    /// Whether there was one.
    pub fn get_from(
        &mut self,
        i: usize,
        number: u16,
        name: &str,
        queue: Option<usize>,
        no_ack: bool,
    ) -> Result<bool, End> {
        self.note(format!("{i}.{number}: get from {name} no_ack {no_ack}"));
        let id = self.channel(i, number).id;
        self.channel(i, number).asked = Some(Source { queue, no_ack, id });
        self.send(
            i,
            number,
            &basic::Get {
                queue: name,
                no_ack,
            },
        )?;
        let before = self.received;
        loop {
            let c = self.channel(i, number);
            if !c.open {
                return Err(End::Channel);
            }
            if c.asked.is_none() && !c.is_receiving() {
                return Ok(self.received > before);
            }
            if let Some(frame) = self.next_frame(i)? {
                let Method::BasicGetEmpty(_) = frame.method() else {
                    self.fail(&format!("{:?} for a get", frame.method()));
                };
                self.channel(i, number).asked = None;
                return Ok(false);
            }
        }
    }

    fn consume(&mut self, i: usize, number: u16) -> Result<(), End> {
        if self.channel(i, number).consumers.len() > 3 {
            return self.stop_consuming(i, number);
        }
        let queue = self.random.below(QUEUES);
        let source = Source {
            queue: Some(queue),
            no_ack: self.random.one_in(6),
            id: self.new_id(),
        };
        let (name, tag) = (self.names.queue(queue), format!("c{}", source.id));
        self.note(format!(
            "{i}.{number}: consume {name} as {tag} no_ack {}",
            source.no_ack
        ));
        let no_ack = source.no_ack;
        self.channel(i, number)
            .consumers
            .insert(tag.clone(), source);
        let mut arguments = FieldTable::new();
        if self.random.one_in(4) {
            arguments.insert("x-priority", self.random.below(3) as i64);
        }
        let arguments = arguments.to_bytes();
        let consume = basic::Consume {
            queue: &name,
            consumer_tag: &tag,
            no_local: false,
            no_ack,
            exclusive: false,
            nowait: false,
            arguments: TableRef::unchecked(&arguments),
        };
        self.call(i, number, &consume, basic::ConsumeOk::ID)
            .map(drop)
    }

    fn stop_consuming(&mut self, i: usize, number: u16) -> Result<(), End> {
        let Some(tag) = self.channel(i, number).consumers.keys().min().cloned() else {
            return self.consume_if_few(i, number);
        };
        self.note(format!("{i}.{number}: cancel {tag}"));
        self.cancel(i, number, &tag)
    }

    fn consume_if_few(&mut self, i: usize, number: u16) -> Result<(), End> {
        match self.channel(i, number).consumers.is_empty() {
            true => self.consume(i, number),
            false => Ok(()),
        }
    }

    fn qos(&mut self, i: usize, number: u16) -> Result<(), End> {
        let qos = basic::Qos {
            prefetch_size: 0,
            prefetch_count: self.random.pick(&[1, 2, 10, 100]),
            global: self.random.one_in(4),
        };
        self.note(format!("{i}.{number}: {qos:?}"));
        self.call(i, number, &qos, basic::QosOk::ID).map(drop)
    }

    /// Asks for the messages of a queue: a question whose answer shows that all before it was heard.
    pub fn count(&mut self, i: usize, number: u16) -> Result<(), End> {
        let queue = self.random.below(QUEUES);
        self.ready(i, number, queue).map(drop)
    }

    /// Ready messages of a queue.
    pub fn ready(&mut self, i: usize, number: u16, queue: usize) -> Result<u32, End> {
        let name = self.names.queue(queue);
        let passive = queue::Declare {
            queue: &name,
            passive: true,
            durable: true,
            exclusive: false,
            auto_delete: false,
            nowait: false,
            arguments: TableRef::default(),
        };
        let frame = self.call(i, number, &passive, queue::DeclareOk::ID)?;
        let Method::QueueDeclareOk(ok) = frame.method() else {
            unreachable!("it was asked for")
        };
        Ok(ok.message_count)
    }

    /// Makes a fresh channel one with confirms or transactions.
    fn mode(&mut self, i: usize, number: u16) -> Result<(), End> {
        let c = self.channel(i, number);
        if c.mode != Mode::Plain || c.published > 0 || !c.unacked.is_empty() {
            return self.close_channel(i, number);
        }
        let mode = match self.random.one_in(3) {
            true => Mode::Transactions,
            false => Mode::Confirm,
        };
        self.note(format!("{i}.{number}: {mode:?}"));
        match mode {
            Mode::Transactions => self.call(i, number, &tx::Select, tx::SelectOk::ID)?,
            _ => self.call(
                i,
                number,
                &confirm::Select { nowait: false },
                confirm::SelectOk::ID,
            )?,
        };
        self.channel(i, number).mode = mode;
        Ok(())
    }

    fn end_transaction(&mut self, i: usize, number: u16) -> Result<(), End> {
        if self.channel(i, number).mode != Mode::Transactions {
            return self.mode(i, number);
        }
        if self.random.one_in(4) {
            self.note(format!("{i}.{number}: rollback"));
            self.call(i, number, &tx::Rollback, tx::RollbackOk::ID)?;
            let c = self.channel(i, number);
            let undone = std::mem::take(&mut c.on_their_way);
            // What was to be acknowledged is held as before.
            c.unacked.extend(std::mem::take(&mut c.to_settle));
            for copy in undone.into_values().flat_map(|p| p.copies) {
                self.history.undone(copy);
            }
            return Ok(());
        }
        self.note(format!("{i}.{number}: commit"));
        let c = self.channel(i, number);
        c.settling = std::mem::take(&mut c.to_settle)
            .into_iter()
            .filter_map(|(_, copy)| copy)
            .collect();
        let published = std::mem::take(&mut c.on_their_way);
        for copy in self.channel(i, number).settling.clone() {
            self.history.settling(copy);
        }
        if let Err(end) = self.call(i, number, &tx::Commit, tx::CommitOk::ID) {
            for copy in published.into_values().flat_map(|p| p.copies) {
                self.history.doubtful(copy);
            }
            return Err(end);
        }
        for p in published.into_values() {
            for copy in p.copies {
                self.history.kept(copy, true, p.settled);
            }
        }
        Ok(())
    }

    fn purge(&mut self, i: usize, number: u16) -> Result<(), End> {
        let queue = self.random.below(QUEUES);
        let name = self.names.queue(queue);
        self.note(format!("{i}.{number}: purge {name}"));
        self.shaken(queue);
        let purge = queue::Purge {
            queue: &name,
            nowait: false,
        };
        let purged = self.call(i, number, &purge, queue::PurgeOk::ID).map(drop);
        // What came in meanwhile is in doubt, too.
        self.shaken(queue);
        purged
    }

    fn recover(&mut self, i: usize, number: u16) -> Result<(), End> {
        self.note(format!("{i}.{number}: recover"));
        let recover = basic::Recover { requeue: true };
        self.call(i, number, &recover, basic::RecoverOk::ID)?;
        // What came before the answer is back, too.
        let held = std::mem::take(&mut self.channel(i, number).unacked);
        for copy in held.into_values().flatten() {
            self.history.returned(copy);
        }
        Ok(())
    }

    pub fn close_channel(&mut self, i: usize, number: u16) -> Result<(), End> {
        self.note(format!("{i}.{number}: close"));
        let close = channel::Close {
            reply_code: 200,
            reply_text: "",
            class_id: 0,
            method_id: 0,
        };
        self.channel(i, number).closing = true;
        self.call(i, number, &close, channel::CloseOk::ID)?;
        self.channel_lost(i, number);
        Ok(())
    }

    /// Closes properly: all that was sent has been heard.
    pub fn close_connection(&mut self, i: usize) -> Result<(), End> {
        for number in 1..=CHANNELS {
            if self.connections[i].is_some() && self.channel(i, number).open {
                // A channel that ends otherwise is closed just as well.
                let _ = self.close_channel(i, number);
            }
        }
        if self.connections[i].is_none() {
            return Ok(());
        }
        self.note(format!("{i}: close"));
        let close = connection::Close {
            reply_code: 200,
            reply_text: "",
            class_id: 0,
            method_id: 0,
        };
        self.send(i, 0, &close)?;
        loop {
            match self.next_frame(i)? {
                Some(frame) if frame.channel == 0 => break,
                _ => {}
            }
        }
        self.connection_lost(i);
        Ok(())
    }

    /// The socket is closed without a word.
    fn vanish(&mut self, i: usize) -> Result<(), End> {
        // Until the broker sees it, a consumer that acknowledges nothing goes on losing what others publish.
        let loses = |c: &Channel| c.consumers.values().any(|s| s.no_ack && s.queue.is_some());
        if self.connection(i).channels.iter().any(loses) {
            return self.close_connection(i);
        }
        self.note(format!("{i}: vanishes"));
        self.connection_lost(i);
        Err(End::Connection)
    }
}
