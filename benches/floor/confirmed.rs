//! `confirmed PORT [FILE]`: not a broker, a yardstick, for publishers that wait for each confirm.
//!
//! The least that can be done for them and still be durable: a thread for each connection reads and
//! stages; one thread writes what is staged to FILE, syncs it, and answers all publishers of the batch
//! and the consumer with one write each. Without a FILE nothing is durable: the thread that reads passes
//! on and confirms what it has read. No queue, no routing, no acknowledgements, no errors.

use std::fs::OpenOptions;
use std::io::{Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex};

const FILE_BYTES: u64 = 64 << 20;

#[derive(Default)]
struct Staged {
    log: Vec<u8>,
    deliveries: Vec<u8>,
    confirms: Vec<(Arc<TcpStream>, u64)>,
    consumer: Option<Arc<TcpStream>>,
    next_tag: u64,
}

#[derive(Default)]
struct Shared {
    durable: bool,
    staged: Mutex<Staged>,
    work: Condvar,
}

fn method(channel: u16, class: u16, id: u16, arguments: &[u8], out: &mut Vec<u8>) {
    out.push(1);
    out.extend(channel.to_be_bytes());
    out.extend((4 + arguments.len() as u32).to_be_bytes());
    out.extend(class.to_be_bytes());
    out.extend(id.to_be_bytes());
    out.extend(arguments);
    out.push(0xCE);
}

/// Write, sync, answer.
fn commit(shared: &Shared, path: &str) -> Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    let zeros = vec![0; 1 << 20];
    (0..FILE_BYTES >> 20).try_for_each(|i| file.write_all_at(&zeros, i << 20))?;
    file.sync_all()?;
    let (mut at, mut batch, mut out) = (0, Staged::default(), Vec::new());
    loop {
        let mut staged = shared.staged.lock().unwrap();
        while staged.confirms.is_empty() {
            staged = shared.work.wait(staged).unwrap();
        }
        std::mem::swap(&mut batch.log, &mut staged.log);
        std::mem::swap(&mut batch.deliveries, &mut staged.deliveries);
        std::mem::swap(&mut batch.confirms, &mut staged.confirms);
        batch.consumer = staged.consumer.clone();
        drop(staged);
        if at + batch.log.len() as u64 > FILE_BYTES {
            at = 0;
        }
        file.write_all_at(&batch.log, at)?;
        file.sync_data()?;
        at += batch.log.len() as u64;
        batch.answer(&mut out);
    }
}

impl Staged {
    /// Passes on and confirms.
    fn answer(&mut self, out: &mut Vec<u8>) {
        for (publisher, tag) in self.confirms.drain(..) {
            out.clear();
            let mut arguments = tag.to_be_bytes().to_vec();
            arguments.push(0);
            method(1, 60, 80, &arguments, out);
            let _ = (&*publisher).write_all(out);
        }
        if let Some(consumer) = &self.consumer {
            let _ = (&**consumer).write_all(&self.deliveries);
        }
        self.log.clear();
        self.deliveries.clear();
    }
}

fn serve(socket: TcpStream, shared: &Shared) -> Result<()> {
    socket.set_nodelay(true)?;
    let socket = Arc::new(socket);
    let mut hello = [0; 8];
    (&*socket).read_exact(&mut hello)?;
    let mut out = Vec::new();
    method(
        0,
        10,
        10,
        b"\x00\x09\x00\x00\x00\x00\x00\x00\x00\x05PLAIN\x00\x00\x00\x05en_US",
        &mut out,
    );
    (&*socket).write_all(&out)?;
    let (mut input, mut len) = (vec![0; 1 << 18], 0);
    let (mut published, mut body_left, mut confirm) = (0, 0, Vec::new());
    loop {
        let n = (&*socket).read(&mut input[len..])?;
        if n == 0 {
            return Ok(());
        }
        len += n;
        let mut at = 0;
        out.clear();
        let mut staged = shared.staged.lock().unwrap();
        while len - at >= 8 {
            let size = u32::from_be_bytes(input[at + 3..at + 7].try_into().unwrap()) as usize + 8;
            if len - at < size {
                break;
            }
            let frame = &input[at..at + size];
            at += size;
            let payload = &frame[7..size - 1];
            if frame[0] != 1 {
                if shared.durable {
                    staged.log.extend(frame);
                }
                staged.deliveries.extend(frame);
                if frame[0] == 2 {
                    body_left = u64::from_be_bytes(payload[4..12].try_into().unwrap());
                } else {
                    body_left -= payload.len() as u64;
                }
                if body_left == 0 {
                    staged.confirms.push((socket.clone(), published));
                }
                continue;
            }
            let [class, id] = [0, 2].map(|i| u16::from_be_bytes([payload[i], payload[i + 1]]));
            match (class, id) {
                (60, 40) => {
                    published += 1;
                    let names = &payload[6..payload.len() - 1];
                    staged.next_tag += 1;
                    let mut arguments = b"\x01c".to_vec();
                    arguments.extend(staged.next_tag.to_be_bytes());
                    arguments.push(0);
                    arguments.extend(names);
                    staged.log.extend(frame);
                    method(1, 60, 60, &arguments, &mut staged.deliveries);
                }
                (10, 11) => method(0, 10, 30, &[7, 0xFF, 0, 2, 0, 0, 0, 0], &mut out),
                (10, 31) | (60, 80) => {}
                (10, 40) => method(0, 10, 41, &[0], &mut out),
                (10, 50) => {
                    method(0, 10, 51, &[], &mut out);
                    return (&*socket).write_all(&out);
                }
                (20, 10) => method(1, 20, 11, &[0; 4], &mut out),
                (50, 10) => method(
                    1,
                    50,
                    11,
                    b"\x01q\x00\x00\x00\x00\x00\x00\x00\x00",
                    &mut out,
                ),
                (50, 30 | 40) => method(1, class, id + 1, &[0; 4], &mut out),
                (60, 20) => {
                    method(1, 60, 21, b"\x01c", &mut out);
                    staged.consumer = Some(socket.clone());
                }
                _ => method(1, class, id + 1, &[], &mut out),
            }
        }
        if !shared.durable {
            staged.answer(&mut confirm);
        } else if !staged.confirms.is_empty() {
            shared.work.notify_one();
        }
        drop(staged);
        input.copy_within(at..len, 0);
        len -= at;
        if !out.is_empty() {
            (&*socket).write_all(&out)?;
        }
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(port), path) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: confirmed PORT [FILE]");
        std::process::exit(2);
    };
    let shared = Arc::new(Shared {
        durable: path.is_some(),
        ..Shared::default()
    });
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).expect("a free port");
    if let Some(path) = path {
        let committer = shared.clone();
        std::thread::spawn(move || commit(&committer, &path).expect("a disk that works"));
    }
    for socket in listener.incoming().flatten() {
        let shared = shared.clone();
        std::thread::spawn(move || serve(socket, &shared));
    }
}
